"""Which caches elsewhere a client's request names."""

from __future__ import annotations

import json

from pier.buildkit.caching import exports_of, imports_of
from pier.buildkit.pb import control_pb2 as control


def entry(kind: str, **attrs: str) -> control.CacheOptionsEntry:
    return control.CacheOptionsEntry(type=kind, attrs=attrs)


def test_all_places_of_a_request() -> None:
    listed = json.dumps([{"Type": "registry", "Attrs": {"ref": "r/c:1"}}, {"Type": "gha", "Attrs": {}}])
    request = control.SolveRequest(
        cache=control.CacheOptions(
            imports=[entry("registry", ref="r/a:1"), entry("local", src="/x")],
            exports=[entry("registry", ref="r/b:1", mode="max"), entry("inline")],
            import_refs_deprecated=["r/a:1"],
            export_ref_deprecated="r/d:1",
        ),
        frontend_attrs={"cache-imports": listed},
    )
    assert [each.name for each in imports_of(request)] == ["r/a:1", "local:/x", "r/c:1", "gha"]
    found = [(each.kind, each.where, each.everything) for each in exports_of(request)]
    assert found == [("registry", "r/b:1", True), ("inline", "", False), ("registry", "r/d:1", False)]


def test_a_list_that_cannot_be_read_names_no_cache() -> None:
    for listed in ("{", "[1]", '[{"Type": "gha"}, {"Type": "registry", "Attrs": 7}]'):
        request = control.SolveRequest(frontend_attrs={"cache-imports": listed})
        assert imports_of(request) == []
