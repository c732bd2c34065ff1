"""What `pier` does that Docker's command line does not, against a daemon: wishes 4, 5, 10 and 15, trap 6."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from .client import Client

pytestmark = pytest.mark.root


@pytest.fixture
def shop(docker: Client) -> Iterator[str]:
    """An image with two containers, one of which runs."""
    docker.ok("run", "--name", "t-made", docker.image, "sh", "-c", "echo 1 >/one")
    docker.ok("commit", "-c", 'ENTRYPOINT ["sleep"]', "-c", 'CMD ["1000"]', "-c", "ENV A=1", "t-made", "t-shop:1")
    docker.ok("rm", "t-made")
    docker.ok(
        "run", "-d", "--name", "t-open", "-t", "-e", "B=2 3", "--memory", "64m", "-p", "127.0.0.1::80", "t-shop:1"
    )
    docker.ok("create", "--name", "t-shut", "t-shop:1")
    yield "t-shop:1"
    docker("rm", "-f", "t-open", "t-shut", "t-again")
    docker("rmi", "t-shop:1")


def test_wish_4_dockerfile(pier: Client, shop: str) -> None:
    text = pier.ok("image", "dockerfile", shop)
    assert text.startswith("# Rebuilt from the history of t-shop:1: ")
    assert 'ENTRYPOINT ["sleep"]' in text
    assert "# guessed: a commit of a container that ran this" in text


def test_wish_5_containers_by_their_image(pier: Client, docker: Client, shop: str) -> None:
    done = pier("stop", "-t", "0", "--ancestor", shop)
    assert (done.status, done.out) == (0, "t-open\n")
    assert done.err.startswith(f"running containers of {shop}:\n  t-open  Up ")
    assert pier("kill", "--ancestor", shop).err == f"no running containers of {shop}\n"
    assert sorted(pier.ok("rm", "--ancestor", shop).split()) == ["t-open", "t-shut"]
    assert pier("restart").err.startswith("pier: 'pier restart' requires at least 1 argument\n")


def test_wish_10_tree_and_graph(pier: Client, shop: str) -> None:
    lines = pier.ok("images", "--tree").splitlines()
    [row] = [line for line in lines if "t-shop:1" in line]
    assert row.lstrip("│ ").startswith("└─ t-shop:1 (")
    assert pier.ok("images", "--dot").startswith("digraph images {")


def test_wish_15_a_container_again(pier: Client, docker: Client, shop: str) -> None:
    command = shlex.split(pier.ok("inspect", "--as-run", "t-open"))
    assert command[:2] == ["pier", "run"]
    assert command[-1] == shop
    command[command.index("t-open")] = "t-again"
    pier.ok(*command[1:])
    fields = "{{json .Config.Env}} {{json .Config.Cmd}} {{.Config.Tty}} {{json .HostConfig.PortBindings}}"
    assert docker.field("t-again", fields) == docker.field("t-open", fields)
    assert pier("inspect", "--as-run", "nosuch").status == 1


def test_trap_06_image_inspect_shows_the_effective_argv(pier: Client, docker: Client, shop: str) -> None:
    [shown] = json.loads(pier.ok("image", "inspect", shop))
    assert shown["EffectiveArgv"] == ["sleep", "1000"]
    docker.ok("commit", "-c", "ENTRYPOINT serve", "t-shut", "t-shell:1")
    done = pier("image", "inspect", "-f", "{{.EffectiveArgv}}", "t-shell:1")
    assert done.out == "[/bin/sh -c serve]\n"
    assert "Note: t-shell:1: ENTRYPOINT is in shell form" in done.err
    docker.ok("rmi", "t-shell:1")
