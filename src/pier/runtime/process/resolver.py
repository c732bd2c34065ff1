"""The sockets of a container's name server, 127.0.0.11:53, made in its network namespace and served by the daemon.

They are bound to another port: on 53 of whatever address they would keep a server of the container's own from binding
0.0.0.0:53. Two rules for each protocol lead from 53 to that port and back, without connection tracking: on the way in
as the last thing before a socket is looked for, on the way out as the first thing after it. So all else that looks at
the packets (filters, translations and connection tracking of the container's own) sees port 53.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from pier.kernel import nfnetlink
from pier.kernel.links import LOOPBACK_IFINDEX
from pier.kernel.nfnetlink import Filter, header_is, meta_is, set_transport
from pier.kernel.nlmsg import U32

ADDRESS = "127.0.0.11"
TABLE = "pier-resolver"
PORT = 53
LOOPBACK = "lo"
BACKLOG = 128
ATTEMPTS = 16
"""TCP gets a free port, UDP has to get the same one."""
BEFORE_SOCKETS, AFTER_SOCKETS = 2**31 - 2, -(2**31)
"""Priorities: last on the way in but for the confirmation of connection tracking, first on the way out."""

IP_SOURCE, IP_DESTINATION = 12, 16
SOURCE_PORT, DESTINATION_PORT = 0, 2
CHECKSUMS = {socket.IPPROTO_UDP: 6, socket.IPPROTO_TCP: 16}
"""Where a protocol has its checksum."""
PLACEHOLDER = b"\xfa\xce"


class Sockets(NamedTuple):
    """What the daemon serves."""

    udp: socket.socket
    tcp: socket.socket
    """It listens."""
    warning: str
    """What a user should know; mostly empty."""

    def filenos(self) -> list[int]:
        return [self.udp.fileno(), self.tcp.fileno()]

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def rules(port: bytes, *, afresh: bool = False) -> bytes:
    """The batch that leads 127.0.0.11:53 to `port` (network byte order), `afresh` where an earlier one does already."""
    table = Filter(TABLE, afresh=afresh)
    table.chain("in", nfnetlink.NF_INET_LOCAL_IN, BEFORE_SOCKETS)
    table.chain("out", nfnetlink.NF_INET_LOCAL_OUT, AFTER_SOCKETS)
    address, known = socket.inet_aton(ADDRESS), struct.pack("!H", PORT)
    transport, network = nfnetlink.NFT_PAYLOAD_TRANSPORT_HEADER, nfnetlink.NFT_PAYLOAD_NETWORK_HEADER
    for protocol, checksum in CHECKSUMS.items():
        kind = meta_is(nfnetlink.NFT_META_L4PROTO, bytes([protocol]))
        table.rule(
            "in",
            meta_is(nfnetlink.NFT_META_IIF, U32.pack(LOOPBACK_IFINDEX)),
            header_is(network, IP_DESTINATION, address),
            kind,
            header_is(transport, DESTINATION_PORT, known),
            set_transport(DESTINATION_PORT, port, checksum=checksum),
        )
        table.rule(
            "out",
            header_is(network, IP_SOURCE, address),
            kind,
            header_is(transport, SOURCE_PORT, port),
            set_transport(SOURCE_PORT, known, checksum=checksum),
        )
    return table.batch()


TEMPLATE = rules(PLACEHOLDER)
"""Made once, in the zygote: a start fills in the port."""


def open_sockets() -> Sockets:
    """Make the sockets and rules in this thread's network namespace, whose loopback is up.

    Where the kernel has no nf_tables they are bound to port 53 itself, with a warning. Raises OSError.
    """
    tcp, udp = bind_pair(0)
    try:
        lead_to(struct.pack("!H", tcp.getsockname()[1]))
    except OSError as error:
        tcp.close()
        udp.close()
        tcp, udp = bind_pair(PORT)
        return Sockets(udp, tcp, f"{error}; a server of the container's own cannot bind port {PORT}")
    return Sockets(udp, tcp, "")


def lead_to(port: bytes) -> None:
    what = f"lead {ADDRESS}:{PORT} to the name server"
    try:
        nfnetlink.commit(TEMPLATE.replace(PLACEHOLDER, port), what)
    except FileExistsError:  # of a name server whose sockets nobody has kept
        nfnetlink.commit(rules(port, afresh=True), what)


def bind_pair(port: int) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket on the same port, 0 for any that is free. Raises OSError."""
    for _ in range(ATTEMPTS):
        tcp = bound(socket.SOCK_STREAM, port)
        tcp.listen(BACKLOG)
        try:
            return tcp, bound(socket.SOCK_DGRAM, tcp.getsockname()[1])
        except OSError as error:
            tcp.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no port of {ADDRESS} is free for both UDP and TCP")


def bound(kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    try:
        # With `route_localnet` a neighbour could reach it otherwise.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LOOPBACK.encode())
        sock.bind((ADDRESS, port))
    except BaseException:
        sock.close()
        raise
    return sock
