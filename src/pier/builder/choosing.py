"""Which files of a tree are chosen by include and exclude patterns, those of LLB's copies and local sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pier.builder.patterns import PatternMatcher

Wanted = Callable[[str, bool], bool]
"""(path below the root, is it a directory) -> is it chosen; of a directory that is not, parts may be."""


def chooser(include: Sequence[str], exclude: Sequence[str]) -> Wanted | None:
    """None: everything is chosen. Raises BadPattern."""
    if not include and not exclude:
        return None
    taken, left = PatternMatcher(include), PatternMatcher(exclude)

    def wanted(path: str, _is_dir: bool) -> bool:
        return (not taken or taken.matches(path)) and not (left and left.matches(path))

    return wanted
