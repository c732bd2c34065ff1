"""A digest is either exactly right or refused: it becomes a file name."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.oci.digest import Digest, InvalidDigest, hasher

HEX = "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        HEX,
        "sha256:../../x",
        "sha256:../../../../etc/passwd",
        "sha256:" + HEX[:-2] + "/x",
        "sha256:" + HEX + "/../x",
        "sha256:" + HEX + "\n",
        "sha256:" + HEX + "\0",
        " sha256:" + HEX,
        "../sha256:" + HEX,
        "sha256/..:" + HEX,
        "SHA256:" + HEX,
        "sha256:" + HEX.upper(),
        "sha256:" + HEX[:-1],
        "sha256:" + HEX + "0",
        "sha512:" + HEX,
        "md5:" + "a" * 32,
        "sha256:" + "\u0661" * 64,
        "sha256:" * 100_000,
    ],
)
def test_attack_11_digest_strings_as_paths(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest(text)
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@given(st.text(max_size=200))
def test_attack_11_no_text_that_parses_can_leave_its_folder(text: str) -> None:
    try:
        digest = Digest(text)
    except InvalidDigest:
        return
    assert "/" not in digest
    assert "." not in digest
    assert digest == text


@given(st.binary(), st.sampled_from(["sha256", "sha384", "sha512"]))
def test_digest_of_bytes(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert Digest(str(digest)) == digest
    assert digest.algorithm == algorithm
    assert len(digest.short) == 12


def test_hash_state_is_of_the_digests_algorithm() -> None:
    digest = Digest.of(b"pier", "sha512")
    state = digest.hasher()
    state.update(b"pi")
    assert Digest.finish(state, b"er") == digest
    with pytest.raises(InvalidDigest, match="unsupported digest algorithm"):
        hasher("md5")
