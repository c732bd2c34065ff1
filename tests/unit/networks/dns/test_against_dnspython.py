"""What is read and written here, read and written by another implementation of DNS."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.networks.dns.message import address_records, is_reply_to, parse_query, pointer_record, reply

messages = pytest.importorskip("dns.message")
LABEL = st.text("abcXYZ019-_", min_size=1, max_size=20)
TYPES = st.sampled_from([1, 12, 15, 16, 28, 33, 65, 255])
SIZES = st.sampled_from([None, 0, 512, 1232, 4096])
RD, RA, CD, TC = 0x0100, 0x0080, 0x0010, 0x0200


@settings(max_examples=200, deadline=None)
@given(
    labels=st.lists(LABEL, max_size=6),
    kind=TYPES,
    size=SIZES,
    wants=st.sets(st.sampled_from([RD, CD])),
    addresses=st.sets(st.binary(min_size=4, max_size=4), max_size=60),
)
def test_questions_and_answers(
    labels: list[str], kind: int, size: int | None, wants: set[int], addresses: set[bytes]
) -> None:
    name = ".".join(labels) + "."
    asked = messages.make_query(name, kind, use_edns=0 if size is not None else False, payload=size)
    asked.flags = sum(wants)
    data = asked.to_wire()
    query = parse_query(data)
    assert (query.name, query.qtype, query.data) == (name[:-1].lower().encode(), kind, data)
    assert query.udp_max == max(512, size or 0)
    written = reply(query, answers=address_records(sorted(addresses)), limit=query.udp_max)
    assert len(written) <= query.udp_max
    read = messages.from_wire(written)
    assert asked.is_response(read)
    assert read.flags & (RD | CD | RA) == sum(wants) | RA
    assert (read.edns >= 0) == (size is not None)
    answers = sum(len(records) for records in read.answer)
    assert answers == len(addresses) if not read.flags & TC else answers < len(addresses)
    assert is_reply_to(query, query.id, read.to_wire())


@given(st.lists(LABEL, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_names_of_addresses(labels: list[str]) -> None:
    query = parse_query(messages.make_query("2.0.18.172.in-addr.arpa.", "PTR").to_wire())
    record = pointer_record(".".join(labels).encode())
    assert record is not None
    (found,) = messages.from_wire(reply(query, answers=[record])).answer
    assert found[0].target.to_text() == ".".join(labels) + "."
