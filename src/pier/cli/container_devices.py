"""`--device` and `--gpus` of `run` and `create` as members of HostConfig. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options


def devices(opts: Options) -> dict[str, Any]:
    """Devices by path, and requests for those that a vendor describes (CDI) or a driver knows."""
    described = [text for text in opts["device"] if is_qualified(text)]
    plain = [parse_device(text) for text in opts["device"] if text not in described]
    requests = list(opts["gpus"] or ())
    if described:
        requests.append({"Driver": "cdi", "DeviceIDs": described})
    members = {"Devices": plain, "DeviceRequests": requests}
    return {name: value for name, value in members.items() if value}


def is_qualified(text: str) -> bool:
    """Is it a name of the Container Device Interface, `vendor/class=name`?"""
    kind, equals, name = text.partition("=")
    vendor, slash, class_ = kind.partition("/")
    words = (vendor, class_, name)
    return bool(equals and slash) and all(
        word and word[0].isalnum() and word[-1].isalnum() and all(char.isalnum() or char in "_-.:" for char in word)
        for word in words
    )


def parse_device(text: str) -> dict[str, str] | Any:
    """`/dev/a[:/dev/b][:rwm]` -> {PathOnHost, PathInContainer, CgroupPermissions}."""
    parts = text.split(":")
    permissions = "rwm"
    inside = ""
    if len(parts) > 3:
        raise ValueError(f"bad format for path: {text}")
    if len(parts) == 3:
        permissions = parts[2]
    if len(parts) >= 2:
        if set(parts[1]) <= set("rwm") and parts[1]:
            permissions = parts[1]
        else:
            inside = parts[1]
    return {"PathOnHost": parts[0], "PathInContainer": inside or parts[0], "CgroupPermissions": permissions}
