"""Accounts at registries: in the client's configuration file, or with a credential helper that it names.

`credHelpers` names a helper for one server, `credsStore` for all others; without either the file itself keeps them.
A helper is a program `docker-credential-NAME` that speaks JSON on stdin and stdout (docker-credential-helpers).
"""

from __future__ import annotations

from pier.cli.config_file import config_path, read_config, write_config
from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options

HUB = "https://index.docker.io/v1/"
TOKEN_USER = "<token>"  # noqa: S105 - what helpers call the user of a token
HELPER_TIMEOUT_S = 60
_NOT_FOUND = "credentials not found in native keychain"


def registry_auth_header(options: Options, name: str) -> tuple[str, ...]:
    """The `X-Registry-Auth` header for an image name; empty when nothing is known about its registry."""
    registry = registry_of(name)
    account = Accounts(options).get(registry)
    return (auth_header(account),) if account else ()


def auth_header(account: dict[str, str]) -> str:
    """An account as a header of the Engine API."""
    import binascii  # noqa: PLC0415 - only with credentials

    from pier.cli.jsontext import dumps  # noqa: PLC0415

    text = binascii.b2a_base64(dumps(account).encode(), newline=False).decode()
    return f"X-Registry-Auth: {text.replace('+', '-').replace('/', '_')}"


def registry_of(name: str) -> str:
    """The key in `auths` for an image name: its registry's host, or Docker Hub's old address."""
    host, slash, _ = name.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return HUB if host == "docker.io" else host
    return HUB


def server_key(server: str) -> str:
    """A server as it was typed -> the key under which accounts are kept: the host, or Docker Hub's old address."""
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return HUB if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def host_of(key: str) -> str:
    """A key of `auths`, perhaps an old one with scheme and path -> the host."""
    return (key.partition("://")[2] if "://" in key else key).partition("/")[0]


class Accounts:
    """What is kept of registries."""

    def __init__(self, options: Options) -> None:
        self.path = config_path(options)
        self.config = read_config(self.path)

    @property
    def _auths(self) -> dict[str, Any]:
        found = self.config.get("auths")
        return found if isinstance(found, dict) else {}

    def helper(self, server: str) -> str:
        """The helper that keeps this server's account; empty for the file."""
        helpers = self.config.get("credHelpers")
        chosen = helpers.get(server) if isinstance(helpers, dict) else None
        return str(chosen or self.config.get("credsStore") or "")

    def get(self, server: str) -> dict[str, str]:
        """The account as the Engine API's AuthConfig; empty for none. Failure where a helper fails."""
        helper = self.helper(server)
        if helper:
            found = ask(helper, "get", server)
            user, secret = str(found.get("Username", "")), str(found.get("Secret", ""))
            if not secret:
                return {}
            if user == TOKEN_USER:
                return {"identitytoken": secret, "serveraddress": server}
            return {"username": user, "password": secret, "serveraddress": server}
        entry = self._auths.get(server)
        if entry is None:
            entry = next((e for key, e in self._auths.items() if host_of(key) == host_of(server)), None)
        return account_of(entry, server) if isinstance(entry, dict) else {}

    def keep(self, server: str, account: dict[str, str]) -> None:
        """Keep an account where the configuration says. Failure where that fails."""
        helper = self.helper(server)
        auths = self.config["auths"] = dict(self._auths)
        if helper:
            token = account.get("identitytoken", "")
            user, secret = (TOKEN_USER, token) if token else (account.get("username", ""), account.get("password", ""))
            ask(helper, "store", {"ServerURL": server, "Username": user, "Secret": secret})
            auths[server] = {}
        else:
            auths[server] = entry_of(account)
        write_config(self.path, self.config)

    def forget(self, server: str) -> None:
        """Take an account away, in the helper and in the file. Failure where that fails."""
        helper = self.helper(server)
        if helper:
            ask(helper, "erase", server)
        gone = {key for key in self._auths if host_of(key) == host_of(server)}
        self.config["auths"] = {key: entry for key, entry in self._auths.items() if key not in gone}
        write_config(self.path, self.config)

    def listed(self) -> list[tuple[str, str, str]]:
        """(server, user, where it is kept) of every account, sorted; secrets are not read out of what is shown."""
        rows: dict[str, tuple[str, str]] = {}
        for server, entry in self._auths.items():
            account = account_of(entry, server) if isinstance(entry, dict) else {}
            if account:
                rows[server] = (account.get("username", "") or TOKEN_USER, "config.json")
        helpers = self.config.get("credHelpers")
        store = str(self.config.get("credsStore") or "")
        if store:
            rows |= {server: (str(user), store) for server, user in ask(store, "list", None).items()}
        for server, helper in (helpers if isinstance(helpers, dict) else {}).items():
            account = self.get(server)
            if account:
                rows[server] = (account.get("username", TOKEN_USER), str(helper))
        return sorted((server, user, where) for server, (user, where) in rows.items())


def account_of(entry: dict[str, Any], server: str) -> dict[str, str]:
    """An entry of `auths` as an AuthConfig; empty where it holds nothing."""
    import binascii  # noqa: PLC0415 - only with credentials

    user, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if entry.get("auth"):
        try:
            pair = binascii.a2b_base64(str(entry["auth"]), strict_mode=True).decode()
        except ValueError:
            raise Failure(
                f"the account of {server} in config.json is damaged: `pier login {server}` mends it"
            ) from None
        user, _, password = pair.partition(":")
    account = {"username": user, "password": password.rstrip("\0"), "serveraddress": server}
    for name in ("identitytoken", "registrytoken"):
        if entry.get(name):
            account[name] = str(entry[name])
    known = {name: value for name, value in account.items() if value}
    return known if len(known) > 1 else {}


def entry_of(account: dict[str, str]) -> dict[str, str]:
    """An account as `auths` keeps it."""
    import binascii  # noqa: PLC0415 - only with credentials

    token = account.get("identitytoken", "")
    pair = f"{account.get('username', '')}:{'' if token else account.get('password', '')}"
    entry = {"auth": binascii.b2a_base64(pair.encode(), newline=False).decode()}
    return {**entry, "identitytoken": token} if token else entry


def ask(helper: str, verb: str, message: str | dict[str, str] | None) -> dict[str, Any]:
    """Run a credential helper; its JSON answer, empty for one that knows nothing. Failure where it fails."""
    import subprocess  # noqa: PLC0415 - only where a helper is configured

    from pier.cli.jsontext import dumps, loads  # noqa: PLC0415

    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise Failure(f"error getting credentials: {helper!r} is no name of a credential helper")
    program = f"docker-credential-{helper}"
    text = message if isinstance(message, str) else dumps(message) if message is not None else ""
    try:
        done = subprocess.run(
            [program, verb], input=text.encode(), capture_output=True, check=False, timeout=HELPER_TIMEOUT_S
        )
    except FileNotFoundError:
        raise Failure(
            f'error getting credentials - err: exec: "{program}": executable file not found in $PATH'
        ) from None
    except subprocess.TimeoutExpired:
        raise Failure(f"error getting credentials - err: {program} does not answer") from None
    out = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        if _NOT_FOUND in out or (verb == "erase" and "not found" in out):
            return {}
        words = out or done.stderr.decode("utf-8", "replace").strip()
        raise Failure(f"error getting credentials - err: exit status {done.returncode}, out: `{words[:500]}`")
    try:
        found = loads(out) if out and verb in ("get", "list") else {}
    except ValueError:
        raise Failure(f"error getting credentials: the answer of {program} is no JSON") from None
    return found if isinstance(found, dict) else {}
