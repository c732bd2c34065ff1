"""Every operation of containers, execs and volumes against the contract: whatever comes in, a judged answer goes out.

No request may hang, end in an internal error or leave anything behind; an answer has the contract's shape.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from .conftest import Daemon, poll
from .contract import Schema, contract, fields, make, problems, put

pytestmark = pytest.mark.root

SEED = os.environ.get("PIER_FUZZ_SEED", "pier")
PATIENCE_S = 10.0
HEAD_ONLY = frozenset(
    "ContainerArchive ContainerAttach ContainerAttachWebsocket ContainerExport ContainerLogs ContainerStats "
    "ContainerWait ExecStart".split()
)
"""Operations that answer for as long as they are listened to."""
TEXTS = [
    "",
    "a",
    "0",
    "1",
    "-1",
    "99999999999999999999",
    "1.5",
    "abc",
    "true",
    "é",
    "a\0b",
    "..",
    "../x",
    "{",
    '{"a":1}',
]
FILTERS = [
    "{}",
    "[]",
    "null",
    '{"a":["b"]}',
    '{"status":["x"]}',
    '{"label":[""]}',
    '{"until":["x"]}',
    '{"id":{"a":false}}',
]
SIGNALS = ["KILL", "9", "SIGTERM", "0", "-1", "65", "RTMIN+3", "nosuch", "99999999999999999999"]
NAMES = ["nosuch", "..", ".", "a b", "%00", "x" * 300, "é", "-", "_", "a:b", "{id}"]
PER_FIELD = 4
NOT_STARTED = frozenset(("Binds", "CgroupParent", "Mounts", "Devices"))
"""Fields by which a start could touch what is not the test's."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)


@dataclass
class Fuzzer:
    """Asks a daemon, and notes what is wrong with its answers."""

    daemon: Daemon
    wrong: list[str] = field(default_factory=list)
    asked: int = 0
    log_begin: int = 0

    def ask(
        self, method: str, target: str, body: bytes | None = None, *, head_only: bool = False, kind: str = "json"
    ) -> Answer:
        """One request on a connection of its own."""
        head = f"{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/{kind}\r\nContent-Length: {len(body)}\r\n"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.daemon.socket))
            sock.sendall(head.encode() + b"\r\n" + (body or b""))
            received = b""
            while not (head_only and b"\r\n\r\n" in received):
                data = sock.recv(65536)
                if not data:
                    break
                received += data
        self.asked += 1
        first, _, rest = received.partition(b"\r\n\r\n")
        line, *lines = first.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in lines)}
        return Answer(int(line.split()[1]), headers, unchunked(rest) if "chunked" in headers.values() else rest)

    def check(
        self, name: str, target: str, body: Any = None, *, raw: bytes | None = None, whole: bool = False
    ) -> Answer | None:
        """Ask an operation; what breaks a rule is noted. None: no answer came.

        `whole`: this answer ends by itself.
        """
        operation = contract()["operations"][name]
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        kind = "x-tar" if raw is not None else "json"
        head_only = name in HEAD_ONLY and not whole
        what = f"{name} {target[:120]} {(data or b'')[:200]!r}"
        try:
            answer = self.ask(operation["method"], target, data, head_only=head_only, kind=kind)
        except (TimeoutError, OSError, ValueError, IndexError) as error:
            self.wrong.append(f"{what}: no answer: {error!r}")
            return None
        if b"internal error" in answer.body or not 100 <= answer.status < 600:
            self.wrong.append(f"{what}: {answer.status} {answer.body[:200]!r}")
        schema = operation["answers"].get(str(answer.status), {"$ref": "ErrorResponse"} if answer.status >= 400 else {})
        self.judge(what, answer, schema, head_only=head_only or operation["method"] == "HEAD")
        return answer

    def tracebacks(self) -> str:
        """The first traceback in the daemon's log since this began; none: the empty text."""
        with self.daemon.log.open() as file:
            file.seek(self.log_begin)
            return file.read().partition("Traceback")[2][:2000]

    def judge(self, what: str, answer: Answer, schema: Schema, *, head_only: bool) -> None:
        """Hold an answer against the contract's schema."""
        if head_only or not schema or not answer.headers.get("content-type", "").startswith("application/json"):
            return
        try:
            found = list(problems(schema, answer.value))
        except ValueError as error:
            found = [f"no JSON: {error}"]
        self.wrong += [f"{what}: {answer.status}: {problem}" for problem in found]


