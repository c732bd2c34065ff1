"""Credentials for a registry out of the client's configuration file (`auths` in config.json, as `login` writes it)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options

HUB = "https://index.docker.io/v1/"


def registry_auth_header(options: Options, name: str) -> tuple[str, ...]:
    """The `X-Registry-Auth` header for an image name; empty when nothing is known about its registry."""
    folder = options["config"] or os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    try:
        with open(f"{folder}/config.json", "rb") as file:
            data = file.read()
    except OSError:
        return ()
    from pier.cli.jsontext import loads  # noqa: PLC0415 - only with a configuration file

    try:
        auths = loads(data).get("auths") or {}
    except (ValueError, AttributeError):
        return ()
    return _header(auths, registry_of(name))


def registry_of(name: str) -> str:
    """The key in `auths` for an image name: its registry's host, or Docker Hub's old address."""
    host, slash, _ = name.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return HUB if host == "docker.io" else host
    return HUB


def _header(auths: dict[str, dict[str, str]], registry: str) -> tuple[str, ...]:
    import binascii  # noqa: PLC0415 - only with credentials

    from pier.cli.jsontext import dumps  # noqa: PLC0415

    entry = auths.get(registry) or auths.get(f"https://{registry}") or {}
    if not entry.get("auth"):
        return ()
    user, _, password = binascii.a2b_base64(entry["auth"]).decode().partition(":")
    account = {"username": user, "password": password.rstrip("\0"), "serveraddress": registry}
    if entry.get("identitytoken"):
        account["identitytoken"] = entry["identitytoken"]
    text = binascii.b2a_base64(dumps(account).encode(), newline=False).decode()
    return (f"X-Registry-Auth: {text.replace('+', '-').replace('/', '_')}",)
