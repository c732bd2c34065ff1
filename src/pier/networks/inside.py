"""Deeds in the network namespace of a container that runs (setns(2))."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from pier.kernel.namespaces import CLONE_NEWNET, setns

__all__ = ["run_inside"]

T = TypeVar("T")


def run_inside(netns_fd: int, deed: Callable[[], T]) -> T:
    """Do something in another network namespace; returns what `deed` returns, raises what it raises. Blocks.

    A thread is made for it that enters the namespace and ends there, so no thread of the daemon can be left in the
    wrong one. Sockets that `deed` makes stay in the namespace and may be used anywhere.
    """
    task = _Task(netns_fd, deed)
    thread = threading.Thread(target=task.run, name="inside", daemon=True)
    thread.start()
    thread.join()
    return task.result()


class _Task(Generic[T]):
    def __init__(self, netns_fd: int, deed: Callable[[], T]) -> None:
        self._netns_fd = netns_fd
        self._deed = deed
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            setns(self._netns_fd, CLONE_NEWNET)
            self._results.append(self._deed())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]
