from __future__ import annotations

import os
import socket

from pier.api.server import Peer


def test_attack_22_the_peer_of_a_socket_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Peer.of(ours) == (os.getpid(), os.getuid(), os.getgid())
