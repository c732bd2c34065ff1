"""The kernel's packet filter through libnftables (libnftables(3), nft(8)); never loaded into the zygote.

Commands are nft's own language. One `run` is one transaction: the kernel takes all of it or nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from pier.errors import PierError, Unavailable
from pier.kernel.namespaces import CLONE_NEWNET, setns

__all__ = ["Nftables", "NftablesError", "NftablesMissing"]

LIBRARY = "libnftables.so.1"
# nftables/libnftables.h
NFT_CTX_DEFAULT = 0
NFT_CTX_OUTPUT_JSON = 1 << 4
FD_SETSIZE = 1024
SEATS = 4
OWN_NETNS = "/proc/thread-self/ns/net"


class NftablesError(PierError):
    """nftables: {reason}"""

    # The field `text` has all that libnftables said, with the command and a mark under the culprit.


class NftablesMissing(Unavailable):
    """nftables cannot be used: {reason}"""

    remedy = "install the package libnftables1; the kernel must have nf_tables"


def load_library() -> ctypes.CDLL:
    """libnftables with its signatures declared; raises NftablesMissing."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NftablesMissing(reason=str(error)) from None
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.restype = None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def first_line(errors: str) -> str:
    """libnftables' own words without its `Error: `."""
    return errors.strip().partition("\n")[0].removeprefix("Error: ") or "refused without a reason"


class Seats:
    """Low descriptor numbers, kept for libnftables' socket.

    The library waits for the kernel by select(2), which knows no descriptor from FD_SETSIZE on: one that a daemon with
    a thousand published ports opens would end the whole process. A few, since other threads open files meanwhile.
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self.take()

    def take(self) -> None:
        """Hold the lowest numbers that are free, as long as they are low enough."""
        with open(os.devnull) as any_file:
            while len(self._held) < SEATS:
                number = fcntl.fcntl(any_file, fcntl.F_DUPFD_CLOEXEC, 0)
                if number >= FD_SETSIZE:
                    os.close(number)
                    return
                self._held.append(number)

    @contextlib.contextmanager
    def free(self) -> Iterator[None]:
        """Let go of them, for what is opened now. Raises NftablesError where there is none."""
        self.take()
        if not self._held:
            raise NftablesError(
                reason=f"more than {FD_SETSIZE} files are open, which libnftables cannot do with", text=""
            )
        self.give_up()
        try:
            yield
        finally:
            self.take()

    def give_up(self) -> None:
        while self._held:
            os.close(self._held.pop())


class Nftables:
    """The rules of the network namespace that the making thread is in. Blocking; calls from several threads queue."""

    def __init__(self) -> None:
        """Raises NftablesMissing without the library."""
        self._library = load_library()
        self._lock = threading.Lock()
        self._seats = Seats()
        self._context: int | None = self._new_context()
        self._netns: int | None = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)

    def _new_context(self) -> int:
        """A context of the library's, whose socket is in the network namespace of this thread."""
        with self._seats.free():
            context: int | None = self._library.nft_ctx_new(NFT_CTX_DEFAULT)
        if not context:
            raise NftablesMissing(reason="libnftables could not start")
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)
        return context

    def run(self, commands: str) -> str:
        """Do `commands`, all or none; returns what they print. Raises NftablesError with libnftables' own words."""
        return self._run(commands, 0)

    def list(self, what: str) -> list[dict[str, Any]]:
        """`nft --json list WHAT`: the objects as libnftables-json(5) describes them, its header left out."""
        answer = json.loads(self._run(f"list {what}", NFT_CTX_OUTPUT_JSON))
        return [item for item in answer["nftables"] if "metainfo" not in item]

    def rest(self) -> None:
        """Let go of what the library keeps of the rules, 3 MB even for few; the next call takes milliseconds more."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
                self._seats.take()

    def close(self) -> None:
        self.rest()
        with self._lock:
            self._seats.give_up()
            if self._netns is not None:
                os.close(self._netns)
                self._netns = None

    def _run(self, commands: str, output_flags: int) -> str:
        with self._lock:
            if self._netns is None:
                raise NftablesError(reason="closed", text="")
            if not self._context:
                with _inside(self._netns):
                    self._context = self._new_context()
            self._library.nft_ctx_output_set_flags(self._context, output_flags)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Reading a buffer empties it: both are read every time, so that nothing is left for the next caller.
            output = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
            errors = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        if failed:
            raise NftablesError(reason=first_line(errors), text=errors)
        return str(output)


@contextlib.contextmanager
def _inside(netns: int) -> Iterator[None]:
    """This thread is in that network namespace meanwhile."""
    own = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        elsewhere = os.fstat(own).st_ino != os.fstat(netns).st_ino
        if elsewhere:
            setns(netns, CLONE_NEWNET)
        try:
            yield
        finally:
            if elsewhere:
                setns(own, CLONE_NEWNET)
    finally:
        os.close(own)
