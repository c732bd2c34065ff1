"""The HTTP client against a scripted daemon, and the messages when there is none (trap 18)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.cli import diagnose
from pier.cli.endpoint import Endpoint, Tls, parse_host, resolve
from pier.cli.errors import ApiError, Failure, Unreachable
from pier.cli.http import Client, query_string
from pier.cli.reference import split, with_tag


class Daemon:
    """Answers each request on a unix socket with the next scripted bytes; `requests` are the heads and bodies it got.

    An answer that ends in b"!CLOSE" closes the connection after it.
    """

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.endpoint = Endpoint(f"unix://{path}", path=str(path))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._answers:
            connection, _ = self._listener.accept()
            self.connections += 1
            self._talk(connection)
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        while self._answers and (request := connection.recv(65536)):
            while b"Transfer-Encoding: chunked" in request and not request.endswith(b"0\r\n\r\n"):
                request += connection.recv(65536)
            self.requests.append(request)
            answer = self._answers.pop(0)
            connection.sendall(answer.removesuffix(b"!CLOSE"))
            if answer.endswith(b"!CLOSE"):
                return


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "s"


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_requests_share_a_connection(path: Path) -> None:
    daemon = Daemon(
        path,
        [
            ok(b'{"a":1}'),
            CHUNKED + b"3\r\n[1,\r\n2;x=y\r\n2]\r\n0\r\nTrailer: x\r\n\r\n",
            ok(b"", status="204 No Content"),
        ],
    )
    client = Client(daemon.endpoint)
    assert client.get("/one", all=True, name="a b", none=None) == {"a": 1}
    assert client.get("/two") == [1, 2]
    assert client.post("/three", {"x": "é"}) is None
    assert daemon.connections == 1
    assert daemon.requests[0].startswith(b"GET /v1.51/one?all=1&name=a%20b HTTP/1.1\r\nHost: api.moby.localhost\r\n")
    assert daemon.requests[2].endswith('\r\nContent-Length: 10\r\n\r\n{"x":"é"}'.encode())


def test_a_closed_idle_connection_is_replaced(path: Path) -> None:
    daemon = Daemon(path, [ok(b"1") + b"!CLOSE", ok(b"2")])
    client = Client(daemon.endpoint)
    assert (client.get("/a"), client.get("/b"), daemon.connections) == (1, 2, 2)


def test_an_older_daemon_lowers_the_version(path: Path) -> None:
    refusal = b'{"message":"client version 1.51 is too new. Maximum supported API version is 1.41"}'
    daemon = Daemon(path, [ok(refusal, status="400 Bad Request"), ok(b"[]")])
    assert Client(daemon.endpoint).get("/containers/json") == []
    assert daemon.requests[1].startswith(b"GET /v1.41/containers/json HTTP/1.1")


def test_errors_carry_status_and_message(path: Path) -> None:
    daemon = Daemon(
        path, [ok(b'{"message":"No such container: x"}\n', status="404 Not Found"), ok(b"oops", status="500 E")]
    )
    client = Client(daemon.endpoint)
    with pytest.raises(ApiError) as caught:
        client.get("/containers/x/json")
    assert (caught.value.code, caught.value.text) == (404, "Error response from daemon: No such container: x")
    with pytest.raises(ApiError, match="Error response from daemon: oops"):
        client.get("/x")


def test_a_body_is_streamed_in_chunks(path: Path) -> None:
    daemon = Daemon(path, [ok(b"{}")])
    Client(daemon.endpoint).request("POST", "/load", stream=iter([b"abc", b"", b"de"])).read()
    assert daemon.requests[0].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_lines_come_as_they_arrive_and_until_close(path: Path) -> None:
    daemon = Daemon(path, [b'HTTP/1.1 200 OK\r\n\r\n{"a":1}\r\n\r\n{"b":2}\n{"c":3}!CLOSE'])
    assert list(Client(daemon.endpoint).request("GET", "/events").lines()) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


def test_an_upgrade_hands_over_socket_and_first_bytes(path: Path) -> None:
    daemon = Daemon(path, [b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\nfirst!CLOSE"])
    sock, first = Client(daemon.endpoint).request("POST", "/attach", upgrade=True).upgraded()
    assert first + sock.recv(10) == b"first"
    assert b"Connection: Upgrade\r\nUpgrade: tcp\r\n" in daemon.requests[0]


def test_a_body_cut_short_is_an_error(path: Path) -> None:
    daemon = Daemon(path, [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc!CLOSE"])
    with pytest.raises(Failure, match="error reading from the daemon"):
        Client(daemon.endpoint).get("/x")


@pytest.mark.parametrize(
    ("pairs", "text"),
    [({}, ""), ({"a": None, "b": False, "c": ""}, ""), ({"a": True, "n": 0}, "?a=1&n=0"), ({"l": ["x", "y/z"]}, "?l=x&l=y%2Fz"),  # noqa: E501
     ({"f": {"k": {"v": True}}}, "?f=%7B%22k%22%3A%7B%22v%22%3Atrue%7D%7D")],
)  # fmt: skip
def test_query_strings(pairs: dict[str, object], text: str) -> None:
    assert query_string(pairs) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("unix:///a/b.sock", "unix:///a/b.sock"), ("tcp://h:1", "tcp://h:1"), ("tcp://h", "tcp://h:2375"), ("h:7", "tcp://h:7"),
     ("tcp://[::1]:5", "tcp://[::1]:5"), ("https://h/", "tcp://h:2375")],
)  # fmt: skip
def test_hosts(text: str, shown: str) -> None:
    assert parse_host(text).text == shown


@pytest.mark.parametrize("text", ["foo://x", "tcp://h:x", "tcp://h:99999"])
def test_wrong_hosts(text: str) -> None:
    with pytest.raises(Failure, match="invalid bind address format"):
        parse_host(text)


def test_which_host_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///docker")
    assert resolve(["unix:///flag"], None).path == "/flag"
    assert resolve([], None).path == "/docker"
    monkeypatch.setenv("PIER_HOST", "unix:///pier")
    assert resolve([], None).path == "/pier"
    monkeypatch.delenv("PIER_HOST")
    monkeypatch.delenv("DOCKER_HOST")
    assert resolve([], None).path == "/run/pier/pier.sock"


def unreachable(endpoint: Endpoint) -> list[str]:
    with pytest.raises(Unreachable) as caught:
        Client(endpoint).get("/x")
    return caught.value.text.split("\n")


def test_trap_18_no_socket(path: Path) -> None:
    lines = unreachable(parse_host(f"unix://{path}"))
    assert lines[0] == f"Cannot connect to the Docker daemon at unix://{path}. Is the docker daemon running?"
    assert lines[1] == f"There is no socket {path}: no daemon has made it."
    assert "There is no directory" in unreachable(parse_host(f"unix://{path}/no/where"))[1]


def test_trap_18_wrong_docker_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert unreachable(resolve([], None))[-1].startswith("The address comes from DOCKER_HOST; `unset DOCKER_HOST`")


def test_trap_18_dead_daemon_shows_its_last_words(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    log = tmp_path / "log"
    log.write_text("one\ntwo\nthree\nfour: out of memory\n")
    monkeypatch.setattr(diagnose, "LOG_FILES", (str(log),))
    lines = unreachable(parse_host(f"unix://{path}"))
    assert lines[1].endswith("nothing listens on it: the daemon has died.")
    assert lines[-1] == "  four: out of memory"
    path.unlink()
    path.write_text("")
    assert "is not a socket" in unreachable(parse_host(f"unix://{path}"))[1]


def test_trap_18_no_permission_names_the_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("")
    path.chmod(0o660)
    text = diagnose.cannot_connect(parse_host(f"unix://{path}"), PermissionError(13, "Permission denied"))
    first, second, third = text.split("\n")
    assert first == f"permission denied while trying to connect to the Docker daemon socket at unix://{path}"
    assert f"{path} is open to root and to the group " in second
    assert third.startswith("Run `sudo usermod -aG ")
    path.chmod(0o600)
    assert "Only its owner may use" in diagnose.cannot_connect(parse_host(f"unix://{path}"), PermissionError(13, ""))


def test_trap_18_tls_mismatch(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46\n"):
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(answer)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    settings = Tls(ca="", cert=f"{tmp_path}/none", key=f"{tmp_path}/none", verify=False)
    assert "does not speak TLS" in unreachable(parse_host(f"tcp://127.0.0.1:{port}", settings))[1]
    assert "That daemon speaks TLS: add --tlsverify" in unreachable(parse_host(f"tcp://127.0.0.1:{port}"))[1]


def test_trap_18_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert f"Nothing listens on 127.0.0.1:{port}" in unreachable(parse_host(f"tcp://127.0.0.1:{port}"))[1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [("busybox", ("busybox", "", "")), ("a/b:1", ("a/b", "1", "")), ("h:5000/a", ("h:5000/a", "", "")),
     ("h:5000/a:b@sha256:0", ("h:5000/a", "b", "sha256:0"))],
)  # fmt: skip
def test_references(text: str, parts: tuple[str, str, str]) -> None:
    assert split(text) == parts


def test_default_tag() -> None:
    assert (with_tag("a"), with_tag("a:b"), with_tag("a@sha256:1")) == ("a:latest", "a:b", "a@sha256:1")


@pytest.mark.parametrize("text", ["", "a:b:c", "UPPER", "a//", "a b", "x:", "x@y"])
def test_wrong_references(text: str) -> None:
    with pytest.raises(ValueError, match="invalid reference format"):
        split(text)


def test_the_client_never_needs_the_environment_of_root() -> None:
    assert os.path.isabs(parse_host("unix://").path)
