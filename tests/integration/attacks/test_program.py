"""What a container's program can get at through itself: the runtime's binary, descriptors, identity, capabilities."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from ..client import Client, Done
from ..conftest import Daemon
from .conftest import HOST_LIBRARIES, PYTHON, Entry, archive, directory, entry

pytestmark = pytest.mark.root

# --- 1: the runtime's binary (CVE-2019-5736)

OVERWRITE = f"""
import os
assert os.path.samefile("/proc/self/exe", {PYTHON!r})
exe = "/proc/self/exe"
pinned = "/proc/self/fd/" + str(os.open(exe, os.O_PATH))
deeds = dict(
    write=lambda: os.open(exe, os.O_WRONLY),
    write_by_a_pinned_descriptor=lambda: os.open(pinned, os.O_RDWR),
    truncate=lambda: os.truncate(exe, 0),
    chmod=lambda: os.chmod(pinned, 0o777),
    chown=lambda: os.chown(pinned, 1, 1),
    utime=lambda: os.utime(pinned),
    setxattr=lambda: os.setxattr(pinned, "user.owned", b"1"),
)
for name, deed in deeds.items():
    try:
        deed()
        print(name, "DONE", flush=True)
    except OSError as error:
        print(name, error.strerror, flush=True)
# Nobody runs the binary any more; a descriptor of it is left, which is how the attack goes.
held = os.open(exe, os.O_RDONLY)
os.set_inheritable(held, True)
os.execv("/bin/sh", ["sh", "-c", "echo x > /proc/self/fd/" + str(held) + " || echo held refused"])
"""
REFUSED = ("Read-only file system", "held refused", "Text file busy")
"""The last of them while it runs, for the two writes."""


def overwritten(text: str) -> list[str]:
    """The deeds of OVERWRITE that were not refused."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines.count("held refused") == 1, f"the attack did not take place: {text}"
    assert sum(line.endswith("Read-only file system") for line in lines) >= 6, text
    return [line for line in lines if not line.endswith(REFUSED)]


def test_attack_01_entrypoint_is_the_runtimes_binary(pier: Client, interpreter: str) -> None:
    done = pier("run", "--rm", *HOST_LIBRARIES, "--entrypoint", "/proc/self/exe", "busybox", "-ISc", OVERWRITE)
    assert overwritten(done.out + done.err) == []


def test_attack_01_a_scripts_interpreter_is_the_runtimes_binary(
    pier: Client, interpreter: str, image_of: Callable[..., str]
) -> None:
    script = entry("script", mode=0o755, data="#!/proc/self/exe -IS\n" + OVERWRITE)
    done = pier("run", "--rm", *HOST_LIBRARIES, image_of(script), "/script")
    assert overwritten(done.out + done.err) == []


def test_attack_01_an_elf_loader_is_the_runtimes_binary(
    pier: Client, interpreter: str, image_of: Callable[..., str]
) -> None:
    """The kernel maps the host's Python as the loader of the image's program: it may crash, and nothing more."""
    done = pier("run", "--rm", *HOST_LIBRARIES, image_of(entry("program", mode=0o755, data=ELF)), "/program")
    assert done.status not in (0, 125)


