from __future__ import annotations

import os
from pathlib import Path

import pytest

from pier.containers import timezone
from pier.containers.own_annotations import InvalidAnnotation, check
from pier.kernel.paths import closing
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig

SHANGHAI = HostConfig(annotations={"pier.timezone": "Asia/Shanghai"})


def zone_file(root: Path, name: str = "Asia/Shanghai") -> None:
    path = root / "usr/share/zoneinfo" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"TZif2")


@pytest.mark.parametrize(
    ("merged", "given", "expected"),
    [
        (["A=1", "TZ=UTC"], ["A=1"], ["A=1", "TZ=Asia/Shanghai"]),  # the image's gives way
        (["A=1", "TZ=UTC"], ["TZ=UTC"], ["A=1", "TZ=UTC"]),
        (None, None, ["TZ=Asia/Shanghai"]),
    ],
)
def test_tz(merged: list[str] | None, given: list[str] | None, expected: list[str]) -> None:
    config = ContainerConfig(env=merged)
    assert timezone.with_zone(config, SHANGHAI, given) == expected
    assert timezone.with_zone(config, HostConfig(), given) == merged


def missing(host: HostConfig, root: Path) -> str:
    with closing(os.open(root, os.O_PATH)) as tree:
        return timezone.missing_data(host, tree)


def test_data_of_the_image_is_left_alone(tmp_path: Path) -> None:
    zone_file(tmp_path)
    assert missing(SHANGHAI, tmp_path) == ""


def test_trap_09_missing_data_is_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, host = tmp_path / "image", tmp_path / "host"
    image.mkdir()
    zone_file(host)
    monkeypatch.setattr(timezone, "ZONEINFO", f"{host}/usr/share/zoneinfo")
    assert missing(HostConfig(), image) == ""
    assert missing(SHANGHAI, image) == f"{host}/usr/share/zoneinfo"
    with pytest.raises(timezone.NoZoneData, match="Middle/Earth"):
        missing(HostConfig(annotations={"pier.timezone": "Middle/Earth"}), image)


def test_a_link_in_the_image_does_not_lead_to_the_hosts_data(tmp_path: Path) -> None:
    """What the container would see counts: an absolute link stays below its root."""
    (tmp_path / "usr/share").mkdir(parents=True)
    (tmp_path / "usr/share/zoneinfo").symlink_to("/etc/zones")
    assert missing(SHANGHAI, tmp_path) == timezone.ZONEINFO
    (tmp_path / "etc/zones/Asia").mkdir(parents=True)
    (tmp_path / "etc/zones/Asia/Shanghai").write_bytes(b"TZif2")
    assert missing(SHANGHAI, tmp_path) == ""


@pytest.mark.parametrize("name", ["", "../../etc/shadow", "/etc/localtime", "Asia/../UTC", "A" * 80, "Asia//Tokyo"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidAnnotation):
        check({"pier.timezone": name})


@pytest.mark.parametrize("name", ["UTC", "Etc/GMT+8", "America/Argentina/Buenos_Aires", "Asia/Ust-Nera"])
def test_names(name: str) -> None:
    check({"pier.timezone": name})
