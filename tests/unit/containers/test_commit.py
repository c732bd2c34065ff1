"""What a commit asks of the image service, and the standing still around it; pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pier.containers import commit
from pier.errors import NotFound
from pier.images.changes import InvalidChange
from pier.images.commit import Commit
from pier.model.container import ContainerConfig, ContainerCreateRequest
from pier.model.filters import Filters, SeveralUntil, UnknownFilter
from pier.oci import Digest, Reference

from .conftest import FakeMonitor, House

OWN = ContainerConfig(
    user="5",
    env=["A=1"],
    entrypoint=["/bin/sh"],
    cmd=["-c", "echo hi"],
    exposed_ports={"99/tcp": {}},
    volumes={"/vol": {}},
    labels={"lb": "1"},
    working_dir="/wd",
    stop_signal="SIGUSR1",
    on_build=["RUN old"],
)
IMAGE = "sha256:" + "7" * 64


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ([], "cmd", ["-c", "echo hi"]),
        (["ENV B=$A"], "env", ["A=1", "B=1"]),
        (['ENTRYPOINT ["x"]'], "cmd", None),
        (['ENTRYPOINT ["x"]'], "entrypoint", ["x"]),
        (["ENTRYPOINT []"], "entrypoint", ["/bin/sh"]),
        (["ENTRYPOINT []"], "cmd", ["-c", "echo hi"]),
        (["CMD []"], "cmd", []),
        (["LABEL y=2"], "labels", {"lb": "1", "y": "2"}),
        (["EXPOSE 80"], "exposed_ports", {"80/tcp": {}, "99/tcp": {}}),
        (["VOLUME /b"], "volumes", {"/b": {}, "/vol": {}}),
        (["WORKDIR x"], "working_dir", "/wd/x"),
        (["ONBUILD RUN new"], "on_build", ["RUN old", "RUN new"]),
    ],
)
def test_changes_are_applied_to_the_container_s_configuration(changes: list[str], field: str, value: Any) -> None:
    assert getattr(commit.image_config(OWN, None, changes), field) == value


def test_a_configuration_in_the_body_is_put_over_the_container_s() -> None:
    given = ContainerConfig(cmd=["bodycmd"], labels={"z": "q"}, env=["A=5", "Z=1"])
    found = commit.image_config(OWN, given, [])
    assert (found.cmd, found.entrypoint, found.env) == (["bodycmd"], ["/bin/sh"], ["A=5", "Z=1"])
    assert (found.labels, found.user, found.working_dir) == ({"lb": "1", "z": "q"}, "5", "/wd")


@dataclass
class Committed:
    """What the image service was asked, and what the container's monitor had been asked by then."""

    house: House
    asked: list[tuple[Commit, Reference | None, list[str]]] = field(default_factory=list)

    async def run(self) -> FakeMonitor:
        """A container whose standing still its monitor can tell of."""
        self.monitor = await self.house.run()
        self.monitor.foreign = True
        return self.monitor

    async def commit(self, asked: Commit, name: Reference | None) -> Digest:
        self.asked.append((asked, name, list(self.monitor.asked)))
        if asked.comment == "fail":
            raise NotFound("no")
        return Digest(IMAGE)


@pytest.fixture
def committed(house: House) -> Committed:
    made = Committed(house)
    house.images.commit = made.commit  # type: ignore[attr-defined]
    return made


async def ask(house: House, **options: Any) -> str:
    return str(await house.service.commit("web", name=Reference.parse("made"), **options))


async def test_a_running_container_stands_still(house: House, committed: Committed) -> None:
    monitor = await committed.run()
    assert await ask(house, author="Me", comment="why") == IMAGE
    [(asked, name, before)] = committed.asked
    assert (asked.author, asked.comment, asked.created_by) == ("Me", "why", "sh")
    assert str(name) == "docker.io/library/made:latest"
    assert asked.container_config["Cmd"] == ["sh"]
    assert (before, monitor.asked) == (["pause"], ["pause", "resume"])
    assert house.actions()[-3:] == ["pause", "commit", "unpause"]
    told = next(event for event in house.events._history if event.action == "commit").actor.attributes
    assert (told["comment"], told["imageID"], told["imageRef"], told["name"]) == ("why", IMAGE, "made:latest", "web")
    assert await house.status() == "running"


async def test_it_goes_on_after_a_failure(house: House, committed: Committed) -> None:
    monitor = await committed.run()
    with pytest.raises(NotFound):
        await ask(house, comment="fail")
    assert monitor.asked == ["pause", "resume"]
    assert "commit" not in house.actions()


@pytest.mark.parametrize("running", [True, False])
async def test_nothing_stands_still_that_need_not(house: House, committed: Committed, running: bool) -> None:
    monitor = await committed.run()
    if not running:
        monitor.end(0)
        await house.service.wait("web", "not-running")
    await ask(house, pause=not running)
    assert monitor.asked == []


async def test_a_paused_container_stays_paused(house: House, committed: Committed) -> None:
    monitor = await committed.run()
    await house.service.pause("web")
    await ask(house)
    assert monitor.asked == ["pause"]
    assert await house.status() == "paused"


async def test_a_wrong_instruction_is_refused_before_anything_stands_still(house: House, committed: Committed) -> None:
    monitor = await committed.run()
    with pytest.raises(InvalidChange, match="RUN is not a valid change command"):
        await ask(house, changes=["RUN x"])
    assert (monitor.asked, committed.asked) == ([], [])


async def test_prune_removes_what_does_not_run(house: House) -> None:
    await house.run("up")
    await house.create("created")
    monitor = await house.run("down")
    monitor.end(0)
    await house.service.wait("down", "not-running")
    done = await house.service.prune(Filters())
    assert done.containers_deleted is not None
    assert (len(done.containers_deleted), done.space_reclaimed) == (2, 22)
    assert [item.names for item in await house.service.list(all=True, limit=0, size=False, filters=Filters())] == [
        ["/up"]
    ]
    assert house.events._history[-1].action == "prune"
    assert house.events._history[-1].actor.attributes == {"reclaimed": "22"}


@pytest.mark.parametrize(
    ("terms", "gone"),
    [
        ({"label": ("keep",)}, 1),
        ({"label!": ("keep",)}, 1),
        ({"label": ("keep=no",)}, 0),
        ({"until": ("1h",)}, 0),
        ({"until": ("0s",)}, 2),
    ],
)
async def test_prune_by_filters(house: House, terms: dict[str, tuple[str, ...]], gone: int) -> None:
    await house.create("plain")
    body = ContainerCreateRequest(image="bb", labels={"keep": "yes"})
    await house.service.create(body, name="kept", platform="")
    done = await house.service.prune(Filters(terms))
    assert len(done.containers_deleted or []) == gone


async def test_prune_refuses_what_it_does_not_know(house: House) -> None:
    with pytest.raises(UnknownFilter):
        await house.service.prune(Filters({"bogus": ("x",)}))
    with pytest.raises(SeveralUntil):
        await house.service.prune(Filters({"until": ("1h", "2h")}))