def elf(interpreter: bytes) -> bytes:
    """The smallest ELF program that asks for a loader (elf(5)): one PT_INTERP, one PT_LOAD, exit(0) as its code."""
    base, code = 0x400000, bytes.fromhex("31ff b83c000000 0f05")
    headers = 64 + 2 * 56
    size = headers + len(interpreter) + 1 + len(code)
    start = base + headers + len(interpreter) + 1
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, start, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    loader = struct.pack(
        "<IIQQQQQQ", 3, 4, headers, base + headers, base + headers, len(interpreter) + 1, len(interpreter) + 1, 1
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return head + loader + load + interpreter + b"\0" + code


ELF = elf(b"/proc/self/exe")


def test_attack_01_a_neighbour_writes_while_exec_runs_the_binary(pier: Client, interpreter: str) -> None:
    watcher = f"""
    echo watching
    while :; do for exe in /proc/[0-9]*/exe; do
      if [ $exe -ef {PYTHON} ]; then (echo x > $exe) && echo WRITTEN; fi
    done; done 2>&1
    """
    container = pier.start("run", "--rm", *HOST_LIBRARIES, "--name", "attack-01", "busybox", "sh", "-c", watcher)
    container.read_until("watching")
    running = pier.start("exec", "-i", "attack-01", "/proc/self/exe", "-ISc", "import sys; sys.stdin.read()")
    seen = container.read_until("Read-only file system")
    running.close_stdin()
    running.wait()
    for _ in range(10):
        pier("exec", "attack-01", "/proc/self/exe", "-ISc", "pass")
    pier("kill", "attack-01")
    assert "WRITTEN" not in seen + container.wait().out


# --- 2: descriptors (CVE-2024-21626)

FURTHER = ["/proc/self/cwd", "/proc/self/root/etc", "/proc/1/root", "/proc/self/fd/9/etc", "/proc/thread-self/fd/8"]


def assert_refused(done: Done) -> None:
    """The program did not run; why an exec failed comes on its output, as with Docker."""
    assert done.status != 0, done
    assert done.out == "" or done.out.startswith("OCI runtime exec failed"), done


@pytest.mark.parametrize("number", [*range(3, 65)])
def test_attack_02_workdir_of_a_leaked_descriptor(pier: Client, number: int) -> None:
    assert_refused(pier("run", "--rm", "-w", f"/proc/self/fd/{number}", "busybox", "ls", "-a"))


def test_attack_02_workdir_of_exec(pier: Client) -> None:
    pier.run("busybox", "sleep", "1000", name="attack-02")
    for path in [f"/proc/self/fd/{number}" for number in range(3, 65)] + FURTHER:
        assert_refused(pier("exec", "-w", path, "attack-02", "ls", "-a"))


@pytest.mark.parametrize("path", FURTHER)
def test_attack_02_workdir_in_the_image(pier: Client, image_of: Callable[..., str], path: str) -> None:
    assert_refused(pier("run", "--rm", image_of(changes=(f"WORKDIR {path}",)), "ls", "-a"))


@pytest.mark.parametrize("flags", [[], ["-i"], ["--init"], ["-t"]], ids=lambda flags: " ".join(flags) or "plain")
def test_attack_02_only_standard_streams_are_open(pier: Client, flags: list[str]) -> None:
    look = ["sh", "-c", "exec ls /proc/self/fd /proc/1/fd"]
    pier.run(*flags, "busybox", "sleep", "1000", name="attack-02")
    run = pier.terminal("run", "--rm", *flags, "busybox", *look) if "-t" in flags else None
    texts = [run.wait().out if run else pier.ok("run", "--rm", *flags, "busybox", *look)]
    texts.append(pier.ok("exec", "attack-02", *look))
    for text in texts:
        assert set(text.replace(":", " ").split()) - {"/proc/self/fd", "/proc/1/fd"} <= {"0", "1", "2", "3"}, text


# --- 13: who the program is

PASSWD = """root:x:0:0:root:/root:/bin/sh
1000:x:0:0:a name that is a number:/root:/bin/sh
ana:x:1001:1002:Ana:/home/ana:/bin/sh
over:x:4294967296:4294967296:wraps to root:/:/bin/sh
edge:x:4294967295:4294967295:is no user:/:/bin/sh
minus:x:-1:-1::/:/bin/sh
blank:x: 0:0::/:/bin/sh
2000:x:2001:2002::/two:/bin/sh
"""
GROUP = "root:x:0:\nwheel:x:10:ana,root\n3000:x:0:ana\nover:x:4294967296:ana\n"

USERS = [
    ("", "0 0 0 10"),
    ("1000", "1000 0 0"),
    ("2000", "2000 0 0"),
    ("2001", "2001 2002 2002"),
    ("01001", "1001 1002 0 10 1002"),
    ("ana", "1001 1002 0 10 1002"),
    ("ana:10", "1001 10 10"),
    ("ana:3000", "1001 3000 3000"),
    ("1000:0", "1000 0 0"),
    ("2147483647:2147483647", "2147483647 2147483647 2147483647"),
    ("2147483648", None),
    ("4294967295", None),
    ("4294967296", None),
    ("18446744073709551616", None),
    ("-1", None),
    ("+0", None),
    ("0:4294967296", None),
    ("over", None),
    ("edge", None),
    ("minus", None),
    ("ana:over", None),
    ("0x0", None),
    ("\u0660", None),
    ("ana\nroot", None),
    ("nosuch", None),
]
IDENTITY = ["sh", "-c", "echo $(id -u) $(id -g) $(grep Groups /proc/self/status | busybox cut -f2 | busybox sort -n)"]


def sorted_groups(text: str) -> str:
    uid, gid, *groups = text.split()
    return " ".join([uid, gid, *sorted(groups, key=int)])


@pytest.fixture(scope="module")
def people(daemon: Daemon, busybox_entries: list[Entry]) -> Iterator[str]:
    """An image with hostile passwd and group files, and a container of it."""
    kept = [(info, data) for info, data in busybox_entries if info.name.strip("./") not in ("etc/passwd", "etc/group")]
    data = archive(*kept, entry("etc/passwd", data=PASSWD), entry("etc/group", data=GROUP), directory("home/ana"))
    client = Client(daemon.environment, "busybox", program="pier")
    client.ok("import", "-", "people", stdin=data)
    client.run("people", "sleep", "1000", name="attack-13")
    try:
        yield "people"
    finally:
        client("rm", "-f", "attack-13")
        client("rmi", "people")


@pytest.mark.parametrize(("user", "expected"), USERS)
def test_attack_13_users_of_run_and_exec(pier: Client, people: str, user: str, expected: str | None) -> None:
    ran = pier("run", "--rm", "-u", user, people, *IDENTITY)
    executed = pier("exec", "-u", user, "attack-13", *IDENTITY)
    for done in (ran, executed):
        if expected is None:
            assert_refused(done)
        else:
            assert sorted_groups(done.out) == expected, done


def test_attack_13_a_line_break_in_home_makes_no_user(pier: Client, people: str) -> None:
    before = pier.ok("run", "--rm", people, "cat", "/etc/passwd")
    home = "HOME=/x\nevil::0:0::/:/bin/sh"
    after = pier.ok(
        "run", "--rm", "-u", "4321", "-e", home, people, "sh", "-c", "cat /etc/passwd; id -u evil 2>&1 || true"
    )
    assert after.startswith(before)
    assert "unknown user evil" in after


# --- 14: capabilities (CVE-2022-24769)

FOURTEEN = "00000000a80425fb"
NONE = "0" * 16


@pytest.mark.parametrize(
    ("flags", "bounding", "effective"),
    [
        ([], FOURTEEN, FOURTEEN),
        (["-u", "1000"], FOURTEEN, NONE),
        (["--cap-drop", "ALL"], NONE, NONE),
        (["--cap-drop", "ALL", "--cap-add", "NET_RAW"], "0000000000002000", "0000000000002000"),
        (["--init"], FOURTEEN, FOURTEEN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_attack_14_nothing_is_inheritable(pier: Client, flags: list[str], bounding: str, effective: str) -> None:
    look = ["grep", "-h", "^Cap", "/proc/self/status", "/proc/1/status"]
    pier.run(*flags, "busybox", "sleep", "1000", name="attack-14")
    wanted = {"CapInh": NONE, "CapPrm": effective, "CapEff": effective, "CapBnd": bounding, "CapAmb": NONE}
    for text in (pier.ok("run", "--rm", *flags, "busybox", *look), pier.ok("exec", "attack-14", *look)):
        lines = [line.split(":\t") for line in text.splitlines()]
        assert len(lines) == 10
        # The reaper of --init keeps its sets without execve; they are no larger than its program's.
        assert all(wanted[name] == value for name, value in lines), text


def test_attack_14_exec_with_privileges_inherits_nothing_either(pier: Client) -> None:
    pier.run("busybox", "sleep", "1000", name="attack-14")
    text = pier.ok("exec", "--privileged", "attack-14", "grep", "^Cap", "/proc/self/status")
    values = dict(line.split(":\t") for line in text.splitlines())
    assert (values["CapInh"], values["CapAmb"]) == (NONE, NONE)
    assert int(values["CapEff"], 16) > int(FOURTEEN, 16)
