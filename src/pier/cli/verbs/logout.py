"""`pier logout`: forget the account at a registry."""

from __future__ import annotations

from pier.cli.auth import Accounts, server_key
from pier.cli.flags import Command
from pier.cli.out import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("[SERVER]", arity=(0, 1))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    server = server_key(args[0] if args else "")
    line(f"Removing login credentials for {server}")
    Accounts(cx.options).forget(server)
    return 0
