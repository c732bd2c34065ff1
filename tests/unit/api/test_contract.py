"""Every operation of the API contract is answered by something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pier.api.app import ROUTES
from pier.api.unimplemented import ONE_PLUGIN, SWARM, UNIMPLEMENTED

CONTRACT = Path(__file__).parents[4] / "shared/reference/engine-api-v1.55.yaml"
OUTSIDE_THE_CONTRACT = {
    "ContainerLinkDelete",
    "GRPC",
    "BuildCancel",
    "CheckpointList",
    "CheckpointCreate",
    "CheckpointDelete",
}
PIERS_OWN = {
    *("ContainerLogsTruncate", "DistributionTags", "DistributionManifest", "DistributionPushList"),
    *("VolumeArchiveInfo", "VolumeArchive", "PutVolumeArchive", "VolumeFiles", "VolumeClone"),
    *("BuildCacheExport", "BuildCacheImport", "BuildSsh", "BuildContext"),
}


def operations() -> set[tuple[str, str, str]]:
    """(method, path, operationId) of the contract, read by its indentation: it takes seconds as YAML."""
    found, path, method = set(), "", ""
    text = CONTRACT.read_text()
    for line in text[text.index("\npaths:") :].splitlines():
        if match := re.fullmatch(r'  "?(/[^"]*?)"?:', line):
            path = match[1]
        elif match := re.fullmatch(r"    (get|head|post|put|delete):", line):
            method = match[1].upper()
        elif match := re.fullmatch(r'      operationId: "?(\w+)"?', line):
            found.add((method, path, match[1]))
    return found


@pytest.mark.skipif(not CONTRACT.exists(), reason=f"the contract is not at {CONTRACT}")
def test_every_operation_is_routed_under_its_own_name() -> None:
    contract = operations()
    assert len(contract) == 108
    ours = {(route.method, route.path.replace("...", ""), route.operation) for route in ROUTES}
    assert contract - ours == set()
    assert {operation for _, _, operation in ours - contract} == OUTSIDE_THE_CONTRACT | PIERS_OWN


def test_no_operation_is_listed_twice() -> None:
    keys = [(route.method, route.path) for route in ROUTES]
    assert len(keys) == len(set(keys))


def test_the_lists_do_not_overlap() -> None:
    names = [name for _, _, name in (*UNIMPLEMENTED, *SWARM, *ONE_PLUGIN)]
    assert len(names) == len(set(names))
