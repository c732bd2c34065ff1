"""gRPC both ways over one connection: messages, errors, cancellation, flow control, hostile bytes."""

import asyncio
import socket

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from pier.buildkit.grpc import MAX_MESSAGE_BYTES, Call, Code, Failed, Method, Server, stream, unary
from pier.buildkit.http2 import STREAM_WINDOW
from pier.buildkit.pb.control_pb2 import BytesMessage
from pier.errors import NotFound

from .conftest import connected

ECHO, SPLIT, EACH, FAIL, WAIT = "/t.T/Echo", "/t.T/Split", "/t.T/Each", "/t.T/Fail", "/t.T/Wait"


async def echo(request: BytesMessage, call: Call) -> BytesMessage:
    return BytesMessage(data=request.data + "".join(call.metadata.get("suffix", [])).encode())


async def split(request: BytesMessage, call: Call) -> None:
    for at in range(len(request.data)):
        await call.send(BytesMessage(data=request.data[at : at + 1]))


async def each(call: Call) -> None:
    while (message := await call.receive(BytesMessage)) is not None:
        await call.send(BytesMessage(data=message.data.upper()))


class NoSuchThing(NotFound):
    """no such thing: {name}"""


async def fail(request: BytesMessage, call: Call) -> BytesMessage:
    if request.data == b"pier":
        raise NoSuchThing(name="x")
    if request.data == b"bug":
        raise KeyError("x")
    raise Failed(Code.ABORTED, "no: 100 % ü\n", [AnyMessage(type_url="a/b", value=b"{}")])


METHODS: dict[str, Method] = {
    ECHO: unary(BytesMessage, echo),
    SPLIT: stream(BytesMessage, split),
    EACH: each,
    FAIL: unary(BytesMessage, fail),
}


async def test_one_message_for_one() -> None:
    async with connected(METHODS) as client:
        answer = await client.unary(ECHO, BytesMessage(data=b"a"), BytesMessage, [("suffix", "b")])
    assert answer.data == b"ab"


async def test_a_message_of_many_windows_both_ways() -> None:
    data = bytes(range(256)) * (3 * STREAM_WINDOW // 256)
    async with connected(METHODS) as client:
        assert (await client.unary(ECHO, BytesMessage(data=data), BytesMessage)).data == data


async def test_many_calls_at_once() -> None:
    async with connected(METHODS) as client:
        answers = await asyncio.gather(
            *(client.unary(ECHO, BytesMessage(data=b"%d" % number * 5000), BytesMessage) for number in range(50))
        )
    assert [answer.data for answer in answers] == [b"%d" % number * 5000 for number in range(50)]


async def test_a_stream_of_answers() -> None:
    async with connected(METHODS) as client:
        call = client.call(SPLIT)
        await call.send(BytesMessage(data=b"xyz"), end=True)
        found = []
        while (message := await call.receive(BytesMessage)) is not None:
            found.append(message.data)
    assert found == [b"x", b"y", b"z"]


async def test_messages_both_ways_in_turn() -> None:
    async with connected(METHODS) as client:
        call = client.call(EACH)
        for word in (b"one", b"two"):
            await call.send(BytesMessage(data=word))
            answer = await call.receive(BytesMessage)
            assert answer is not None
            assert answer.data == word.upper()
        await call.end()
        assert await call.receive(BytesMessage) is None


async def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    sent = 0

    async def flood(call: Call) -> None:
        nonlocal sent
        while True:
            await call.send(BytesMessage(data=bytes(64 << 10)))
            sent += 64 << 10

    async with connected({WAIT: flood}) as client:
        call = client.call(WAIT)
        before = -1
        while before != sent:
            before = sent
            for _ in range(50):
                await asyncio.sleep(0)
        assert 0 < sent <= 2 * STREAM_WINDOW
        call.close()


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", Code.ABORTED, "no: 100 % ü\n"),
        (b"pier", Code.NOT_FOUND, "no such thing: x"),
        (b"bug", Code.INTERNAL, "KeyError: 'x'"),
    ],
)
async def test_errors_travel(data: bytes, code: Code, message: str) -> None:
    async with connected(METHODS) as client:
        with pytest.raises(Failed) as caught:
            await client.unary(FAIL, BytesMessage(data=data), BytesMessage)
    assert (caught.value.code, caught.value.message) == (code, message)
    assert [detail.type_url for detail in caught.value.details] == (["a/b"] if data == b"" else [])


async def test_an_unknown_method() -> None:
    async with connected(METHODS) as client:
        with pytest.raises(Failed, match=r"unknown method Nope for service t\.T") as caught:
            await client.unary("/t.T/Nope", BytesMessage(), BytesMessage)
    assert caught.value.code == Code.UNIMPLEMENTED


async def test_a_call_that_its_client_gives_up_is_cancelled() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with connected({WAIT: wait}) as client:
        call = client.call(WAIT)
        await begun.wait()
        call.close()
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_connection_that_breaks_ends_its_calls_on_both_sides() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with connected({WAIT: wait}) as client:
        call = client.call(WAIT)
        await begun.wait()
        client.connection.close()
        with pytest.raises(Failed) as caught:
            await call.receive(BytesMessage)
        assert caught.value.code == Code.UNAVAILABLE
        async with asyncio.timeout(10):
            await ended.wait()
        with pytest.raises(Failed):
            client.call(WAIT)


async def test_a_deadline() -> None:
    async def wait(call: Call) -> None:
        await asyncio.Event().wait()

    async with connected({WAIT: wait}) as client:
        call = client.call(WAIT, [("grpc-timeout", "1m")])
        with pytest.raises(Failed) as caught:
            await call.receive(BytesMessage)
    assert caught.value.code == Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\1\0\0\0\0", Code.UNIMPLEMENTED),
        (b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4), Code.RESOURCE_EXHAUSTED),
        (b"\0\0\0\0\5\xff\xff\xff\xff\xff", Code.INVALID_ARGUMENT),
        (b"\0\0\0\0\5abc", Code.INTERNAL),
        (b"\0\0", Code.INTERNAL),
        (b"", Code.INTERNAL),
    ],
)
async def test_hostile_messages(raw: bytes, code: Code) -> None:
    async with connected(METHODS) as client:
        call = client.call(ECHO)
        await call._stream.send_data(raw, end=True)
        with pytest.raises(Failed) as caught:
            await call.receive(BytesMessage)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\r\n\r\n" + bytes(30), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9000)]
)
async def test_bytes_that_are_no_http2_end_the_connection(raw: bytes) -> None:
    here, there = socket.socketpair()
    with here:
        here.setblocking(False)
        loop = asyncio.get_running_loop()
        server = Server(METHODS)
        await loop.create_connection(lambda: server.connection, sock=there)
        await loop.sock_sendall(here, raw)
        async with asyncio.timeout(10):
            await server.serve()
