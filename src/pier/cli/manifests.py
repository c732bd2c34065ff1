"""Manifest lists in the making: one folder a list, one file a manifest, laid out as Docker's command lays them out."""

from __future__ import annotations

import os

from pier.cli.auth import registry_auth_header
from pier.cli.config_file import config_path
from pier.cli.each import path
from pier.cli.errors import ApiError, Failure, reason
from pier.cli.jsontext import loads, pretty
from pier.cli.reference import split, with_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

LIST_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_LIST_TYPE = "application/vnd.oci.image.index.v1+json"
_NOT_FOUND = 404


def full(name: str) -> str:
    """A name as it is kept and shown: with its registry and its tag. Failure for what is no name."""
    from pier.cli.verbs.pull import full_name  # noqa: PLC0415

    try:
        split(name)
    except ValueError as error:
        raise Failure(str(error)) from None
    return full_name(with_tag(name))


class Lists:
    """The folder `manifests` beside the client's configuration file."""

    def __init__(self, options: Options) -> None:
        self.root = os.path.join(os.path.dirname(config_path(options)), "manifests")

    def _folder(self, name: str) -> str:
        return os.path.join(self.root, file_name(name))

    def has(self, name: str) -> bool:
        return os.path.isdir(self._folder(name))

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The manifests of a list, sorted by name; empty where there is no such list."""
        folder = self._folder(name)
        try:
            files = sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        found = []
        for file_ in files:
            with open(os.path.join(folder, file_), "rb") as file:
                found.append(loads(file.read()))
        return found

    def put(self, name: str, entry: dict[str, Any]) -> None:
        """Keep a manifest of a list."""
        folder = self._folder(name)
        target = os.path.join(folder, file_name(entry["Ref"]))
        try:
            os.makedirs(folder, 0o755, exist_ok=True)
            with open(f"{target}.{os.getpid()}", "w", encoding="utf-8") as file:
                file.write(pretty(entry, "\t"))
            os.rename(f"{target}.{os.getpid()}", target)
        except OSError as error:
            raise Failure(f"{target}: {reason(error)}") from None

    def remove(self, name: str) -> bool:
        """Forget a list; False where there is none."""
        folder = self._folder(name)
        if not os.path.isdir(folder):
            return False
        for file_ in os.listdir(folder):
            os.unlink(os.path.join(folder, file_))
        os.rmdir(folder)
        return True


def file_name(name: str) -> str:
    """A full name as the name of a file: no slash and no colon, so nothing in it leads elsewhere."""
    return name.replace(":", "-").replace("/", "_").lstrip(".")


def fetch(cx: Context, name: str) -> dict[str, Any]:
    """A manifest out of its registry, as it is kept: reference, descriptor with platform, and bytes."""
    import binascii  # noqa: PLC0415

    data, media_type, digest = raw(cx, name)
    found: dict[str, Any] = {
        "Ref": name,
        "Descriptor": {"mediaType": media_type, "digest": digest, "size": len(data)},
        "Raw": binascii.b2a_base64(data, newline=False).decode(),
    }
    document = loads(data)
    if "manifests" in document:
        return found
    known = cx.client.request(
        "GET", path("distribution", name, "json"), headers=registry_auth_header(cx.options, name)
    ).json()
    platform = (known.get("Platforms") or [{}])[0]
    found["Descriptor"]["platform"] = {key: value for key, value in platform.items() if value}
    found["OCIManifest" if "vnd.oci." in media_type else "SchemaV2Manifest"] = document
    return found


def raw(cx: Context, name: str) -> tuple[bytes, str, str]:
    """(bytes, media type, digest) of what a name points at in its registry. Failure where that is nothing."""
    headers = registry_auth_header(cx.options, name)
    try:
        response = cx.client.request("GET", path("distribution", name, "manifest"), headers=headers)
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        raise Failure(f"no such manifest: {name}") from None
    return response.read(), response.headers.get("content-type", ""), response.headers.get("docker-content-digest", "")


def as_list(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The list that the manifests make, as it will be pushed."""
    oci = all("vnd.oci." in entry["Descriptor"]["mediaType"] for entry in entries)
    manifests = [
        {
            "mediaType": entry["Descriptor"]["mediaType"],
            "size": entry["Descriptor"]["size"],
            "digest": entry["Descriptor"]["digest"],
            "platform": entry["Descriptor"].get("platform") or {},
        }
        for entry in entries
    ]
    return {"schemaVersion": 2, "mediaType": OCI_LIST_TYPE if oci else LIST_TYPE, "manifests": manifests}
