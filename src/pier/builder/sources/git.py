"""Repositories as sources: one commit's files, by the host's git, in a folder of their own.

Nothing of an address, a branch or a repository reaches git as an option, no configuration of the host's or of the
repository's is read, no hook is run, and of protocols only those of the net are spoken. A sub-directory is one: no part
of the way to it is a link (attack 19).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import stat
from collections.abc import Mapping
from typing import Final

from pier.builder import layers
from pier.builder.graph import Source, Vertex
from pier.builder.ground import Ground
from pier.builder.progress import Broadcast
from pier.builder.session import Session
from pier.builder.solver import Build, Found, Work
from pier.builder.sources import context
from pier.builder.tree import Result, Tree
from pier.errors import InvalidParameter, PierError
from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, closing, open_in_root
from pier.storage.trees import remove_tree

TIMEOUT_S: Final = 1800
OUTPUT_MAX: Final = 64 << 10
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./@+=-]*")
_REMOTE: Final = re.compile(r"(?:(?:https?|ssh|git)://[^-]|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9])[^\s\0]*")
SETTINGS: Final = (
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "fetch.recurseSubmodules=false",
    "advice.detachedHead=false",
    "gc.auto=0",
)


class GitMissing(PierError):
    """failed to load git source: there is no git on this machine"""

    remedy = "install git, or give the files as a context"


class BadGitSource(InvalidParameter):
    """invalid git source {text!r}: {reason}"""


class GitFailed(InvalidParameter):
    """git {verb} of {remote} failed: {reason}"""


class GitSource:
    """The kind `git`."""

    type = "source.git.checkout"

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        """Which commit a reference is now. Raises BadGitSource, GitFailed, GitMissing."""
        assert isinstance(vertex.op, Source)
        remote, ref, subdir = address(vertex.op)
        attrs = vertex.op.attrs
        commit = ref
        if not _COMMIT.fullmatch(ref):
            git = _Git(remote, say, await _environment(build.session, remote, attrs))
            listing = await git.run("ls-remote", "--", remote, *_names(ref))
            commit = chosen(listing, ref)
            if not commit:
                raise GitFailed(verb="ls-remote", remote=remote, reason=f"repository has no ref {ref or 'HEAD'}")
        wanted = attrs.get("git.checksum", "")
        if wanted and not commit.startswith(wanted):
            raise BadGitSource(text=remote, reason=f"expected checksum to match {wanted}, got {commit}")
        kept = attrs.get("git.keepgitdir", ""), attrs.get("git.skipsubmodules", "")
        return Found(" ".join((commit, subdir, *kept)), commit)

    async def fetch(self, work: Work, found: Found) -> Result:
        assert isinstance(work.vertex.op, Source)
        op, ground = work.vertex.op, self._ground
        remote, ref, subdir = address(op)
        place = await ground.in_thread(context.make, ground)
        try:
            git = _Git(remote, work.broadcast, await _environment(work.session, remote, op.attrs), place)
            await git.run("init", "--quiet", "--", place)
            await self._fetch_commit(git, remote, ref, found.pinned)
            await git.run("checkout", "--quiet", "--force", found.pinned, "--")
            if not op.attrs.get("git.skipsubmodules"):
                await git.run("submodule", "update", "--init", "--recursive", "--depth=1")
            return await ground.in_thread(self._taken, place, subdir, keep=bool(op.attrs.get("git.keepgitdir")))
        finally:
            await ground.in_thread(context.remove, place)

    async def _fetch_commit(self, git: _Git, remote: str, ref: str, commit: str) -> None:
        """The one commit where the server gives it by name, else what the reference has."""
        try:
            await git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", remote, commit)
        except GitFailed:
            names = [ref] if ref and not _COMMIT.fullmatch(ref) else []
            await git.run("fetch", "--quiet", "--tags", "--", remote, *(names or ["+refs/*:refs/remotes/origin/*"]))

    def _taken(self, place: str, subdir: str, *, keep: bool) -> Tree:
        with closing(os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            if not keep:
                _drop_git(root)
            try:
                fd = open_in_root(
                    root,
                    subdir or "/",
                    os.O_RDONLY | os.O_DIRECTORY,
                    resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
                )
            except OSError as error:
                reason = f"its folder {subdir!r}: {(error.strerror or '').lower()}"
                raise BadGitSource(text=place, reason=reason) from None
            with closing(fd):
                return layers.from_directory(self._ground, fd)


def address(op: Source) -> tuple[str, str, str]:
    """(remote, reference, sub-directory) of a source. Raises BadGitSource for what git could take for an option."""
    text, _, fragment = op.rest.partition("#")
    remote = op.attrs.get("git.fullurl") or f"https://{text}"
    ref, _, subdir = fragment.partition(":")
    if not _REMOTE.fullmatch(remote):
        raise BadGitSource(
            text=remote, reason="it is no address of a repository: https://, ssh://, git:// or USER@HOST:"
        )
    if ref and (not _REF.fullmatch(ref) or ".." in ref or ref.endswith((".lock", "/"))):
        raise BadGitSource(text=ref, reason="no name of a branch, tag or commit")
    if any(part == ".git" for part in subdir.split("/")):
        raise BadGitSource(text=subdir, reason="that is git's own folder")
    return remote, ref, subdir


def _names(ref: str) -> list[str]:
    return [ref or "HEAD", *([f"{ref}^{{}}"] if ref else [])]


def chosen(listing: str, ref: str) -> str:
    """The commit of a reference in what `ls-remote` prints: a tag's own commit before the tag, branches before tags."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    if not ref:
        return found.get("HEAD", "")
    for name in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"):
        for spelt in (f"{name}^{{}}", name):
            if spelt in found:
                return found[spelt]
    return ""


