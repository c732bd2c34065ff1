"""Where the daemon is: `-H`, PIER_HOST, DOCKER_HOST or the default socket, parsed and connected to."""

from __future__ import annotations

import _socket
import os

from pier.cli.errors import Failure

DEFAULT_HOST = "unix:///run/pier/pier.sock"
_PLAIN_PORT, _TLS_PORT = 2375, 2376


class Endpoint:
    """A daemon's address.

    `text` is what error messages show; `path` is set for a unix socket, else `host` and `port`;
    `tls` holds the client's TLS settings or None.
    """

    __slots__ = ("host", "path", "port", "source", "text", "tls")

    def __init__(self, text: str, *, path: str = "", host: str = "", port: int = 0, tls: Tls | None = None) -> None:
        self.text = text
        self.path = path
        self.host = host
        self.port = port
        self.tls = tls
        self.source = "default"

    @property
    def host_header(self) -> str:
        """HTTP/1.1's Host: of a unix socket what Docker's client sends."""
        return "api.moby.localhost" if self.path else f"{self.host}:{self.port}"

    def connect(self) -> _socket.socket:
        """A connected blocking socket. OSError as the kernel gives it; TLS failures are OSError too (ssl.SSLError)."""
        if self.path:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                sock.connect(self.path)
            except OSError:
                sock.close()
                raise
            return sock
        return self._connect_tcp()

    def _connect_tcp(self) -> _socket.socket:
        import socket  # noqa: PLC0415 - unix sockets do without its imports

        plain = socket.create_connection((self.host, self.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap(plain, self.host) if self.tls else plain


class Tls:
    """TLS towards the daemon: files as Docker's --tls* flags name them; `verify` checks the daemon's certificate."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, *, ca: str, cert: str, key: str, verify: bool) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify

    def wrap(self, plain: _socket.socket, host: str) -> _socket.socket:
        import ssl  # noqa: PLC0415 - expensive, and only TLS needs it

        context = ssl.create_default_context(cafile=self.ca if self.verify else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if os.path.exists(self.cert) and os.path.exists(self.key):
            context.load_cert_chain(self.cert, self.key)
        return context.wrap_socket(plain, server_hostname=host)  # type: ignore[arg-type]


def parse_host(text: str, tls: Tls | None = None) -> Endpoint:
    """`unix:///path`, `tcp://host[:port]`, `http(s)://…`, `fd://`, `host[:port]` -> Endpoint. Failure otherwise."""
    scheme, found, rest = text.strip().partition("://")
    if not found:
        scheme, rest = "tcp", text.strip()
    if scheme == "unix":
        path = rest or "/var/run/docker.sock"
        return Endpoint(f"unix://{path}", path=path)
    if scheme == "ssh":
        raise Failure(
            f"pier does not open {scheme}:// addresses itself yet; forward the socket first:\n"
            f"  ssh -nNT -L /tmp/pier.sock:/run/pier/pier.sock {rest} &\n"
            "  pier -H unix:///tmp/pier.sock …"
        )
    if scheme not in ("tcp", "http", "https"):
        raise Failure(
            f"Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {text}\n"
            f"(an address is unix:///path/to.sock or tcp://host:port)"
        )
    default_port = _TLS_PORT if tls else _PLAIN_PORT
    host, port = _split_host_port(rest.partition("/")[0], default_port, text)
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"tcp://{shown}:{port}", host=host, port=port, tls=tls)


def _split_host_port(rest: str, default_port: int, text: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise Failure(
            f"Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {text}\n"
            f"({port!r} is not a port)"
        )
    return host or "127.0.0.1", int(port) if port else default_port


def resolve(hosts: list[str], tls: Tls | None) -> Endpoint:
    """The endpoint of a command line: `-H`, else PIER_HOST, else DOCKER_HOST, else Pier's own socket."""
    if len(hosts) > 1:
        raise Failure("Failed to initialize: unable to resolve docker endpoint: Specify only one -H")
    if hosts:
        return _from(hosts[0], "-H", tls)
    for name in ("PIER_HOST", "DOCKER_HOST"):
        if text := os.environ.get(name):
            return _from(text, name, tls)
    return _from(DEFAULT_HOST, "default", tls)


def _from(text: str, source: str, tls: Tls | None) -> Endpoint:
    endpoint = parse_host(text, tls)
    endpoint.source = source
    return endpoint
