"""Folders that a client lends to one build."""

from __future__ import annotations

import pytest

from pier.builder.lending import Lending, LentAlready, source_of
from pier.builder.session import NoSuchContext
from pier.builder.tree import Folder


def test_a_folder_is_lent_to_one_build_until_it_is_taken_back() -> None:
    lending, folder = Lending(), Folder("/x", "k")
    lending.lend("b", "n", folder)
    assert lending.folders("b", ["n"]) == {source_of("n"): folder}
    with pytest.raises(LentAlready):
        lending.lend("b", "n", folder)
    with pytest.raises(NoSuchContext):
        lending.folders("other", ["n"])
    lending.take_back("b", "n")
    with pytest.raises(NoSuchContext):
        lending.folders("b", ["n"])
    lending.take_back("b", "n")
