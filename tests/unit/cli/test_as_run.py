"""Wish 15: what `inspect --as-run` says makes the same container again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from pier.cli import as_run
from pier.cli.container_config import build
from pier.cli.flags import parse
from pier.cli.verbs.run import COMMAND

DAEMON = {"DefaultRuntime": "pier", "LoggingDriver": "json-file"}


def body(*words: str) -> dict[str, Any]:
    """What `run` sends for these words."""
    opts, args = parse(COMMAND, "run", list(words))
    return build(opts, args, detach=opts["detach"], console=None)


def inspected(sent: dict[str, Any]) -> dict[str, Any]:
    """The inspect answer of a container made from a request, as far as the request decides it."""
    config = {key: value for key, value in sent.items() if key not in ("HostConfig", "NetworkingConfig")}
    endpoints = sent.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    return {
        "Id": "f" * 64,
        "Name": "/web",
        "Config": config,
        "HostConfig": sent["HostConfig"],
        "NetworkSettings": {"Networks": endpoints},
    }


@pytest.mark.parametrize(
    "line",
    [
        "-d busybox",
        "-d -i -t busybox sh -c 'echo a b'",
        "-d --rm --init --read-only --privileged busybox",
        "-d -e A=1 -e 'B=two words' --label x=y -u 5:6 -w /work --hostname h busybox true",
        "-d -p 8080:80 -p 127.0.0.1:9090:90/udp -p 70 --expose 99 busybox",
        "-d -v /a:/b:ro -v /c:/d --tmpfs /t:size=1m --mount type=bind,source=/x,target=/y,readonly busybox",
        "-d -v named:/n:ro -v /nameless --volume-driver local --volumes-from other:ro busybox",
        "-d --mount type=volume,source=a,target=/b,volume-nocopy,volume-subpath=c/d,volume-label=e=f busybox",
        "-d --mount 'type=volume,target=/b,volume-driver=local,\"volume-opt=o=size=1m,uid=5\"' busybox",
        "-d --memory 512m --memory-swap 2g --cpus 1.5 --cpu-shares 5 --pids-limit 9 --shm-size 1g busybox",
        "-d --cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --device /dev/fuse busybox",
        "-d --restart on-failure:3 --log-driver local --log-opt max-size=1m busybox",
        "-d --network none busybox",
        "-d --network mine --network-alias db --ip 10.1.2.3 --ip6 fd00::3 --link-local-ip 169.254.1.1 busybox",
        "-d --network name=mine,gw-priority=2 busybox",
        "-d --network name=a,alias=x,alias=y,ip=10.0.0.2,driver-opt=k=v,gw-priority=-3 --network b busybox",
        "-d --dns 1.1.1.1 --add-host a:1.2.3.4 --sysctl net.core.somaxconn=5 --ulimit nofile=10:20 busybox",
        "-d --entrypoint /bin/sh busybox -c true",
        "-d --health-cmd 'a b' --health-interval 5s --health-retries 2 --health-timeout 500ms busybox",
        "-d --no-healthcheck --stop-signal SIGINT --stop-timeout 3 busybox",
        "-d --pid host --ipc host --uts host --userns host --cgroupns host busybox",
        "-d --timezone Asia/Shanghai --annotation a=b busybox",
    ],
)
def test_wish_15_the_command_makes_the_same_request(line: str) -> None:
    sent = body(*shlex.split(line))
    found = as_run.words(inspected(sent), None, DAEMON)
    assert found[0] == "run"
    assert found[found.index("--name") + 1] == "web"
    assert body(*found[1:]) == sent


IMAGE = {
    "Config": {
        "Env": ["PATH=/bin"],
        "Cmd": ["sh"],
        "Entrypoint": ["/entry"],
        "Labels": {"l": "1"},
        "WorkingDir": "/w",
        "User": "u",
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5},
        "StopSignal": "SIGINT",
    }
}


def test_what_comes_from_the_image_is_not_repeated() -> None:
    container = inspected({**IMAGE["Config"], "Image": "web:1", "Hostname": "f" * 12, "HostConfig": {}})
    assert as_run.words(container, IMAGE, DAEMON) == ["run", "-d", "--name", "web", "web:1"]


def test_only_the_arguments_differ() -> None:
    config = {"Image": "web:1", "Entrypoint": ["/entry"], "Cmd": ["serve", "--now"]}
    assert as_run.words(inspected({**config, "HostConfig": {}}), IMAGE, DAEMON)[-3:] == ["web:1", "serve", "--now"]


def test_what_cannot_be_said_is_told() -> None:
    container = inspected({"Image": "a", "Entrypoint": ["sh", "-c"], "HostConfig": {"DeviceRequests": [{}]}})
    assert len(as_run.unsaid(container)) == 2
