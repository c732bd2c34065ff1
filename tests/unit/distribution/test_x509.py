"""Names in certificates."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.registry import TLS
from pier.distribution.x509 import subject_and_issuer

DER = ssl.PEM_cert_to_DER_cert((TLS / "server.crt").read_text())


def test_subject_and_issuer() -> None:
    assert subject_and_issuer(DER) == ("O=Pier tests,CN=registry.test", "O=Pier tests,CN=Pier test CA")


@given(st.integers(0, len(DER) - 1), st.binary(max_size=3))
def test_damaged_certificates_are_value_errors(at: int, change: bytes) -> None:
    for damaged in (DER[:at], DER[:at] + change + DER[at + len(change) :], change):
        try:
            names = subject_and_issuer(damaged)
        except ValueError:
            continue
        assert all(name.isprintable() for name in names)


def test_truncated() -> None:
    with pytest.raises(ValueError, match="truncated"):
        subject_and_issuer(DER[:-1])
