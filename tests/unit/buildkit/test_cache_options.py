"""Which caches elsewhere a client's request names, and what is said of those that are not used."""

from __future__ import annotations

import json

from pier.buildkit.control import cache_exports, cache_imports, unused_caches
from pier.buildkit.pb import control_pb2 as control


def entry(kind: str, **attrs: str) -> control.CacheOptionsEntry:
    return control.CacheOptionsEntry(type=kind, attrs=attrs)


def test_caches_at_registries_are_used_and_others_warned_of() -> None:
    listed = json.dumps([{"Type": "registry", "Attrs": {"ref": "r/c:1"}}, {"Type": "gha", "Attrs": {}}])
    request = control.SolveRequest(
        cache=control.CacheOptions(
            imports=[entry("registry", ref="r/a:1"), entry("local", src="/x")],
            exports=[entry("registry", ref="r/b:1"), entry("inline")],
            import_refs_deprecated=["r/a:1"],
        ),
        frontend_attrs={"cache-imports": listed},
    )
    assert cache_imports(request) == ["r/a:1", "r/c:1"]
    assert cache_exports(request) == ["r/b:1"]
    assert unused_caches(request) == [
        "the cache is not imported from local: only this builder's own is used",
        "the cache is not imported from gha: only this builder's own is used",
        "the cache is not exported to inline",
    ]


def test_a_list_that_cannot_be_read_names_no_cache() -> None:
    for listed in ("{", "[1]", '[{"Type": "gha"}, {"Type": "registry", "Attrs": 7}]'):
        request = control.SolveRequest(frontend_attrs={"cache-imports": listed})
        assert (cache_imports(request), unused_caches(request)) == ([], [])
