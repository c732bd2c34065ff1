"""What a configuration asks for is what the program finds, by area of the runtime specification."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..bundles import Bench, a_bench

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.fixture
def bench(tmp_path: Path, busybox_root: Path) -> Iterator[Bench]:
    tmp_path.chmod(0o755)
    yield from a_bench(tmp_path, busybox_root)


def ok(bench: Bench, script: str) -> list[str]:
    result = bench.run("sh", "-c", script)
    assert (result.code, result.err) == (0, ""), result
    return result.out.splitlines()


# --- process ---------------------------------------------------------------------------------------------------------


def test_user_groups_and_umask(bench: Bench) -> None:
    bench.spec["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o027}
    assert ok(bench, "id -u; id -g; id -G; umask") == ["1000", "1001", "1001 7 8", "0027"]


def test_all_five_capability_sets(bench: Bench) -> None:
    bench.spec["process"]["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
        "effective": ["CAP_KILL"],
    }
    bench.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    lines = [line.split(":\t")[1].lstrip("0") for line in ok(bench, "grep Cap /proc/self/status")]
    assert lines == ["20", "20", "20", "21", "20"]  # inheritable, permitted, effective, bounding, ambient


def test_limits_oom_score_and_no_new_privileges(bench: Bench) -> None:
    bench.spec["process"] |= {
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}],
        "oomScoreAdj": 321,
        "noNewPrivileges": True,
    }
    script = "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status"
    assert ok(bench, script) == ["77", "99", "321", "NoNewPrivs:\t1"]


def test_scheduler_and_io_priority(bench: Bench) -> None:
    bench.spec["process"] |= {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
    }
    fields = ok(bench, "cat /proc/self/stat")[0].rpartition(")")[2].split()
    assert (fields[16], fields[38]) == ("5", "3")  # nice, policy


def test_personality(bench: Bench) -> None:
    bench.spec["linux"]["personality"] = {"domain": "LINUX32"}
    assert ok(bench, "cat /proc/self/personality") == ["00000008"]


def test_a_label_this_kernel_has_not_is_an_error(bench: Bench) -> None:
    if Path("/sys/module/apparmor").exists():
        pytest.skip("this kernel has AppArmor")
    bench.spec["process"]["apparmorProfile"] = "docker-default"
    result = bench.run()
    assert result.code == 1
    assert "process.apparmorProfile: the AppArmor profile 'docker-default' is asked for" in result.message


def test_the_last_of_a_name_in_the_environment_wins(bench: Bench) -> None:
    bench.spec["process"]["env"] += ["A=1", "A=2"]
    assert ok(bench, "echo $A $HOME") == ["2 /root"]


# --- namespaces ------------------------------------------------------------------------------------------------------


def test_user_namespace(bench: Bench) -> None:
    linux = bench.spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux |= {"uidMappings": MAP, "gidMappings": MAP}
    script = "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null; readlink /proc/self/ns/user"
    lines = ok(bench, script)
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "100000", "65536"]
    assert lines[2] == "null"
    assert lines[3] != os.readlink("/proc/self/ns/user")


def test_exec_into_a_user_namespace(bench: Bench) -> None:
    linux = bench.spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux |= {"uidMappings": MAP, "gidMappings": MAP}
    bench.spec["process"]["args"] = ["sleep", "100"]
    assert bench.make("run", "mapped", "-d").code == 0
    result = bench.call("exec", "mapped", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert result.out.split() == ["0", "0", "100000", "65536"]


def test_time_namespace_with_offsets(bench: Bench) -> None:
    if not Path("/proc/self/timens_offsets").exists():
        pytest.skip("this kernel has no time namespaces")
    bench.spec["linux"]["namespaces"].append({"type": "time"})
    bench.spec["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5}}
    uptime = float(ok(bench, "cat /proc/uptime")[0].split()[0])
    assert uptime > 1_000_000


def test_namespaces_by_path(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "first", "-d")
    pid = bench.state("first")["pid"]
    kinds = {"uts": "uts", "network": "net", "ipc": "ipc", "pid": "pid"}
    for item in bench.spec["linux"]["namespaces"]:
        if item["type"] in kinds:
            item["path"] = f"/proc/{pid}/ns/{kinds[item['type']]}"
    bench.spec.pop("hostname")
    names = [f"/proc/self/ns/{name}" for name in kinds.values()]
    found = ok(bench, f"for ns in {' '.join(names)}; do readlink $ns; done; cat /proc/1/comm")
    assert found == [os.readlink(f"/proc/{pid}/ns/{name}") for name in kinds.values()] + ["sleep"]


def test_hostname_and_domainname(bench: Bench) -> None:
    bench.spec["domainname"] = "example.org"
    assert ok(bench, "hostname; cat /proc/sys/kernel/domainname") == ["bench", "example.org"]


# --- mounts ----------------------------------------------------------------------------------------------------------


def bind(source: Path, *options: str, **more: Any) -> dict[str, Any]:
    return {"destination": "/mnt", "source": str(source), "options": ["rbind", *options], **more}


def test_recursively_read_only(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    bench.spec["mounts"].append(bind(tmp_path / "data", "rro"))
    assert ok(bench, "(echo x > /mnt/file) 2>/dev/null || echo denied") == ["denied"]


def test_read_only_root(bench: Bench) -> None:
    bench.spec["root"]["readonly"] = True
    assert ok(bench, "(echo x > /file) 2>/dev/null || echo denied") == ["denied"]


def test_idmapped_mount(bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").touch()
    bench.spec["mounts"].append(bind(data, "idmap", uidMappings=MAP, gidMappings=MAP))
    result = bench.run("ls", "-ln", "/mnt/file")
    if "Invalid argument" in result.err:
        pytest.skip("this file system takes no idmapped mounts")
    assert result.out.split()[2:4] == ["100000", "100000"], result


def test_tmpcopyup(bench: Bench, tmp_path: Path) -> None:
    (bench.rootfs / "etc" / "deep").mkdir(exist_ok=True)
    (bench.rootfs / "etc" / "deep" / "file").write_text("kept\n")
    options = ["tmpcopyup", "nosuid"]
    bench.spec["mounts"].append({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": options})
    assert ok(bench, "cat /etc/deep/file; echo new > /etc/new; cat /etc/new; grep -c ' /etc tmpfs' /proc/mounts") == [
        "kept", "new", "1",
    ]  # fmt: skip
    assert not (bench.rootfs / "etc" / "new").exists()


@pytest.mark.parametrize(("propagation", "shown"), [("rslave", "master:"), ("rprivate", ""), ("rshared", "shared:")])
def test_propagation_of_a_mount(bench: Bench, tmp_path: Path, propagation: str, shown: str) -> None:
    (tmp_path / "data").mkdir()
    bench.spec["mounts"].append(bind(tmp_path / "data", propagation))
    (line,) = [line for line in ok(bench, "cat /proc/self/mountinfo") if " /mnt " in line]
    fields = " ".join(line.partition(" - ")[0].split()[6:])
    assert shown in fields if shown != "master:" else "shared:" not in fields


def test_no_pivot(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["ls", "/bin/busybox"]
    assert bench.make("run", "moved", "--no-pivot").out == "/bin/busybox\n"


def test_devices(bench: Bench) -> None:
    bench.spec["linux"]["devices"] = [
        {"type": "c", "path": "/dev/mine", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"type": "p", "path": "/dev/pipe", "fileMode": 0o600},
    ]
    first, second = ok(bench, "ls -ln /dev/mine /dev/pipe")
    assert first.split()[:6] == ["crw-r-----", "1", "5", "6", "1,", "7"]
    assert second.startswith("prw-------")


def test_without_a_cgroup_namespace_only_its_own_cgroup_shows(bench: Bench) -> None:
    bench.spec["linux"]["namespaces"] = [i for i in bench.spec["linux"]["namespaces"] if i["type"] != "cgroup"]
    if not Path("/sys/fs/cgroup/pids/cgroup.procs").exists():
        pytest.skip("no cgroup v1")
    assert ok(bench, "cat /sys/fs/cgroup/pids/cgroup.procs") == ["1"]


# --- seccomp ---------------------------------------------------------------------------------------------------------


def test_seccomp_answers(bench: Bench) -> None:
    bench.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    result = bench.run("hostname", "other")
    assert "Operation not supported" in result.err


def test_seccomp_listener_gets_the_descriptor(bench: Bench, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    bench.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "hello",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
    }
    received: list[Any] = []

    def listen(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(65536, 100)
        received.extend([json.loads(data), array.array("i", ancillary[0][2])[0]])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        thread = threading.Thread(target=listen, args=(listener,))
        thread.start()
        assert bench.run("true").code == 0
        thread.join()
    state, fd = received
    os.close(fd)
    assert (state["metadata"], state["fds"]) == ("hello", ["seccompFd"])
    assert state["pid"] > 0


# --- hooks -----------------------------------------------------------------------------------------------------------


def hook(tmp_path: Path, name: str) -> dict[str, Any]:
    script = f"echo {name} $(cat) >> {tmp_path}/hooks"
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}


def test_hooks_run_in_their_order_with_the_state(bench: Bench, tmp_path: Path) -> None:
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bench.spec["hooks"] = {kind: [hook(tmp_path, kind)] for kind in kinds}
    bench.spec["hooks"]["startContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/started"]}]
    bench.spec["annotations"] = {"a": "b"}
    assert ok(bench, "cat /tmp/started | wc -l; sleep 0.3") == ["0"]
    lines = [line.split(" ", 1) for line in (tmp_path / "hooks").read_text().splitlines()]
    assert [kind for kind, _ in lines] == list(kinds)
    states = {kind: json.loads(text) for kind, text in lines}
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "poststart": "running",
        "poststop": "stopped",
    }
    assert all(state["annotations"] == {"a": "b"} for state in states.values())
    assert json.loads((bench.rootfs / "tmp" / "started").read_text())["status"] == "created"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_a_failing_hook_stops_the_start(bench: Bench, tmp_path: Path, kind: str) -> None:
    bench.spec["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo why; exit 3"]}]}
    bench.spec["hooks"]["poststop"] = [hook(tmp_path, "poststop")]
    result = bench.run()
    assert result.code == 1
    assert f"error running {kind} hook #0: /bin/sh: exit status 3, output: why" in result.message
    assert (tmp_path / "hooks").read_text().startswith("poststop")


def test_a_hook_out_of_time_is_killed(bench: Bench) -> None:
    bench.spec["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}
    assert "not done after its timeout of 1 s" in bench.run().message
