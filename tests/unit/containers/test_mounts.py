from __future__ import annotations

import os
from typing import Any

import pytest

from pier.containers import tmpfs_words
from pier.containers.spec_mounts import UserMount, default_mounts, parse_bind, parse_mount, user_mounts
from pier.errors import InvalidParameter, PierError
from pier.model.host_config import BindOptions, HostConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", ("/a", "/b", ("rbind", "rprivate"), "")),
        ("/a:/b:ro", ("/a", "/b", ("rbind", "rro", "rprivate"), "ro")),
        ("/a:/b:rw,z", ("/a", "/b", ("rbind", "rprivate"), "rw,z")),
        ("/a:/b:ro,rslave", ("/a", "/b", ("rbind", "rro", "rslave"), "ro,rslave")),
        ("/a/../c/:/b/./d//e", ("/c", "/b/d/e", ("rbind", "rprivate"), "")),
        ("/a:/../../b", ("/a", "/b", ("rbind", "rprivate"), "")),
        ("/a:/proc/cpuinfo", ("/a", "/proc/cpuinfo", ("rbind", "rprivate"), "")),
    ],
)
def test_parse_bind(text: str, expected: tuple[str, str, tuple[str, ...], str]) -> None:
    mount = parse_bind(text)
    assert (mount.source, mount.target, mount.options, mount.mode) == expected
    assert mount.create_source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "/tmp:/",
            "invalid volume specification: '/tmp:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "foo:bar",
            "invalid volume specification: 'foo:bar': invalid mount config for type \"volume\": "
            "invalid mount path: 'bar' mount path must be absolute",
        ),
        ("/a:/b:foo", "invalid mode: foo"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("/a:/b:cached,delegated", "invalid mode: cached,delegated"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:/proc", '"/proc" cannot be mounted because it is inside /proc'),
        ("/a:/x/../proc/sys", '"/proc/sys" cannot be mounted because it is inside /proc'),
    ],
)
def test_binds_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_bind(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("mount", "options"),
    [
        (Mount(type="bind", source="/a", target="/b"), ("rbind", "rprivate")),
        (Mount(type="bind", source="/a", target="/b", read_only=True), ("rbind", "rro", "rprivate")),
        (
            Mount(
                type="bind",
                source="/a",
                target="/b",
                read_only=True,
                bind_options=BindOptions(read_only_non_recursive=True, propagation="rslave"),
            ),
            ("rbind", "ro", "rslave"),
        ),
        (
            Mount(type="bind", source="/a", target="/b", bind_options=BindOptions(non_recursive=True)),
            ("bind", "rprivate"),
        ),
        (
            Mount(type="tmpfs", target="/b", tmpfs_options=TmpfsOptions(size_bytes=2_000_000, mode=0o770)),
            ("noexec", "nosuid", "nodev", "rprivate", "mode=770", "size=2000000"),
        ),
        (
            Mount(type="tmpfs", target="/b", tmpfs_options=TmpfsOptions(options=[["exec"], ["uid", "5"]])),
            ("nosuid", "nodev", "rprivate", "exec", "uid=5"),
        ),
    ],
)
def test_parse_mount(mount: Mount, options: tuple[str, ...]) -> None:
    assert parse_mount(mount).options == options


@pytest.mark.parametrize(
    ("mount", "error"),
    [
        (Mount(type="volume", source="data", target="/b", bind_options=BindOptions()), InvalidParameter),
        (Mount(type="volume", source="d", target="/b", volume_options=VolumeOptions(subpath="../x")), InvalidParameter),
        (Mount(type="volume", target="/b", volume_options=VolumeOptions(subpath="x")), InvalidParameter),
        (Mount(type="volume", target="/b", read_only=True), InvalidParameter),
        (Mount(type="image", target="/b"), InvalidParameter),
        (Mount(type="image", source="i", target="/b", bind_options=BindOptions()), InvalidParameter),
        (Mount(type="image", source="i", target="/b", image_options=ImageOptions(subpath="../x")), InvalidParameter),
        (Mount(type="image", source="i", target="/b", image_options=ImageOptions(subpath="/x")), InvalidParameter),
        (Mount(type="npipe", target="/b"), InvalidParameter),
        (Mount(type="bind", target="/b"), InvalidParameter),
        (Mount(type="bind", source="a", target="/b"), InvalidParameter),
        (Mount(type="bind", source="/a"), InvalidParameter),
        (Mount(type="bind", source="/a", target="/b", tmpfs_options=TmpfsOptions()), InvalidParameter),
        (Mount(type="tmpfs", source="/a", target="/b"), InvalidParameter),
    ],
)
def test_mounts_that_are_refused(mount: Mount, error: type[PierError]) -> None:
    with pytest.raises(error):
        parse_mount(mount)


