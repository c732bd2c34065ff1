"""The D-Bus client: its bytes against the specification and `busctl`, its talk against a peer and a real bus."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.runtime.systemd import dbus, dbus_wire
from pier.runtime.systemd.dbus import BUS, CallFailed, Connection
from pier.runtime.systemd.dbus_wire import BadMessage, Message, Variant, complete_types, decode, encode, length

from .fake_systemd import FakeSystemd, fake_systemd, job_removed, refuses, returns

# --- bytes -----------------------------------------------------------------------------------------------------------

NUMBERS = {"y": (0, 8), "n": (1, 15), "q": (0, 16), "i": (1, 31), "u": (0, 32), "x": (1, 63), "t": (0, 64)}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def typed() -> st.SearchStrategy[tuple[str, Any]]:
    """A complete type and a value of it."""
    simple = st.one_of(
        *(
            st.integers(-(1 << bits) if signed else 0, (1 << bits) - 1).map(lambda value, code=code: (code, value))
            for code, (signed, bits) in NUMBERS.items()
        ),
        st.booleans().map(lambda value: ("b", value)),
        st.floats(allow_nan=False).map(lambda value: ("d", value)),
        TEXT.map(lambda value: ("s", value)),
        st.just(("o", "/a/b")),
        st.sampled_from(["", "s", "a{sv}"]).map(lambda value: ("g", value)),
        st.binary(max_size=9).map(lambda value: ("ay", value)),
    )

    def deeper(inner: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
        return st.one_of(
            st.lists(inner, min_size=1, max_size=4).map(
                lambda items: (f"({''.join(kind for kind, _ in items)})", [value for _, value in items])
            ),
            inner.map(lambda item: ("v", Variant(*item))),
            # An array's elements are of one type, so one of them several times over.
            st.tuples(inner, st.integers(0, 3))
            .filter(lambda pair: pair[0][0] != "y")
            .map(lambda pair: (f"a{pair[0][0]}", [pair[0][1]] * pair[1])),
            st.tuples(st.lists(TEXT, max_size=3, unique=True), inner).map(
                lambda pair: (f"a{{s{pair[1][0]}}}", dict.fromkeys(pair[0], pair[1][1]))
            ),
        )

    return st.recursive(simple, deeper, max_leaves=5)


@given(st.lists(typed(), max_size=4))
def test_what_is_written_is_read(items: list[tuple[str, Any]]) -> None:
    message = Message(
        dbus_wire.METHOD_CALL, 5, path="/p", interface="a.b", member="M", destination="c.d", sender=":1.5",
        signature="".join(kind for kind, _ in items), body=[value for _, value in items],
    )  # fmt: skip
    data = encode(message)
    assert length(data[: dbus_wire.FIXED_HEADER]) == len(data)
    assert decode(data) == message
    assert complete_types(message.signature) == [kind for kind, _ in items]


@given(st.lists(typed(), max_size=3), st.data())
def test_no_bytes_do_harm(items: list[tuple[str, Any]], data: st.DataObject) -> None:
    """A message that is cut off or changed is read as another, or is refused; nothing else happens."""
    whole = bytearray(
        encode(Message(4, 1, path="/", interface="a.b", member="M", signature="".join(kind for kind, _ in items),
                       body=[value for _, value in items]))
    )  # fmt: skip
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        decode(bytes(whole[: data.draw(st.integers(16, len(whole)))]))


def test_the_bytes_of_a_call() -> None:
    """Hello, as the specification lays it out."""
    data = encode(Message(1, 1, path=BUS[1], interface=BUS[2], member="Hello", destination=BUS[0]))
    fields = (
        b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0"
        b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0"
        b"\x03\x01s\0\x05\0\0\0Hello\0\0\0"
        b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0"
    )
    assert data == b"l\x01\0\x01\0\0\0\0\x01\0\0\0" + struct.pack("<I", len(fields)) + fields + bytes(-len(fields) % 8)


def test_a_message_of_the_other_byte_order() -> None:
    data = b"B\x02\x01\x01" + struct.pack(">III", 8, 9, 15)
    data += b"\x05\x01u\0" + struct.pack(">I", 3) + b"\x08\x01g\0\x01u\0\0" + struct.pack(">I", 77) + bytes(4)
    with pytest.raises(BadMessage, match="after the body"):
        decode(data)
    data = data[:4] + struct.pack(">I", 4) + data[8:-4]
    assert (*decode(data)[:2], decode(data).reply_serial, decode(data).body) == (2, 9, 3, [77])


@pytest.mark.parametrize("signature", ["a", "(", "()", "(s", "{sv}", "a{s}", "a{sss}", "z", "s)", "a" * 80 + "s", "h"])
def test_what_is_no_signature(signature: str) -> None:
    with pytest.raises(BadMessage):
        complete_types(signature)


@pytest.mark.parametrize(("kind", "value"), [("y", 256), ("u", -1), ("s", "a\0b"), ("i", "x")])
def test_a_value_that_is_not_of_its_type(kind: str, value: Any) -> None:
    with pytest.raises(BadMessage):
        encode(Message(1, 1, path="/", member="M", signature=kind, body=[value]))


@pytest.mark.parametrize(
    "head", [b"x\x01\0\x01" + bytes(12), b"l\x01\0\x02" + bytes(12), b"l\x01\0\x01" + b"\xff" * 12]
)
def test_a_head_that_is_none(head: bytes) -> None:
    with pytest.raises(BadMessage):
        length(head)


# --- a conversation --------------------------------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    with fake_systemd(tmp_path / "s") as fake:
        yield fake


def test_a_call_its_answer_and_its_errors(systemd: FakeSystemd) -> None:
    systemd.answers["Add"] = [
        lambda fake, call: [job_removed("early.scope"), returns("u", sum(call.body))],
        lambda fake, call: [refuses("DBus.Error.Failed", "no more")],
    ]
    with contextlib.closing(Connection(str(systemd.path), bus=False)) as connection:
        assert connection.call("a.b", "/", "c.d", "Add", "uu", 2, 3) == [5]
        values = connection.wait_signal("org.freedesktop.systemd1.Manager", "JobRemoved", lambda values: True)
        assert values[2] == "early.scope"
        with pytest.raises(CallFailed, match="no more") as caught:
            connection.call("a.b", "/", "c.d", "Add", "uu", 2, 3)
        assert caught.value.name == "org.freedesktop.DBus.Error.Failed"
    assert [line.split()[0].lstrip(b"\0") for line in systemd.auth[:2]] == [b"AUTH", b"BEGIN"]


def test_a_peer_that_turns_us_away(systemd: FakeSystemd) -> None:
    systemd.rejects = True
    with pytest.raises(BadMessage, match="refused us: REJECTED EXTERNAL"):
        Connection(str(systemd.path), bus=False)


def test_a_peer_that_says_nothing(systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd.answers["Wait"] = [lambda fake, call: []]
    with contextlib.closing(Connection(str(systemd.path), bus=False)) as connection:
        monkeypatch.setattr(dbus, "TIMEOUT_S", 0.05)
        with pytest.raises(TimeoutError):
            connection.call("a.b", "/", "c.d", "Wait")


# --- others' implementations -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("busctl"), reason="busctl is not installed")
def test_busctl_writes_what_we_read_and_reads_what_we_write(systemd: FakeSystemd) -> None:
    signature = "ybnqiuxtdsogasa(sv)a{sv}aay"
    systemd.answers["Echo"] = [lambda fake, call: [returns(call.signature, *call.body)]]
    words = (
        "255 true -3 40000 -70000 4000000000 -5000000000 18446744073709551615 1.5 grün /a/b a{sv} "
        "2 x y 2 one as 2 p q two t 7 1 key u 9 2 3 1 2 3 0"
    ).split()
    command = ["busctl", f"--address=unix:path={systemd.path}", "--json=short", "call", "--", "a.b", "/", "c.d", "Echo"]
    done = subprocess.run([*command, signature, *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    (echo,) = systemd.called("Echo")
    assert echo.signature == signature
    assert echo.body == [
        255, True, -3, 40000, -70000, 4000000000, -5000000000, 2**64 - 1, 1.5, "grün", "/a/b", "a{sv}", ["x", "y"],
        [["one", Variant("as", ["p", "q"])], ["two", Variant("t", 7)]], {"key": Variant("u", 9)},
        [b"\x01\x02\x03", b""],
    ]  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["type"] == signature
    assert answer["data"][:6] == [255, True, -3, 40000, -70000, 4000000000]
    assert answer["data"][9:13] == ["grün", "/a/b", "a{sv}", ["x", "y"]]
    assert answer["data"][13][1] == ["two", {"type": "t", "data": 7}]
    assert answer["data"][15] == [[1, 2, 3], []]


CONFIG = """<busconfig><auth>EXTERNAL</auth><listen>unix:path={}</listen><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>"""


@pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="dbus-daemon is not installed")
def test_a_real_bus(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    (tmp_path / "conf").write_text(CONFIG.format(path))
    bus = subprocess.Popen(
        ["dbus-daemon", f"--config-file={tmp_path}/conf", "--nofork", "--nopidfile", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert bus.stdout is not None
        assert bus.stdout.readline(), "its address, once it listens"
        with contextlib.closing(Connection(str(path), bus=True)) as connection:
            assert connection.call(*BUS, "RequestName", "su", "org.example.Pier", 0) == [1]
            assert "org.example.Pier" in connection.call(*BUS, "ListNames")[0]
            told = connection.wait_signal(BUS[2], "NameAcquired", lambda values: values == ["org.example.Pier"])
            assert told == ["org.example.Pier"]
            with pytest.raises(CallFailed) as caught:
                connection.call("org.example.Nobody", "/", "a.b", "C")
            assert caught.value.name == "org.freedesktop.DBus.Error.ServiceUnknown"
    finally:
        bus.terminate()
        bus.wait(10)
        assert bus.stdout is not None
        bus.stdout.close()
