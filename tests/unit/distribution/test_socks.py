"""SOCKS5 proxies: names are looked up by the proxy, logins go to it alone, failures are sentences."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from fixtures.registry import FakeRegistry, tar
from pier.distribution import ProxyConfig, Registries, RegistryConfig
from pier.distribution.errors import ProxyUnusable, RegistryUnreachable
from pier.oci import Reference

LAYER = tar({"x": b"x"})


class SocksProxy:
    """RFC 1928 and RFC 1929 as far as a client needs them; leads every name to one registry."""

    def __init__(self, target: FakeRegistry, user: str = "", password: str = "", reply: int = 0) -> None:
        self._target = target
        self._user = user
        self._password = password
        self._reply = reply
        self.asked: list[str] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["SocksProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._negotiate(reader, writer)
        writer.close()

    async def _negotiate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        await reader.readexactly(count)
        writer.write(b"\x05\x02" if self._user else b"\x05\x00")
        if self._user:
            user, password = [(await reader.readexactly((await reader.readexactly(n))[-1])).decode() for n in (2, 1)]
            right = (user, password) == (self._user, self._password)
            writer.write(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        head = await reader.readexactly(5)
        assert head[3] == 3, "a name is wanted, not an address"
        name = (await reader.readexactly(head[4])).decode()
        await reader.readexactly(2)
        self.asked.append(name)
        writer.write(bytes([5, self._reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if self._reply:
            return
        host, port = self._target.host.split(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as server:
        server.add_image("app", "1", [LAYER])
        yield server


async def resolve(proxy: str) -> str:
    config = RegistryConfig(insecure=("registry.invalid",), proxies=ProxyConfig(http=proxy))
    registries = Registries(config)
    try:
        repository = registries.repository(Reference.parse("registry.invalid/app:1"))
        repository._session._endpoints = repository._session._endpoints[1:]  # the plain one
        return (await repository.resolve()).digest
    finally:
        await registries.close()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_trap_15_a_registry_behind_a_socks_proxy(registry: FakeRegistry, scheme: str) -> None:
    async with SocksProxy(registry).serving() as proxy:
        digest = await resolve(f"{scheme}://127.0.0.1:{proxy.port}")
    assert registry.manifests[f"app@{digest}"]
    assert set(proxy.asked) == {"registry.invalid"}


async def test_the_proxy_s_login_is_the_proxy_s_alone(registry: FakeRegistry) -> None:
    async with SocksProxy(registry, "bob", "pr0xy").serving() as proxy:
        await resolve(f"socks5://bob:pr0xy@127.0.0.1:{proxy.port}")
        assert registry.leaked() == []
        with pytest.raises(RegistryUnreachable) as caught:
            await resolve(f"socks5://bob:wr0ng@127.0.0.1:{proxy.port}")
    assert "wr0ng" not in caught.value.wire
    assert f"through the proxy socks5://127.0.0.1:{proxy.port}" in caught.value.wire


async def test_trap_15_a_proxy_that_does_not_connect(registry: FakeRegistry) -> None:
    async with SocksProxy(registry, reply=4).serving() as proxy:
        with pytest.raises(RegistryUnreachable, match="proxyconnect tcp"):
            await resolve(f"socks5://127.0.0.1:{proxy.port}")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(RegistryUnreachable, match="proxyconnect tcp"):
            await resolve(f"socks5://127.0.0.1:{nobody.getsockname()[1]}")


async def test_a_proxy_url_that_is_none() -> None:
    with pytest.raises(ProxyUnusable):
        await resolve("socks5://127.0.0.1:port")