def unchunked(data: bytes) -> bytes:
    """The body of a chunked answer (RFC 9112, 7.1)."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            break
    return body


@pytest.fixture
def fuzzer(daemon: Daemon) -> Iterator[Fuzzer]:
    """Nothing of what it has asked for is there afterwards, and the daemon holds no more than before."""
    assert daemon.process is not None
    before = daemon.pier("ps", "-aq", "--no-trunc").out.split()
    held = f"/proc/{daemon.process.pid}/fd"
    count = len(os.listdir(held))
    made = Fuzzer(daemon, log_begin=daemon.log.stat().st_size)
    yield made
    left = set(daemon.pier("ps", "-aq", "--no-trunc").out.split()) - set(before)
    if left:
        daemon.pier("rm", "--force", *left)
    poll(lambda: len(os.listdir(held)) <= count + 2, "the daemon to close what the requests opened")
    folders = {path.name for path in (daemon.data_root / "containers").iterdir()}
    assert folders <= set(before)


@dataclass
class Targets:
    """A container that runs, one that does not, and an exec; made again when a request has done away with them."""

    fuzzer: Fuzzer
    running: str = ""
    stopped: str = ""

    def create(self) -> str:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Init": True}}
        made = self.fuzzer.ask("POST", "/containers/create", json.dumps(body).encode())
        assert made.status == 201, made.body
        return str(made.value["Id"])

    def refresh(self) -> None:
        ask = self.fuzzer.ask
        if not self.stopped or ask("GET", f"/containers/{self.stopped}/json").status != 200:
            self.stopped = self.create()
        found = ask("GET", f"/containers/{self.running}/json") if self.running else None
        if found is None or found.status != 200:
            self.running, found = self.create(), None
        if found is not None and found.value["State"]["Paused"]:
            ask("POST", f"/containers/{self.running}/unpause")
        ask("POST", f"/containers/{self.running}/start")

    def exec(self) -> str:
        body = {"Cmd": ["true"], "AttachStdout": True}
        made = self.fuzzer.ask("POST", f"/containers/{self.running}/exec", json.dumps(body).encode())
        return str(made.value["Id"])


def names() -> list[str]:
    """The operations that are driven."""
    found = contract()["operations"].items()
    driven = ("/containers", "/exec", "/volumes", "/networks")
    return sorted(name for name, item in found if item["template"].startswith(driven))


def query_values(name: str, schema: Schema) -> list[str]:
    if name == "filters":
        return FILTERS + TEXTS[:4]
    return SIGNALS if name == "signal" else TEXTS


def test_every_path_and_query_parameter(fuzzer: Fuzzer) -> None:
    targets = Targets(fuzzer)
    for name in names():
        operation = contract()["operations"][name]
        template = operation["template"]
        body = {} if operation["body"] is not None and operation["body"].get("format") != "binary" else None
        for parameter in operation["path"]:
            for value in NAMES:
                fuzzer.check(name, template.replace(f"{{{parameter}}}", quote(value, safe="")), body)
        if name == "PutContainerArchive":
            body = None
        for parameter, schema in operation["query"].items():
            targets.refresh()
            ids = [targets.exec()] if template.startswith("/exec") else [targets.running, targets.stopped]
            for value in query_values(parameter, schema):
                for id in ids if "{id}" in template else ids[:1]:
                    fuzzer.check(name, f"{template.replace('{id}', id)}?{urlencode({parameter: value})}", body)
    fuzzer.check("VolumePrune", "/volumes/prune")
    assert fuzzer.asked > 500
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:20])
    assert not fuzzer.tracebacks(), fuzzer.tracebacks()


def test_every_field_of_a_create_request(fuzzer: Fuzzer) -> None:
    schema = contract()["operations"]["ContainerCreate"]["body"]
    for path, inner in fields(schema, 2):
        rng = random.Random(f"{SEED} {path}")
        for _ in range(PER_FIELD):
            body = put({"Image": "busybox", "Cmd": ["true"]}, path, make(inner, rng))
            answer = fuzzer.check("ContainerCreate", "/containers/create", body)
            if answer is None or answer.status != 201:
                continue
            id = answer.value["Id"]
            fuzzer.check("ContainerInspect", f"/containers/{id}/json")
            if path[-1] not in NOT_STARTED:
                fuzzer.check("ContainerStart", f"/containers/{id}/start")
            fuzzer.check("ContainerDelete", f"/containers/{id}?force=1")
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:20])
    assert not fuzzer.tracebacks(), fuzzer.tracebacks()


@pytest.mark.parametrize("name", ["ContainerUpdate", "ContainerExec", "ExecStart"])
def test_every_field_of_the_other_bodies(fuzzer: Fuzzer, name: str) -> None:
    targets = Targets(fuzzer)
    operation = contract()["operations"][name]
    for path, inner in fields(operation["body"], 2):
        rng = random.Random(f"{SEED} {name} {path}")
        targets.refresh()
        for _ in range(PER_FIELD):
            id = targets.exec() if name == "ExecStart" else targets.running
            base = {"Cmd": ["true"]} if name == "ContainerExec" else {}
            body = put(base, path, make(inner, rng))
            answer = fuzzer.check(name, operation["template"].replace("{id}", id), body)
            if name == "ContainerExec" and answer is not None and answer.status == 201:
                started = fuzzer.check("ExecStart", f"/exec/{answer.value['Id']}/start", {"Detach": True})
                assert started is not None
                fuzzer.check("ExecInspect", f"/exec/{answer.value['Id']}/json")
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:20])
    assert not fuzzer.tracebacks(), fuzzer.tracebacks()


@pytest.mark.parametrize("name", ["NetworkCreate", "NetworkConnect", "NetworkDisconnect"])
def test_every_field_of_a_networks_bodies(fuzzer: Fuzzer, name: str) -> None:
    targets = Targets(fuzzer)
    targets.refresh()
    home = fuzzer.check("NetworkCreate", "/networks/create", {"Name": "fuzz-home"})
    assert home is not None
    for path, inner in fields(contract()["operations"][name]["body"], 2):
        rng = random.Random(f"{SEED} {name} {path}")
        for _ in range(PER_FIELD):
            base = {"Name": "fuzz"} if name == "NetworkCreate" else {"Container": targets.running}
            target = contract()["operations"][name]["template"].replace("{id}", "fuzz-home")
            answer = fuzzer.check(name, target, put(base, path, make(inner, rng)))
            if answer is None or answer.status >= 400:
                continue
            if name == "NetworkCreate":
                made = answer.value["Id"]
                fuzzer.check("NetworkInspect", f"/networks/{made}")
                fuzzer.check("NetworkList", "/networks")
                fuzzer.check("NetworkDelete", f"/networks/{made}")
            else:
                fuzzer.check("NetworkInspect", "/networks/fuzz-home")
                fuzzer.check("ContainerInspect", f"/containers/{targets.running}/json")
                undo = "disconnect" if name == "NetworkConnect" else "connect"
                fuzzer.ask("POST", f"/networks/fuzz-home/{undo}", json.dumps({"Container": targets.running}).encode())
    fuzzer.ask("POST", "/networks/fuzz-home/disconnect", json.dumps({"Container": targets.running}).encode())
    fuzzer.check("NetworkDelete", f"/networks/{home.value['Id']}")
    fuzzer.check("NetworkPrune", "/networks/prune")
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:20])
    assert not fuzzer.tracebacks(), fuzzer.tracebacks()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"Image":' + b'"x"' * 3, b"{}" * 2]
)
def test_bodies_that_are_none(fuzzer: Fuzzer, body: bytes) -> None:
    for name in names():
        operation = contract()["operations"][name]
        if operation["body"] is None or operation["body"].get("format") == "binary":
            continue
        if name in ("VolumeCreate", "VolumeUpdate"):  # one needs no body, the other looks at none outside a swarm
            continue
        answer = fuzzer.ask(operation["method"], operation["template"].replace("{id}", "nosuch"), body)
        assert 400 <= answer.status < 500, (name, answer)
        assert "message" in answer.value


def test_archives_that_are_none(fuzzer: Fuzzer) -> None:
    targets = Targets(fuzzer)
    targets.refresh()
    for id in (targets.running, targets.stopped):
        for data in (b"", b"x", b"\0" * 511, b"\x1f\x8b\x08" + bytes(20), b"\xfd7zXZ\0" + bytes(9), os.urandom(2000)):
            fuzzer.check("PutContainerArchive", f"/containers/{id}/archive?path=/tmp", raw=data)
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:20])


def test_the_judge_sees_what_is_wrong() -> None:
    state = {"$ref": "ContainerState"}
    assert list(problems(state, {"Running": True, "Status": "exited", "Health": None})) == []
    assert list(problems(state, {"Running": "yes"})) == ["$.Running: 'yes' is no boolean"]
    assert list(problems(state, {"Pid": True})) == ["$.Pid: True is no integer"]
    assert "is none of" in next(problems(state, {"Status": "well"}))
    assert list(problems({"$ref": "ContainerInspectResponse"}, {"HostConfig": {"Binds": [1]}})) == [
        "$.HostConfig.Binds[0]: 1 is no string"
    ]


def test_a_life_in_the_contracts_words(fuzzer: Fuzzer) -> None:
    """The answers of every operation that reads, of a container with something to show."""
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "Env": ["A=b"],
        "Labels": {"l": "v"},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        "HostConfig": {
            "PortBindings": {"80/tcp": [{"HostPort": "0"}]},
            "Binds": ["/etc:/host:ro"],
            "Tmpfs": {"/t": ""},
            "RestartPolicy": {"Name": "always"},
            "Memory": 64 << 20,
            "CapAdd": ["NET_ADMIN"],
            "Init": True,
        },
    }
    created = fuzzer.check("ContainerCreate", "/containers/create?name=whole", body)
    assert created is not None
    assert created.status == 201
    for when in ("created", "running", "exited"):
        if when == "running":
            fuzzer.check("ContainerStart", "/containers/whole/start")
            fuzzer.check("ContainerTop", "/containers/whole/top")
            fuzzer.check("ContainerUpdate", "/containers/whole/update", {"CpuShares": 512})
            made = fuzzer.check("ContainerExec", "/containers/whole/exec", {"Cmd": ["sleep", "1000"]})
            assert made is not None
            fuzzer.check("ExecStart", f"/exec/{made.value['Id']}/start", {"Detach": True})
            fuzzer.check("ExecInspect", f"/exec/{made.value['Id']}/json")
        if when == "exited":
            fuzzer.check("ContainerStop", "/containers/whole/stop?t=0")
        for name, query in (
            ("ContainerInspect", "?size=1"),
            ("ContainerArchiveInfo", "?path=/"),
        ):
            template = contract()["operations"][name]["template"]
            answer = fuzzer.check(name, template.replace("{id}", "whole") + query)
            assert answer is not None
            assert answer.status == 200, (name, answer.body)
        fuzzer.check("ContainerChanges", "/containers/whole/changes")
        fuzzer.check("ContainerStats", "/containers/whole/stats?stream=0&one-shot=1", whole=True)
        fuzzer.check("ContainerList", "/containers/json?all=1&size=1")
    fuzzer.check("ContainerWait", "/containers/whole/wait", whole=True)
    fuzzer.check("ContainerPrune", "/containers/prune", {})
    assert not fuzzer.wrong, "\n".join(fuzzer.wrong[:20])
