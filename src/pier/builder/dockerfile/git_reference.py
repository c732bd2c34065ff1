"""Addresses of git repositories in ADD, build contexts and named contexts (Docker's documentation, "Git repositories").

`https://host/repo.git[#ref[:folder]]`, `git@host:repo.git`, `git://…`, `ssh://…`, each with `?ref=…&subdir=…` too.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from pier.builder.graph import Source
from pier.errors import InvalidParameter

AUTH_TOKEN: Final = "GIT_AUTH_TOKEN"  # noqa: S105  # the names of secrets, not secrets
AUTH_HEADER: Final = "GIT_AUTH_HEADER"
_SCP: Final = re.compile(r"(?:([A-Za-z0-9_.-]+)@)([A-Za-z0-9.-]+):([^#?]*)(?:\?([^#]*))?(?:#(.*))?")
_TRUE: Final = ("1", "t", "true")
_FALSE: Final = ("0", "f", "false")


class BadGitReference(InvalidParameter):
    """{message}"""


class GitReference(msgspec.Struct, frozen=True, kw_only=True):
    remote: str
    """As git takes it."""
    host: str
    path: str
    scheme: str
    ref: str = ""
    """A commit, branch or tag; empty: the repository's own default."""
    subdir: str = ""
    checksum: str = ""
    """The commit that `ref` has to be."""
    keep_git_dir: bool | None = None
    submodules: bool | None = None

    def source(self, *, keep_git_dir: bool, checksum: str) -> Source:
        """The graph's source of it."""
        fragment = self.ref + (f":{self.subdir}" if self.subdir else "")
        identifier = f"git://{self.host}{posixpath.join('/', self.path)}" + (f"#{fragment}" if fragment else "")
        attrs = {"git.fullurl": self.remote, "git.authtokensecret": AUTH_TOKEN, "git.authheadersecret": AUTH_HEADER}
        if keep_git_dir:
            attrs["git.keepgitdir"] = "true"
        if checksum:
            attrs["git.checksum"] = checksum
        if self.submodules is False:
            attrs["git.skipsubmodules"] = "true"
        if self.scheme == "ssh":
            attrs["git.mountsshsock"] = "default"
        return Source(identifier, attrs)


def parse_git_reference(text: str) -> GitReference | None:
    """None where the text is no git address but a path or an address of a web server.

    Raises BadGitReference for one whose options are wrong.
    """
    scp = _SCP.fullmatch(text) if "://" not in text else None
    if scp:
        user, host, path, query, fragment = scp.groups()
        _refuse_options(user, host, path)
        options = _options(query or "", fragment or "")
        return GitReference(remote=f"{user}@{host}:{path}", host=host, path=path, scheme="ssh", **options)
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https", "git", "ssh") or not parts.netloc:
        return None
    if scheme in ("http", "https") and not parts.path.endswith(".git"):
        return None
    remote = parts._replace(fragment="", query="").geturl()
    user, _, host = parts.netloc.rpartition("@")
    _refuse_options(user, host)
    return GitReference(
        remote=remote, host=host, path=parts.path, scheme=scheme, **_options(parts.query, parts.fragment)
    )


def _options(query: str, fragment: str) -> dict[str, Any]:
    ref, _, subdir = fragment.partition(":")
    found: dict[str, Any] = {"ref": ref, "subdir": subdir}
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    for name, value in pairs:
        if names.count(name) > 1:
            raise BadGitReference(f'query "{name}" has multiple values')
        if not value and name not in ("submodules", "keep-git-dir"):
            raise BadGitReference(f'query "{name}" has no value')
        match name:
            case "ref":
                _set(found, "ref", value)
            case "tag":
                _set(found, "ref", _prefixed("refs/tags/", value))
            case "branch" if "tag" in names:
                raise BadGitReference("branch conflicts with tag")
            case "branch":
                _set(found, "ref", _prefixed("refs/heads/", value))
            case "subdir":
                _set(found, "subdir", value)
            case "checksum" | "commit":
                found["checksum"] = value
            case "keep-git-dir" | "submodules":
                found[name.replace("-", "_")] = _boolean(name, value)
            case _:
                raise BadGitReference(f'unexpected query "{name}"')
    if found.get("checksum") and not found["ref"]:
        found["ref"] = found["checksum"]
    _refuse_options(found["ref"], found["subdir"], found.get("checksum", ""))
    return found


def _refuse_options(*words: str) -> None:
    """git and ssh would take a word that begins with a dash for an option of theirs."""
    for word in words:
        if word.startswith("-"):
            raise BadGitReference(f"invalid git address: {word!r} begins with a dash")


def _set(found: dict[str, Any], key: str, value: str) -> None:
    if found[key] and found[key] != value:
        raise BadGitReference(f'{key} conflicts: "{found[key]}" vs "{value}"')
    found[key] = value


def _prefixed(prefix: str, value: str) -> str:
    return value if value.startswith(prefix) else prefix + value


def _boolean(name: str, value: str) -> bool:
    if value and value.lower() not in _TRUE + _FALSE:
        raise BadGitReference(f'invalid {name} value: "{value}"')
    return not value or value.lower() in _TRUE
