"""`pier build --ssh`: connections to ssh agents for the steps of a build, each carried over one of its own."""

from __future__ import annotations

import os
import socket
import stat
import threading

from pier.cli.errors import Failure, reason
from pier.cli.http import Client

READ_BYTES = 1 << 15


def parse_agents(texts: list[str]) -> dict[str, str]:
    """`default`, or `ID=SOCKET` -> path of the socket, by id. Failure in buildx's words."""
    found = {}
    for text in texts:
        id, _, path = text.partition("=")
        config = f"failed to convert agent config {{{id} [{path}] false}}"
        path = path or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise Failure(f"{config}: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError as error:
            words = f'{config}: failed to convert agent config for ID: "{id}": stat {path}: {reason(error)}'
            raise Failure(words) from None
        if not is_socket:
            raise Failure(f"{path} is no agent's socket: add the key to an agent (`ssh-add {path}`) and forward that")
        found[id] = path
    return found


def forward(client: Client, build: str, agents: dict[str, str]) -> None:
    """Keep a connection open for each agent, in threads that end with this process."""
    for id, path in agents.items():
        threading.Thread(target=_forward, args=(client, build, id, path), daemon=True).start()


def _forward(client: Client, build: str, id: str, path: str) -> None:
    """One connection after another: the next is opened when a step has taken one."""
    while True:
        try:
            own = Client(client.endpoint, client.version)
            line, first = own.request("POST", "/build/ssh", query={"buildid": build, "id": id}, upgrade=True).upgraded()
            first = first or line.recv(READ_BYTES)
            if not first:
                return
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            agent.connect(path)
            agent.sendall(first)
        except (OSError, Failure):
            return
        threading.Thread(target=_copy, args=(line, agent), daemon=True).start()
        threading.Thread(target=_copy, args=(agent, line), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(READ_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
