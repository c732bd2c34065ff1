from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pier.containers import cdi
from pier.errors import NotImplementedYet
from pier.model.host_config import DeviceRequest

SPEC: dict[str, Any] = {
    "process": {"env": ["PATH=/bin", "MODE=old"]},
    "linux": {"devices": [], "resources": {"devices": [{"allow": False, "access": "rwm"}]}},
    "mounts": [],
}


def write(folder: Path, name: str, kind: str, devices: dict[str, Any], **edits: Any) -> None:
    made = [{"name": device, "containerEdits": found} for device, found in devices.items()]
    text = {"cdiVersion": "0.6.0", "kind": kind, "devices": made, "containerEdits": edits}
    (folder / name).write_text(json.dumps(text))


def injected(folder: Path, *names: str, foreign: bool = False) -> dict[str, Any]:
    return cdi.inject(SPEC, cdi.edits_for(names, [str(folder)]), foreign=foreign)


def test_edits_of_the_kind_and_of_the_device(tmp_path: Path) -> None:
    node = {"path": "/dev/seen", "hostPath": "/dev/null", "permissions": "rw"}
    mount = {"hostPath": "/usr/lib/x.so", "containerPath": "/usr/lib/x.so", "options": ["ro", "nosuid"]}
    one = {"env": ["ONE=1", "MODE=new"], "deviceNodes": [node], "mounts": [mount], "additionalGids": [44]}
    write(tmp_path, "a.json", "v.io/dev", {"one": one, "two": {"env": ["TWO=2"]}}, env=["ALL=x"])
    edits = cdi.edits_for(["v.io/dev=one", "v.io/dev=two", "v.io/dev=one"], [str(tmp_path)])
    assert cdi.groups(edits) == ["44"]
    spec = cdi.inject(SPEC, edits, foreign=False)
    assert spec["process"]["env"] == ["PATH=/bin", "ALL=x", "ONE=1", "MODE=new", "TWO=2"]
    (device,) = spec["linux"]["devices"]
    assert (device["path"], device["type"], device["major"], device["minor"]) == ("/dev/seen", "c", 1, 3)
    rule = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    assert spec["linux"]["resources"]["devices"][-1] == rule
    assert spec["mounts"] == [
        {
            "destination": "/usr/lib/x.so",
            "type": "bind",
            "source": "/usr/lib/x.so",
            "options": ["bind", "ro", "nosuid"],
        }
    ]
    assert SPEC["linux"]["devices"] == [], "what was given is left as it was"


def test_a_later_folder_wins(tmp_path: Path) -> None:
    for folder, value in (("etc", "A=etc"), ("run", "A=run")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "x.json", "v.io/dev", {"one": {"env": [value]}})
    edits = cdi.edits_for(["v.io/dev=one"], [f"{tmp_path}/etc", f"{tmp_path}/run", f"{tmp_path}/nosuch"])
    assert [item.env for item in edits] == [[], ["A=run"]]


def test_what_cannot_be_found_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text("cdiVersion: 0.5.0\n")
    (tmp_path / "torn.json").write_text('{"cdiVersion": "0.6')
    with pytest.raises(cdi.Unresolvable) as caught:
        cdi.edits_for(["v.io/dev=one"], [str(tmp_path)])
    assert caught.value.message == "CDI device injection failed: unresolvable CDI devices v.io/dev=one"
    assert "nvidia.yaml is YAML" in caught.value.wire
    assert "torn.json" in caught.value.wire


@pytest.mark.parametrize(
    ("edits", "error", "words"),
    [
        ({"deviceNodes": [{"path": "/dev/nosuch"}]}, cdi.CannotInject, "no such file"),
        ({"deviceNodes": [{"path": "/x", "hostPath": "/etc/passwd"}]}, cdi.CannotInject, "not a device node"),
        ({"deviceNodes": [{"path": "/dev/null", "permissions": "q"}]}, cdi.CannotInject, "invalid permissions"),
        ({"hooks": [{"hookName": "createContainer", "path": "/bin/x"}]}, NotImplementedYet, "createContainer"),
        ({"intelRdt": {"closID": "x"}}, NotImplementedYet, "intelRdt"),
        ({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, NotImplementedYet, "netDevices"),
    ],
)
def test_refused(tmp_path: Path, edits: dict[str, Any], error: type[Exception], words: str) -> None:
    write(tmp_path, "a.json", "v.io/dev", {"one": edits})
    with pytest.raises(error, match=words):
        injected(tmp_path, "v.io/dev=one")


def test_hooks_are_another_runtimes(tmp_path: Path) -> None:
    hook = {"hookName": "createContainer", "path": "/usr/bin/x", "args": ["x", "ldconfig"], "timeout": 3}
    write(tmp_path, "a.json", "v.io/dev", {"one": {"hooks": [hook]}})
    spec = injected(tmp_path, "v.io/dev=one", foreign=True)
    assert spec["hooks"] == {"createContainer": [{"path": "/usr/bin/x", "args": ["x", "ldconfig"], "timeout": 3}]}


async def test_a_container_with_a_described_device(house: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cdi"
    folder.mkdir()
    write(folder, "a.json", "v.io/dev", {"one": {"env": ["ONE=1"], "additionalGids": [7]}})
    object.__setattr__(house.config, "cdi_spec_dirs", (str(folder),))
    await house.run(device_requests=[DeviceRequest(driver="cdi", device_ids=["v.io/dev=one"])])
    assert "ONE=1" in house.runtime.requests[0].spec["process"]["env"]
    assert house.runtime.requests[0].group_add == ["7"]
    os.unlink(folder / "a.json")
    await house.create("other", device_requests=[DeviceRequest(driver="cdi", device_ids=["v.io/dev=one"])])
    with pytest.raises(cdi.Unresolvable):
        await house.service.start_container("other")
