"""DNS messages: what is taken for a query, what is answered to everything else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.networks.dns.message import (
    Malformed,
    Query,
    address_of,
    address_records,
    is_reply_to,
    parse_query,
    pointer_record,
    refusal,
    reply,
    truncated,
)

from ....dns_wire import AAAA, HTTPS, A, encode_name, opt, question, read


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (b"", None),
        (b"\x12\x34\x01", None),
        (question("a", flags=0x8100), None),  # a reply
        (question("a", flags=0x1000), 4),  # STATUS
        (question("a", flags=0x2400), 4),  # NOTIFY
        (question("a", flags=0x2800), 4),  # UPDATE
        (struct.pack("!6H", 1, 0x100, 0, 0, 0, 0), 1),
        (struct.pack("!6H", 1, 0x100, 2, 0, 0, 0) + question("a")[12:] * 2, 1),
        (question("a")[:-3], 1),
        (question("a")[:13], 1),
        (struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", 1),  # a pointer to itself
        (struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\x40aaaa\0\0\1\0\1", 1),
        (question(".".join(["a" * 63] * 4)), 1),  # 257 bytes
        (question("a", edns=opt(1232))[:-1], 1),
        (question("a", edns=opt(1232)[:-2] + b"\0\x09"), 1),  # data that is not there
        (struct.pack("!6H", 1, 0x100, 1, 0, 0, 2) + question("a")[12:] + opt(512) * 2, 1),
        (struct.pack("!6H", 1, 0x100, 1, 0, 0, 1) + question("a")[12:] + b"\1x" + opt(512), 1),
        (struct.pack("!6H", 1, 0x100, 1, 9, 0, 0) + question("a")[12:], 1),
    ],
)
def test_no_query(data: bytes, rcode: int | None) -> None:
    with pytest.raises(Malformed) as caught:
        parse_query(data)
    assert caught.value.rcode == rcode


def test_query() -> None:
    data = question("Web.Front", AAAA, edns=opt(1232, flags=0x8000))
    found = parse_query(data + b"behind")
    assert (found.id, found.name, found.qtype, found.qclass) == (0x1234, b"web.front", AAAA, 1)
    assert found.question == encode_name("Web.Front") + b"\0\x1c\0\1"
    assert found.edns == (1232, 0, True)
    assert (found.udp_max, found.data) == (1232, data)
    assert parse_query(question("")).name == b""
    assert parse_query(question("a")).udp_max == 512
    assert parse_query(question("a", edns=opt(100))).udp_max == 512
    assert parse_query(question("a", edns=opt(65535))).udp_max == 65507


def test_a_dot_within_a_label_is_no_separator() -> None:
    data = struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\3a.b\0\0\1\0\1"
    assert parse_query(data).name != parse_query(question("a.b")).name


def test_records_with_compressed_names_are_walked_over() -> None:
    """As in a query for a zone's changes, which has an authority record."""
    record = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 0, 3) + b"abc"
    data = struct.pack("!6H", 1, 0x100, 1, 0, 1, 1) + question("a")[12:] + record + opt(900)
    assert parse_query(data + b"x").data == data


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_hostile_bytes_are_a_query_or_refused(data: bytes, headed: bool) -> None:
    if headed:
        data = b"\0\1\1\0\0\1\0\1\0\0\0\1" + data
    try:
        query = parse_query(data)
    except Malformed as error:
        rcode = error.rcode
    else:
        check(query, data)
        return
    assert rcode is None or read(refusal(data, rcode)).rcode == rcode


def check(query: Query, data: bytes) -> None:
    assert data.startswith(query.data)
    assert len(query.name) <= 255
    answered = reply(query, answers=address_records([b"\1\2\3\4"]))
    assert answered[12:].startswith(query.question)
    assert is_reply_to(query, query.id, answered)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 59), st.integers(0, 255))
def test_hostile_replies_are_never_taken_for_another_question(data: bytes, place: int, value: int) -> None:
    query = parse_query(question("db.example", A, ident=7))
    good = reply(query, answers=address_records([b"\1\2\3\4"]))
    assert is_reply_to(query, 7, good)
    changed = bytearray(good + data)
    changed[place % len(changed)] = value
    if is_reply_to(query, 7, bytes(changed)):
        assert bytes(changed[:2]) == good[:2]
        assert bytes(changed[12 : 12 + len(query.question)]).lower() == query.question.lower()
    assert not is_reply_to(query, 7, data[:11])