async def _environment(session: Session, remote: str, attrs: Mapping[str, str]) -> dict[str, str]:
    """Of git: nothing of the daemon's but proxies; a token goes as a header, by a variable, in no process list, and to
    no other host than the repository's."""
    names = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
    proxies = {name: value for name, value in os.environ.items() if name.lower() in names}
    settings = [setting.split("=", 1) for setting in SETTINGS]
    header = await _header(session, attrs)
    if header and "://" in remote:
        settings.append([f"http.{'/'.join(remote.split('/')[:3])}/.extraHeader", header])
    found = {
        **proxies,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings):
        found[f"GIT_CONFIG_KEY_{number}"], found[f"GIT_CONFIG_VALUE_{number}"] = key, value
    return found


async def _header(session: Session, attrs: Mapping[str, str]) -> str:
    if (name := attrs.get("git.authheadersecret")) and (secret := await session.secret(name)):
        return f"Authorization: {secret.decode('utf-8', 'replace').strip()}"
    if (name := attrs.get("git.authtokensecret")) and (secret := await session.secret(name)):
        return "Authorization: Basic " + base64.b64encode(b"x-access-token:" + secret.strip()).decode()
    return ""


def _drop_git(root: int) -> None:
    """Remove git's own folder, here and in submodules."""
    remove_tree(root, b".git")
    for name in os.listdir(root):
        if stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            with closing(os.open(name, flags, dir_fd=root)) as below:
                _drop_git(below)


class _Git:
    """Runs git for one repository."""

    def __init__(self, remote: str, say: Broadcast, environment: Mapping[str, str], folder: str = "/") -> None:
        self._remote = remote
        self._say = say
        self._environment = environment
        self._folder = folder

    async def run(self, verb: str, *arguments: str) -> str:
        """What git prints on its standard output. Raises GitFailed, GitMissing."""
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                verb,
                *arguments,
                cwd=self._folder,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise GitMissing from None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise GitFailed(verb=verb, remote=self._remote, reason=f"no answer in {TIMEOUT_S} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if err:
            self._say.printed(2, err[-OUTPUT_MAX:])
        if process.returncode:
            reason = err.decode("utf-8", "replace").strip().rpartition("\n")[2][:500]
            raise GitFailed(verb=verb, remote=self._remote, reason=reason or f"exit code {process.returncode}")
        return out.decode("utf-8", "replace")
