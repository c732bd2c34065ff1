"""`pier login`: try an account at a registry, and keep it."""

from __future__ import annotations

import os
import sys

from pier.cli.auth import HUB, Accounts, server_key
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import complain, line, out
from pier.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] [SERVER]",
    flags=(
        Flag("list", "", "bool", "Show at which registries you are logged in, and as whom"),
        Flag("password", "p", "string", "Password or personal access token"),
        Flag("password-stdin", "", "bool", "Take the password from stdin"),
        Flag("username", "u", "string", "User name"),
    ),
    arity=(0, 1),
)
_MAX_SECRET = 64 << 10
_UNAUTHORIZED = 401


def run(cx: Context, opts: Options, args: list[str]) -> int:
    accounts = Accounts(cx.options)
    if opts["list"]:
        return show(accounts)
    check(opts)
    server = server_key(args[0] if args else "")
    account = typed(opts) if opts["username"] or opts["password"] else kept(cx, accounts, server)
    if account is None:
        account = asked(server, opts["username"])
    answer = try_account(cx, server, account)
    if answer.get("IdentityToken"):
        account = {"username": account.get("username", ""), "identitytoken": answer["IdentityToken"]}
    accounts.keep(server, account)
    if not accounts.helper(server):
        complain(
            f"\nWARNING! Your credentials are stored unencrypted in '{accounts.path}'.\n"
            'Configure a credential helper to remove this warning: "credsStore" in that file.\n'
        )
    line(answer.get("Status") or "Login Succeeded")
    return 0


def check(opts: Options) -> None:
    """Which flags go together, in Docker's words."""
    if opts["password"] and opts["password-stdin"]:
        raise Failure("conflicting options: cannot specify both --password and --password-stdin")
    if opts["password"]:
        complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if opts["password-stdin"] and not opts["username"]:
        raise Failure("the --password-stdin option requires --username to be set")
    if opts.given("username") and not opts["username"]:
        raise Failure("username is empty")


def typed(opts: Options) -> dict[str, str] | None:
    """The account on the command line, where it is whole."""
    if opts["password-stdin"]:
        secret = sys.stdin.buffer.read(_MAX_SECRET).decode("utf-8", "surrogateescape").rstrip("\r\n")
        if not secret:
            raise Failure("password is empty")
        return {"username": opts["username"], "password": secret}
    if opts["username"] and opts["password"]:
        return {"username": opts["username"], "password": opts["password"]}
    return None


def kept(cx: Context, accounts: Accounts, server: str) -> dict[str, str] | None:
    """The account that was kept, if it still works."""
    account = accounts.get(server)
    if not account:
        return None
    known = account.get("username", "")
    line(f"Authenticating with existing credentials...{f' [Username: {known}]' if known else ''}")
    try:
        try_account(cx, server, account)
    except ApiError as error:
        if error.code != _UNAUTHORIZED:
            raise
        complain("Login did not succeed, error: " + error.text)
        return None
    return account


def asked(server: str, user: str) -> dict[str, str]:
    """Ask on the terminal."""
    if not os.isatty(0):
        raise Failure("Error: Cannot perform an interactive login from a non TTY device")
    from getpass import getpass  # noqa: PLC0415 - only where somebody types

    if server == HUB and not user:
        line("Log in with your Docker ID to push and pull images from Docker Hub.")
    user = user or input("Username: ").strip()
    if not user:
        raise Failure("Error: username is required")
    secret = getpass("Password: ")
    if not secret:
        raise Failure("Error: password is required")
    return {"username": user, "password": secret}


def try_account(cx: Context, server: str, account: dict[str, str]) -> dict[str, str]:
    """POST /auth; ApiError where the registry does not take it."""
    answer = cx.client.post("/auth", body={**account, "serveraddress": server})
    return answer if isinstance(answer, dict) else {}


def show(accounts: Accounts) -> int:
    """Wish 3: where, as whom, and where that is kept; never a secret."""
    rows = [list(row) for row in accounts.listed()]
    out(table([["REGISTRY", "USERNAME", "KEPT IN"], *rows]))
    return 0
