"""Networks over HTTP: routes, answers of several versions, what of a request an older version did not have."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(("version", "has_status"), [("1.51", False), ("1.52", True)])
async def test_addresses_are_counted_since_1_52(client: Any, version: str, has_status: bool) -> None:
    answer = (await client.request("GET", f"/v{version}/networks/web_net?verbose=1")).json
    assert (answer["Name"], answer["Containers"], "Status" in answer) == ("web_net", {}, has_status)


@pytest.mark.parametrize(("version", "has_containers"), [("1.51", True), ("1.52", False)])
async def test_the_list_had_an_empty_map_of_containers(client: Any, version: str, has_containers: bool) -> None:
    (answer,) = (await client.request("GET", f"/v{version}/networks")).json
    assert answer.get("Containers", None) == ({} if has_containers else None)
    assert answer["IPAM"] == {"Driver": "default", "Options": None, "Config": None}


async def test_what_is_asked_reaches_the_service(client: Any) -> None:
    body = {"Name": "n", "EnableIPv4": False, "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}
    made = await client.request("POST", "/v1.51/networks/create", json_body=body)
    assert (made.status, made.json) == (201, {"Id": "a" * 64, "Warning": ""})
    await client.request("POST", "/v1.47/networks/create", json_body=body)
    (_, new), (_, old) = client.engine.networks.calls
    assert (new.enable_ipv4, new.enable_ipv6, new.ipam.config[0].subnet) == (False, True, "fd00::/64")
    assert old.enable_ipv4 is None


async def test_connect_and_disconnect(client: Any) -> None:
    body = {"Container": "web", "EndpointConfig": {"Aliases": ["x"], "GwPriority": 2}}
    assert (await client.request("POST", "/networks/n/connect", json_body=body)).status == 200
    assert (await client.request("POST", "/networks/n/disconnect", json_body={"Container": "web"})).status == 200
    (join, (network, asked)), (leave, _) = client.engine.containers.calls
    assert (join, leave, network) == ("join", "leave", "n")
    assert (asked.endpoint_config.aliases, asked.endpoint_config.gw_priority) == (["x"], 2)
    missing = await client.request("POST", "/networks/n/connect", json_body={"Container": "nobody"})
    assert (missing.status, missing.json["message"]) == (404, "No such container: nobody")


@pytest.mark.parametrize("name", ["nowhere", "..%2fx", "a%20b", "x%00"])
async def test_attack_17_what_is_no_networks_name(client: Any, name: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/connect"), ("POST", "/disconnect")):
        answer = await client.request(method, f"/networks/{name}{path}", json_body={} if method == "POST" else None)
        assert answer.status == 404, (method, path, answer)


@pytest.mark.parametrize(("version", "status"), [("1.43", 400), ("1.44", 201)])
async def test_several_networks_at_once_came_with_1_44(client: Any, version: str, status: int) -> None:
    body = {"Image": "bb", "NetworkingConfig": {"EndpointsConfig": {"b": {}, "a": {}}}}
    answer = await client.request("POST", f"/v{version}/containers/create", json_body=body)
    assert answer.status == status
    if status == 400:
        assert answer.json["message"] == "Container cannot be created with multiple network endpoints: a, b"
