"""libnftables through ctypes, in a network namespace of the test's own."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netlab import machines
from pier.kernel import nftables
from pier.kernel.nftables import FD_SETSIZE, Nftables, NftablesError, NftablesMissing

pytestmark = pytest.mark.root


@pytest.fixture
def nft() -> Iterator[Nftables]:
    with machines(1) as (host,):
        made = host.run(Nftables)
        yield made
        made.close()


def test_run_returns_what_is_printed(nft: Nftables) -> None:
    assert nft.run("add table inet t") == ""
    assert nft.run("list tables") == "table inet t\n"


def test_list_answers_objects(nft: Nftables) -> None:
    nft.run("add table inet t; add chain inet t c { type filter hook forward priority 0; policy drop; }")
    chain = next(item["chain"] for item in nft.list("chains") if "chain" in item)
    assert (chain["table"], chain["name"], chain["policy"]) == ("t", "c", "drop")
    assert nft.run("list tables") == "table inet t\n"  # text again after JSON


def test_a_refusal_has_libnftables_words_and_changes_nothing(nft: Nftables) -> None:
    with pytest.raises(NftablesError, match="No such file or directory") as refused:
        nft.run("add table inet t\nadd rule inet t nowhere accept")
    assert "\n" not in str(refused.value)
    assert "^^^" in str(refused.value.fields["text"])
    assert nft.run("list tables") == ""


def test_a_syntax_error_says_where(nft: Nftables) -> None:
    with pytest.raises(NftablesError, match="syntax error"):
        nft.run("frobnicate {")
    assert nft.run("list tables") == ""  # the error text was not kept for the next


def test_threads_do_not_mix_their_answers(nft: Nftables) -> None:
    nft.run("add table inet t; add map inet t m { type inet_service : ipv4_addr; }")
    failures: list[BaseException] = []

    def add(first: int) -> None:
        try:
            for port in range(first, first + 50):
                nft.run(f"add element inet t m {{ {port} : 10.0.0.1 }}")
                nft.list("tables")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(first,)) for first in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    listed = next(item["map"] for item in nft.list("map inet t m") if "map" in item)
    assert len(listed["elem"]) == 200


def test_after_a_rest_it_is_in_the_same_network_namespace(nft: Nftables) -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    nft.run("add table inet t")
    nft.rest()
    nft.rest()
    assert nft.run("list tables") == "table inet t\n"
    assert os.readlink("/proc/thread-self/ns/net") == own


def test_closed(nft: Nftables) -> None:
    nft.close()
    nft.close()
    with pytest.raises(NftablesError, match="closed"):
        nft.run("list tables")


def test_without_the_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "LIBRARY", "libnftables-that-is-not-there.so.1")
    with pytest.raises(NftablesMissing, match="install the package libnftables1"):
        Nftables()


@contextmanager
def many_files() -> Iterator[None]:
    """No descriptor below FD_SETSIZE is free."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    more: list[int] = []
    try:
        with open(os.devnull) as any_file:
            while not more or more[-1] < FD_SETSIZE:
                more.append(os.dup(any_file.fileno()))
        yield
    finally:
        for number in more:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_with_thousands_of_open_files_is_not_ended_by_the_librarys_select(nft: Nftables) -> None:
    nft.rest()
    with many_files():
        nft.run("add table inet t")
        nft.rest()
        assert nft.run("list tables") == "table inet t\n"


def test_no_low_descriptor_left_is_a_refusal() -> None:
    with many_files(), pytest.raises(NftablesError, match="more than 1024 files are open"):
        Nftables()
