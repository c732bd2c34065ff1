"""What others change in an nftables table, as the kernel tells it (nfnetlink's group NFNLGRP_NFTABLES).

Every transaction is told message by message; the one that ends it, NEWGEN, says which thread did it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from pier.kernel.nfelements import NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM, NFTA_SET_ELEM_LIST_SET
from pier.kernel.nfnetlink import (
    NETLINK_NETFILTER,
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFTA_TABLE_NAME,
    kind_of,
)
from pier.kernel.nlmsg import NLM_F_ACK, Channel, attributes, messages

__all__ = ["TableWatch", "own_task"]

NFNLGRP_NFTABLES = 7
NFT_MSG_DELCHAIN, NFT_MSG_DELRULE = 5, 8
NFT_MSG_NEWGEN, NFT_MSG_GETGEN = 15, 16
FAR_REACHING = (NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE)
NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME = 2, 3
NFNETLINK_BYTES = 1 << 16
RECEIVE_BUFFER_BYTES = 4 << 20
SO_RCVBUFFORCE = 33
U32 = struct.Struct("!I")


def own_task() -> int:
    """The calling thread as NEWGEN names it: by its id in the first pid namespace. Raises OSError."""
    with Channel(NETLINK_NETFILTER) as channel:
        body = NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)
        for payload in channel.exchange(kind_of(NFT_MSG_GETGEN), NLM_F_ACK, body, "ask nf_tables"):
            return task_of(payload)
    raise OSError(errno.EPROTO, "ask nf_tables: an answer without a generation")


def task_of(payload: memoryview) -> int:
    """The thread that a NEWGEN names."""
    found = attributes(payload[NFGENMSG.size :]).get(NFTA_GEN_PROC_PID)
    return int(U32.unpack(found)[0]) if found is not None else 0


def process_of(payload: memoryview) -> str:
    """Whose change a NEWGEN tells of, for people: `nft, pid 12`; empty where it does not say."""
    found = attributes(payload[NFGENMSG.size :])
    name = bytes(found.get(NFTA_GEN_PROC_NAME, b"")).rstrip(b"\0").decode(errors="replace")
    return f"{name}, pid {task_of(payload)}" if name else ""


class TableWatch:
    """Says which tables anybody but `tasks` has changed, in the network namespace of the making thread.

    Of one table every change counts; of the others what makes or removes chains or removes rules.
    """

    def __init__(self, table: str, tasks: set[int], shared: Iterable[str] = ()) -> None:
        """`table` without its family; the elements of `shared` sets are others' to change as well. Raises OSError."""
        self._table = table.encode()
        self._shared = {name.encode() for name in shared}
        self._tasks = tasks
        self._touched: set[str] = set()
        self.changed_by = ""
        """Who made the last of the changes that `changed` told of, as `process_of` says it."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def changed(self) -> set[str]:
        """Read what there is, without waiting; the names of tables that another has changed, or may have."""
        found: set[str] = set()
        while True:
            try:
                data, _, _, sender = self._socket.recvmsg(NFNETLINK_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # more was told than there was room for
                    return {*found, self._table.decode()}
                raise
            if sender[0] == 0:
                found |= self._read(memoryview(data))

    def _read(self, data: memoryview) -> set[str]:
        found: set[str] = set()
        for kind, _, _, payload in messages(data):
            if kind >> 8 != NFNL_SUBSYS_NFTABLES:
                continue
            if kind & 0xFF == NFT_MSG_NEWGEN:
                if self._touched and task_of(payload) not in self._tasks:
                    found |= self._touched
                    self.changed_by = process_of(payload)
                self._touched = set()
            else:
                self._note(kind & 0xFF, payload)
        return found

    def _note(self, kind: int, payload: memoryview) -> None:
        found = attributes(payload[NFGENMSG.size :])
        table, name = (bytes(found.get(key, b"")).rstrip(b"\0") for key in (NFTA_TABLE_NAME, NFTA_SET_ELEM_LIST_SET))
        elements = kind in (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM)
        if kind in FAR_REACHING or (table == self._table and not (elements and name in self._shared)):
            self._touched.add(table.decode(errors="replace"))
