from __future__ import annotations

import pytest

from pier.containers.spec_mounts import UserMount, parse_bind, parse_mount, tmpfs_options, user_mounts
from pier.errors import InvalidParameter, NotImplementedYet, PierError
from pier.model.host_config import BindOptions, HostConfig, Mount, TmpfsOptions


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
        (Mount(type="volume", source="data", target="/b"), NotImplementedYet),
        (Mount(type="volume", target="/b"), NotImplementedYet),
        (Mount(type="image", source="i", target="/b"), NotImplementedYet),
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
    assert tmpfs_options(["noexec", "nosuid", "nodev"], text) == expected


@pytest.mark.parametrize("text", ["bar", "bind", "remount", "huge=always", "size"])
def test_tmpfs_options_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid tmpfs option"):
        tmpfs_options([], text)


def test_point_shows_what_inspect_shows() -> None:
    point = UserMount("bind", "/tmp", "/x", ("rbind", "rro", "rprivate"), mode="ro").point()
    assert (point.source, point.destination, point.mode, point.rw, point.propagation) == (
        "/tmp",
        "/x",
        "ro",
        False,
        "rprivate",
    )
