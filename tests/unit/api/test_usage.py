"""Disk usage, commit and prune over HTTP: what differs between versions, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

SUMS = {"ActiveCount": 1, "TotalCount": 1, "Reclaimable": 3, "TotalSize": 9}


async def test_disk_usage_before_1_52_is_lists(client: Any) -> None:
    answer = (await client.request("GET", "/v1.51/system/df?type=image&type=volume")).json
    assert set(answer) == {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    assert (answer["LayersSize"], answer["Containers"], answer["Volumes"]) == (9, None, [])
    [image] = answer["Images"]
    assert (image["SharedSize"], image["Containers"]) == (2, 1)
    assert "VirtualSize" not in image


async def test_disk_usage_before_1_44_has_virtual_sizes_and_counts_containers(client: Any) -> None:
    [image] = (await client.request("GET", "/v1.43/system/df")).json["Images"]
    assert (image["VirtualSize"], image["Containers"]) == (5, 1)


async def test_disk_usage_from_1_52_has_sums_too(client: Any) -> None:
    answer = (await client.request("GET", "/v1.52/system/df?type=image")).json
    assert answer["ImageUsage"] == SUMS
    assert len(answer["Images"]) == 1


@pytest.mark.parametrize(("verbose", "items"), [("1", 1), ("true", 1), ("0", None)])
async def test_verbose_says_whether_there_are_items(client: Any, verbose: str, items: int | None) -> None:
    answer = (await client.request("GET", f"/v1.52/system/df?type=image&verbose={verbose}")).json
    assert set(answer) == {"ImageUsage"}
    found = answer["ImageUsage"].pop("Items", None)
    assert (found and len(found)) == items
    assert answer["ImageUsage"] == SUMS


async def test_logs_are_told_of_only_where_they_are_asked_for(client: Any) -> None:
    assert "LogUsage" not in (await client.request("GET", "/v1.51/system/df")).json
    answer = (await client.request("GET", "/v1.51/system/df?type=log")).json
    assert answer["LogUsage"]["Items"] == [
        {"Id": "f" * 64, "Name": "web", "Driver": "json-file", "Files": 1, "Size": 7}
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1.51/system/df?type=bogus", "unknown object type: bogus"),
        ("/v1.52/system/df?verbose=maybe", "invalid value for verbose: maybe"),
    ],
)
async def test_what_df_refuses(client: Any, path: str, message: str) -> None:
    answer = await client.request("GET", path)
    assert (answer.status, answer.json["message"]) == (400, message)


async def test_commit(client: Any) -> None:
    path = "/commit?container=web&repo=a&tag=1&comment=why&author=Me&changes=ENV+A%3D1&changes=CMD+x&pause=0"
    answer = await client.request("POST", path)
    assert (answer.status, answer.json) == (201, {"Id": "sha256:" + "7" * 64})
    [(_, options)] = client.engine.containers.calls
    assert str(options.pop("name")) == "docker.io/library/a:1"
    assert options == {
        "author": "Me", "comment": "why", "changes": ["ENV A=1", "CMD x"], "pause": False, "config": None
    }  # fmt: skip


async def test_commit_with_a_configuration(client: Any) -> None:
    await client.request("POST", "/commit?container=web", json_body={"Cmd": ["x"]})
    [(_, options)] = client.engine.containers.calls
    assert (options["name"], options["pause"], options["config"].cmd) == (None, True, ["x"])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/commit", 400, 'invalid name or ID supplied: ""'),
        ("/commit?container=nosuch", 404, "No such container: nosuch"),
        (
            "/commit?container=web&repo=A",
            400,
            "invalid reference format: repository name (library/A) must be lowercase",
        ),
    ],
)
async def test_what_commit_refuses(client: Any, path: str, status: int, message: str) -> None:
    answer = await client.request("POST", path)
    assert (answer.status, answer.json["message"]) == (status, message)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/volumes/prune", {"VolumesDeleted": [], "SpaceReclaimed": 0}),
        ("/networks/prune", {"NetworksDeleted": None}),
        ("/build/prune", {"CachesDeleted": None, "SpaceReclaimed": 0}),
    ],
)
async def test_there_is_nothing_to_prune_of_what_does_not_exist(client: Any, path: str, answer: dict[str, Any]) -> None:
    assert (await client.request("POST", path)).json == answer
    refused = await client.request("POST", f"{path}?filters=%7B%22bogus%22:%5B%22x%22%5D%7D")
    assert (refused.status, refused.json["message"]) == (400, "invalid filter 'bogus'")


@pytest.mark.parametrize(("version", "told"), [("1.45", 1), ("1.46", 2)])
async def test_images_made_here_are_told_of_since_1_46(client: Any, version: str, told: int) -> None:
    client.engine.events.image_too = True
    answer = await client.request("GET", f"/v{version}/events?until=1")
    assert len(answer.body.splitlines()) == told
