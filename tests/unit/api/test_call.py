"""Answers: a list's items are written as each would be alone, whatever was written before."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pier.api.call import Call
from pier.api.versions import Version
from pier.model.container import ContainerSummary, HostConfigSummary, PortSummary
from pier.model.network import EndpointSettings, NetworkSettingsSummary

OPERATION = "ContainerList"


def call(version: Version) -> Call:
    nothing: Any = None
    return Call(nothing, nothing, version, OPERATION, "", {}, nothing, {})


def summary(**changes: Any) -> ContainerSummary:
    fields: dict[str, Any] = {
        "id": "a" * 64,
        "names": ["/web"],
        "image": "busybox",
        "image_id": "sha256:" + "b" * 64,
        "command": "sleep '1 d'",
        "created": 5,
        "ports": [PortSummary(private_port=80, type="tcp")],
        "labels": {"a": "1"},
        "state": "running",
        "status": "Up 2 minutes",
        "host_config": HostConfigSummary(network_mode="bridge"),
        "network_settings": NetworkSettingsSummary(
            networks={"bridge": EndpointSettings(mac_address="02:42:00:00:00:01")}
        ),
        "mounts": [],
    }
    return ContainerSummary(**fields | changes)


@pytest.mark.parametrize("version", [(1, 24), (1, 43), (1, 55)])
def test_a_list_is_what_its_items_are(version: Version) -> None:
    items = [summary(), summary(names=["/db"], labels={}, ports=[])]
    alone = cast(bytes, call(version).answer(items).body)
    for _ in range(2):
        assert call(version).answer_list(items).body == alone
    assert call(version).answer_list([]).body == b"[]\n"


def test_what_changes_in_place_is_written_anew() -> None:
    item = summary()
    before = call((1, 55)).answer_list([item]).body
    item.labels["a"] = "2"
    item.network_settings.networks["bridge"].mac_address = "02:42:00:00:00:02"
    after = call((1, 55)).answer_list([item]).body
    assert after != before
    assert after == call((1, 55)).answer([item]).body
