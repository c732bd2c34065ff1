"""Paths to operations: what of a path is a name, and of which kinds."""

from __future__ import annotations

import pytest

from pier.api.networks import ROUTES
from pier.api.router import Router
from pier.api.volumes import ROUTES as VOLUMES
from pier.errors import NotFound

ROUTER = Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "operation", "name"),
    [
        ("GET", "/networks/a", "NetworkInspect", "a"),
        ("GET", "/networks/a%20b", "NetworkInspect", "a b"),
        ("GET", "/networks/a/b", "NetworkInspect", "a/b"),
        ("GET", "/networks/a%2Fb", "NetworkInspect", "a/b"),
        ("DELETE", "/networks/a%252Fb", "NetworkDelete", "a%2Fb"),
        ("POST", "/networks/a/connect", "NetworkConnect", "a"),
        ("POST", "/networks/a/connect/connect", "NetworkConnect", "a/connect"),
        ("POST", "/networks/a%3Fb/disconnect", "NetworkDisconnect", "a?b"),
    ],
)
def test_a_networks_name_is_what_stands_in_the_path(method: str, path: str, operation: str, name: str) -> None:
    found = ROUTER.match(method, path)
    assert found is not None
    assert (found[0].operation, found[1]) == (operation, {"id": name})


@pytest.mark.parametrize("path", ["/networks/../a", "/networks/a//b", "/networks/%2e%2e/a", "/networks/a%0Ab"])
def test_what_no_network_is_called_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match=r"network .* not found"):
        ROUTER.match("GET", path)


def test_what_no_volume_is_called_is_not_found() -> None:
    with pytest.raises(NotFound, match="get a b: no such volume"):
        Router(VOLUMES).match("DELETE", "/volumes/a%20b")


def test_making_one_is_no_name() -> None:
    found = ROUTER.match("POST", "/networks/create")
    assert found is not None
    assert found[0].operation == "NetworkCreate"