def test_parents_come_first_and_targets_once() -> None:
    found = user_mounts(HostConfig(binds=["/1:/a/b/c", "/2:/a", "/3:/z/y"]))
    assert [mount.target for mount in found] == ["/a", "/z/y", "/a/b/c"]
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
        user_mounts(HostConfig(binds=["/tmp:/x"], tmpfs={"/x/": ""}))
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
        user_mounts(HostConfig(binds=["/tmp:/x"], mounts=[Mount(type="tmpfs", target="/x/")]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["noexec", "nosuid", "nodev"]),
        ("exec,size=1m,mode=700", ["nosuid", "nodev", "exec", "size=1m", "mode=700"]),
        ("size=1m,size=2m", ["noexec", "nosuid", "nodev", "size=2m"]),
        ("ro,rw", ["noexec", "nosuid", "nodev", "rw"]),
    ],
)
def test_tmpfs_options(text: str, expected: list[str]) -> None:
    assert tmpfs_words.put_over(["noexec", "nosuid", "nodev"], text) == expected


@pytest.mark.parametrize("text", ["bar", "bind", "remount", "huge=always", "size"])
def test_tmpfs_options_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid tmpfs option"):
        tmpfs_words.put_over([], text)


def test_point_shows_what_inspect_shows() -> None:
    point = UserMount("bind", "/tmp", "/x", ("rbind", "rro", "rprivate"), mode="ro").point()
    assert (point.source, point.destination, point.mode, point.rw, point.propagation) == (
        "/tmp",
        "/x",
        "ro",
        False,
        "rprivate",
    )


async def test_mounts_are_inherited_by_dockers_rules(house: Any) -> None:
    await house.create("donor", binds=["/tmp:/ro:ro", "/var:/rw"], mounts=[Mount(type="tmpfs", target="/mem")])

    async def seen(name: str, **host: Any) -> dict[str, tuple[str, bool]]:
        await house.create(name, **host)
        points = (await house.service.inspect(name, size=False)).mounts
        return {point.destination: (point.source, point.rw) for point in points}

    assert await seen("all", volumes_from=["donor"]) == {"/ro": ("/tmp", False), "/rw": ("/var", True)}
    assert await seen("less", volumes_from=["donor:ro"]) == {"/ro": ("/tmp", False), "/rw": ("/var", False)}
    assert await seen("more", volumes_from=["donor:rw"]) == {"/ro": ("/tmp", False), "/rw": ("/var", True)}
    own = await seen("own", volumes_from=["donor"], binds=["/usr:/ro"])
    assert own == {"/ro": ("/usr", True), "/rw": ("/var", True)}
    assert await seen("grandchild", volumes_from=["all"]) == {"/ro": ("/tmp", False), "/rw": ("/var", True)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "volumes-from specification cannot be an empty string"),
        ("nosuch", "No such container: nosuch"),
        ("donor:nocopy", "invalid mode: nocopy"),
        ("donor:shout", "invalid mode: shout"),
        ("a:b:c", "invalid mode: b:c"),
    ],
)
async def test_volumes_from_that_are_refused(house: Any, text: str, words: str) -> None:
    await house.create("donor")
    with pytest.raises(InvalidParameter, match=words):
        await house.create("web", volumes_from=[text])


async def test_an_images_tree_is_handed_over_as_a_detached_mount(house: Any) -> None:
    shown = Mount(type="image", source="bb", target="/img", image_options=ImageOptions(subpath="bin/."))
    await house.run("web", mounts=[shown])
    assert house.snapshots.mounted == [(house.images.known["bb"].layers, "bin")]
    (mount,) = [mount for mount in house.runtime.requests[0].spec["mounts"] if mount["destination"] == "/img"]
    assert mount["source"].startswith(f"/proc/{os.getpid()}/fd/")
    assert mount["options"] == ["rbind", "ro", "rprivate", "detached"]
    (point,) = (await house.service.inspect("web", size=False)).mounts
    assert (point.type, point.name, point.source, point.rw) == ("image", "bb", "", False)
    with pytest.raises(InvalidParameter, match="No such image: nosuch"):
        await house.create("other", mounts=[Mount(type="image", source="nosuch", target="/img")])


def test_cgroups_are_writable_when_asked() -> None:
    def cgroup(**options: Any) -> list[str]:
        mounts = default_mounts(shm_size=1, privileged=False, ipc_mode="", **options)
        return next(mount["options"] for mount in mounts if mount["type"] == "cgroup")

    assert "ro" in cgroup()
    assert "ro" not in cgroup(writable_cgroups=True)
