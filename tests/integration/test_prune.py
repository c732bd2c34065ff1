"""Removing what nothing uses, and what is on the disk: prune and `system df`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root


def test_containers_by_label(docker: Client) -> None:
    docker.ok("run", "--name", "t-pruned", "--label", "t=prune", docker.image, "sh", "-c", "echo 12345 >/f")
    docker.ok("run", "-d", "--name", "t-spared", "--label", "t=prune", docker.image, "sleep", "1000")
    id = docker.ok("inspect", "-f", "{{.Id}}", "t-pruned")
    assert docker.ok("container", "prune", "-f", "--filter", "label=t=other") == "Total reclaimed space: 0B"
    answer = docker.ok("container", "prune", "-f", "--filter", "label=t=prune")
    assert answer == f"Deleted Containers:\n{id}\n\nTotal reclaimed space: 6B"
    docker.ok("rm", "-f", "t-spared")


def test_images_by_label(docker: Client, pier: Client) -> None:
    docker.ok("create", "--name", "t-source", "--label", "t=prune", docker.image, "true")
    nameless = docker.ok("commit", "t-source")
    named = docker.ok("commit", "-m", "named", "t-source", "t-named:1")
    only = ("--filter", "label=t=prune")
    assert f"deleted: {nameless}" in pier.ok("image", "prune", "-f", *only)
    docker.ok("rm", "t-source")
    lines = docker.ok("image", "prune", "-af", *only).splitlines()
    assert lines[:3] == ["Deleted Images:", "untagged: t-named:1", f"deleted: {named}"]


@pytest.mark.parametrize("what", ["container", "image", "volume", "network", "system"])
def test_unknown_filters_are_refused(docker: Client, what: str) -> None:
    done = docker(what, "prune", "-f", "--filter", "bogus=1")
    assert (done.status, done.err) == (1, "Error response from daemon: invalid filter 'bogus'\n")


def test_all_of_it(docker: Client, pier: Client) -> None:
    docker.ok("builder", "prune", "-af")
    docker.ok("create", "--name", "t-all", "--label", "t=all", docker.image, "true")
    for client in (docker, pier):
        assert (
            client("system", "prune", "-f", "--volumes", "--filter", "label=t=none").out
            == "Total reclaimed space: 0B\n"
        )
    asked = [client("system", "prune", "-a", "--filter", "label=t=x").out for client in (docker, pier)]
    assert asked[0] == asked[1]
    assert asked[0].startswith("WARNING! This will remove:\n  - all stopped containers\n")
    assert "t-all" in docker.ok("ps", "-a")
    docker.ok("rm", "t-all")


def test_trap_13_disk_usage_counts_blocks_not_lengths(docker: Client, pier: Client) -> None:
    script = "dd if=/dev/zero of=/holes bs=1 count=0 seek=1000000000; dd if=/dev/zero of=/full bs=1000 count=100"
    docker.ok("run", "--name", "t-holes", docker.image, "sh", "-c", script)
    for client in (docker, pier):
        rows = {row["Type"]: row for row in map(json.loads, client.ok("system", "df", "--format", "json").splitlines())}
        assert rows["Containers"]["Size"].endswith("kB")
        assert rows["Local Volumes"] == {
            "Type": "Local Volumes",
            "TotalCount": "0",
            "Active": "0",
            "Size": "0B",
            "Reclaimable": "0B",
        }
    assert "t-holes" in docker.ok("system", "df", "-v")
    docker.ok("rm", "t-holes")


def test_trap_22_logs_are_shown_and_emptied(docker: Client, pier: Client, daemon: Daemon) -> None:
    docker.ok(
        "run", "-d", "--name", "t-log", docker.image, "sh", "-c", "yes 0123456789 | head -50000; echo end; sleep 1000"
    )
    poll(lambda: docker.ok("logs", "--tail", "1", "t-log") == "end", "the end of the output")
    id = docker.ok("inspect", "-f", "{{.Id}}", "t-log")
    file = Path(daemon.data_root, "containers", id, f"{id}-json.log")
    shown = json.loads(pier.ok("system", "df", "-v", "--format", "json"))
    [row] = [row for row in shown["Logs"] if row["Id"] == id]
    assert row["Size"] == os.stat(file).st_blocks * 512 > 1_000_000
    assert "Logs " in pier.ok("system", "df")
    assert "MB freed" in pier.ok("logs", "--truncate", "t-log")
    assert file.stat().st_size == 0
    docker.ok("exec", "t-log", "sh", "-c", "echo after >/proc/1/fd/1")
    poll(lambda: docker.ok("logs", "t-log") == "after", "the output after it")
    docker.ok("rm", "-f", "t-log")