@pytest.mark.parametrize(
    "other",
    [
        question("db", ident=8, flags=0x8180),  # another id
        question("db", ident=7, flags=0x0100),  # a query
        question("bd", ident=7, flags=0x8180),
        question("db", HTTPS, ident=7, flags=0x8180),
        question("db", A | 0x20, ident=7, flags=0x8180),
        question("db", qclass=3, ident=7, flags=0x8180),
        struct.pack("!6H", 7, 0x8180, 0, 0, 0, 0),
        struct.pack("!6H", 7, 0x8180, 2, 0, 0, 0) + question("db")[12:] * 2,
    ],
)
def test_not_the_reply(other: bytes) -> None:
    assert not is_reply_to(parse_query(question("db")), 7, other)


def test_a_refusal_without_a_question_is_a_reply() -> None:
    assert is_reply_to(parse_query(question("db")), 7, struct.pack("!6H", 7, 0x8185, 0, 0, 0, 0))


def test_reply_repeats_the_question_and_the_flags() -> None:
    query = parse_query(question("WeB", flags=0x0130))
    found = read(reply(query, answers=address_records([b"\1\2\3\4", bytes(15) + b"\1"])))
    assert found.flags == {"qr", "rd", "ra", "cd"}
    assert found.question == [("WeB", A)]
    assert found.answers == [("WeB", 1, 600, "1.2.3.4"), ("WeB", 28, 600, "::1")]
    assert found.edns is None
    assert read(reply(query._replace(flags=0))).flags == {"qr", "ra"}


def test_edns_is_answered_by_edns() -> None:
    query = parse_query(question("a", edns=opt(1232, flags=0x8000)))
    assert read(reply(query)).edns == (4096, 0, 0, 0x8000)
    found = read(reply(query, 16))
    assert (found.rcode, found.edns) == (0, (4096, 1, 0, 0x8000))


@pytest.mark.parametrize(("edns", "limit", "count"), [(b"", 512, 30), (opt(1232), 1232, 75), (b"", 65535, 200)])
def test_truncation(edns: bytes, limit: int, count: int) -> None:
    query = parse_query(question("web", edns=edns))
    data = reply(query, answers=address_records([bytes([10, 0, 0, n]) for n in range(200)]), limit=limit)
    found = read(data)
    assert len(data) <= limit
    assert len(found.answers) == count
    assert ("tc" in found.flags) == (count < 200)
    assert (found.edns is not None) == bool(edns)
    assert read(truncated(query)).flags == {"qr", "tc", "rd", "ra"}


def test_pointer_record() -> None:
    query: Query = parse_query(question("2.0.18.172.in-addr.arpa", 12))
    record = pointer_record(b"web.front")
    assert record is not None
    assert read(reply(query, answers=[record])).answers == [("2.0.18.172.in-addr.arpa", 12, 600, "web.front")]
    assert pointer_record(b"a" * 64) is None
    assert pointer_record(b"a..b") is None
    assert pointer_record(b".".join([b"a" * 60] * 5)) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"2.0.18.172.in-addr.arpa", bytes([172, 18, 0, 2])),
        (b"1" + b".0" * 31 + b".ip6.arpa", bytes(15) + b"\1"),
        (b"e.f" + b".0" * 30 + b".ip6.arpa", bytes(15) + b"\xfe"),
        (b"0.18.172.in-addr.arpa", None),
        (b"2.0.18.172.5.in-addr.arpa", None),
        (b"256.0.18.172.in-addr.arpa", None),
        (b"x.0.18.172.in-addr.arpa", None),
        (b"in-addr.arpa", None),
        (b"1.0.ip6.arpa", None),
        (b"_" + b".0" * 31 + b".ip6.arpa", None),
        (b"\xff" + b".0" * 31 + b".ip6.arpa", None),
        (b"\xff.0.0.0.in-addr.arpa", None),
        (b"web", None),
    ],
)
def test_reverse_names(name: bytes, expected: bytes | None) -> None:
    assert address_of(name) == expected
