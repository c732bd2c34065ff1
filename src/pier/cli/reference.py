"""Image names as the command line needs them: is it well-formed, which tag is meant. The daemon does the rest."""

from __future__ import annotations

_TAG = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/")


def split(text: str) -> tuple[str, str, str]:
    """(name, tag, digest); tag and digest may be empty. ValueError in Docker's words when it is no reference."""
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    name = head + slash + last
    if not last or any(char not in _TAG for char in tag) or (colon and not tag) or ("@" in text and ":" not in digest):
        raise ValueError("invalid reference format")
    repository = _repository(name)
    if any(char not in _NAME for char in repository):
        if repository.isascii() and all(char in _NAME for char in repository.lower()):
            shown = repository if "/" in repository or name != repository else f"library/{repository}"
            raise ValueError(f"invalid reference format: repository name ({shown}) must be lowercase")
        raise ValueError("invalid reference format")
    return name, tag, digest


def _repository(name: str) -> str:
    """The name without a registry's host: a first part with a dot, a colon, a capital letter, or "localhost"."""
    host, slash, path = name.partition("/")
    is_host = slash and (host == "localhost" or "." in host or ":" in host or host != host.lower())
    return path if is_host else name


def with_tag(text: str) -> str:
    """`busybox` -> `busybox:latest`; a tag or a digest stays."""
    name, tag, digest = split(text)
    if digest:
        return text
    return f"{name}:{tag or 'latest'}"
