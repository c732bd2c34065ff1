"""Deeds in the network namespace of a container that runs (setns(2))."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from pier.kernel.namespaces import CLONE_NEWNET, setns

__all__ = ["run_in_each", "run_inside"]

T = TypeVar("T")


def run_inside(netns_fd: int, deed: Callable[[], T]) -> T:
    """Do something in another network namespace; returns what `deed` returns, raises what it raises. Blocks.

    A thread is made for it that enters the namespace and ends there, so no thread of the daemon can be left in the
    wrong one. Sockets that `deed` makes stay in the namespace and may be used anywhere.
    """
    (result,) = run_in_each([netns_fd], deed)
    if isinstance(result, BaseException):
        raise result
    return result


def run_in_each(netns_fds: Sequence[int], deed: Callable[[], T]) -> list[T | BaseException]:
    """The same in several, one after the other, by one thread; an error is in the place of the result. Blocks."""
    results: list[T | BaseException] = []

    def work() -> None:
        for fd in netns_fds:
            try:
                setns(fd, CLONE_NEWNET)
                results.append(deed())
            except BaseException as error:
                results.append(error)

    thread = threading.Thread(target=work, name="inside", daemon=True)
    thread.start()
    thread.join()
    return results
