"""RUN: one exec each, with its mounts (Dockerfile reference, "RUN")."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.gotext import quote, trim
from pier.builder.dockerfile.heredoc import parse_heredoc
from pier.builder.dockerfile.mounts import Mount, MountKind, parse_device, parse_mount
from pier.builder.dockerfile.ownership import owner_of
from pier.builder.dockerfile.source import Fault
from pier.builder.dockerfile.state import Secret, StageState
from pier.builder.dockerfile.transferring import inline_document
from pier.builder.dockerfile.words_in_stage import expand_word
from pier.builder.graph import (
    EMPTY,
    CacheMount,
    CacheSharing,
    Device,
    Exec,
    File,
    FileAction,
    MakeDir,
    MakeFile,
    Meta,
    MountType,
    NetMode,
    Note,
    Output,
    SecretEnv,
    SecretMount,
    SecurityMode,
    Vertex,
)
from pier.builder.graph import Mount as GraphMount

SSH_SOCKET: Final = "/run/buildkit/ssh_agent.{number}"
SECRETS_FOLDER: Final = "/run/secrets"
SCRIPTS_FOLDER: Final = "/dev/pipes/"
SECRET_MODE: Final = 0o400
SOCKET_MODE: Final = 0o600
_NETWORKS: Final = {"": None, "default": NetMode.UNSET, "none": NetMode.NONE, "host": NetMode.HOST}
_SECURITIES: Final = {"": SecurityMode.SANDBOX, "sandbox": SecurityMode.SANDBOX, "insecure": SecurityMode.INSECURE}
_SHARINGS: Final = {
    "": CacheSharing.SHARED,
    "shared": CacheSharing.SHARED,
    "private": CacheSharing.PRIVATE,
    "locked": CacheSharing.LOCKED,
}


def run(state: StageState, instruction: i.Run, sources: Sequence[Output | None]) -> None:
    """Add the step. `sources`: for each mount the tree it shows, None being an empty one. Raises DockerfileError."""
    _Run(state, instruction).run(sources)


class _Run:
    def __init__(self, state: StageState, instruction: i.Run) -> None:
        self._state = state
        self._it = instruction
        self._inputs: list[Output] = []
        self._places: dict[object, int] = {}
        self._mounts: list[GraphMount] = []
        self._special: list[GraphMount] = []
        self._secret_env: list[SecretEnv] = []
        self._sockets: list[str] = []

    def run(self, sources: Sequence[Output | None]) -> None:
        state, it = self._state, self._it
        root = GraphMount("/", input=self._input(state.output), output=0)
        for text, source in zip(it.mounts, sources, strict=True):
            self._mount(text, source)
        args, shown = self._command()
        env = dict(state.env)
        if self._sockets:
            env.setdefault("SSH_AUTH_SOCK", self._sockets[0])
        options = state.shared.options
        network = _NETWORKS[it.network]
        meta = Meta(
            args=args,
            env=tuple(f"{name}={value}" for name, value in env.items()),
            cwd=state.cwd,
            user=state.user,
            extra_hosts=options.extra_hosts,
            hostname=options.hostname,
            ulimits=options.ulimits,
            cgroup_parent=options.cgroup_parent,
            remove_mount_stubs_recursive=True,
        )
        mounts = (root, *sorted(self._mounts, key=lambda mount: mount.dest), *self._special)
        step = Exec(
            meta,
            mounts,
            network=options.network if network is None else network,
            security=_SECURITIES[it.security],
            secret_env=tuple(self._secret_env),
            devices=self._devices(),
        )
        note = replace(state.note(it, shown), limits=options.limits, proxy_env=state.shared.proxy)
        state.output = Vertex(step, tuple(self._inputs), platform=state.platform, note=note).output()
        state.remember(f"RUN {' '.join([*self._args_in_scope(), *args])}", layer=True, step=True)

    def _input(self, output: Output | None) -> int:
        if output is None:
            return EMPTY
        if output.key not in self._places:
            self._places[output.key] = len(self._inputs)
            self._inputs.append(output)
        return self._places[output.key]

    # --- the command

    def _command(self) -> tuple[tuple[str, ...], str]:
        """(arguments of the process, the instruction for people)."""
        state, it = self._state, self._it
        words = it.command.words
        suffix = ""
        if it.heredocs:
            first = it.heredocs[0]
            if parse_heredoc(words[0]):
                text = first.text
                suffix = f" ({_summary(first.content)})"
                words = (self._script(first.name, text),) if text.startswith("#!") else (text,)
            else:
                bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in it.heredocs)
                words = (words[0] + bodies,)
        args = state.with_shell(words) if it.command.shell_form else words
        if not args:
            raise state.fail("RUN has no command", it)
        lexer = msgspec.structs.replace(state.shared.lexer, raw_quotes=True, keep_unset=True)
        masked = {**state.env, **dict.fromkeys(self._secret_names(), "****")}
        return args, state.shown(it.code + suffix, masked, lexer)

    def _script(self, name: str, text: str) -> str:
        """A script with an interpreter of its own is a file that is run."""
        deed = MakeFile(f"/{name}", text.encode("utf-8", "surrogateescape"), mode=0o755)
        vertex = inline_document(deed, self._state)
        self._mounts.append(GraphMount(SCRIPTS_FOLDER, input=self._input(vertex.output()), readonly=True))
        return posixpath.join(SCRIPTS_FOLDER, name)

    def _args_in_scope(self) -> list[str]:
        """`|2 A=1 B=2`: build arguments, as the history shows them before the command."""
        state = self._state
        values = {each.name: state.env.get(each.name, each.default or "") for each in state.build_args}
        return [f"|{len(values)}", *(f"{name}={value}" for name, value in values.items())] if values else []

    def _secret_names(self) -> list[str]:
        return [each.name for each in self._secret_env]

    def _devices(self) -> tuple[Device, ...]:
        found = []
        for text in self._it.devices:
            request = parse_device(expand_word(self._state, self._it, text))
            found.append(Device(request.name, optional=not request.required))
        return tuple(found)

    # --- mounts

    def _mount(self, text: str, source: Output | None) -> None:
        state, it = self._state, self._it
        try:
            mount = parse_mount(text, lambda value: expand_word(state, it, value))
        except Fault as fault:
            raise state.fail(fault.reason, it) from None
        if mount.kind is MountKind.SECRET:
            self._secret(mount)
        elif mount.kind is MountKind.SSH:
            self._ssh(mount)
        else:
            self._tree(mount, source)

    def _tree(self, mount: Mount, source: Output | None) -> None:
        state, it = self._state, self._it
        target = posixpath.normpath(posixpath.join("/", state.cwd, mount.target))
        target = "/" + target.lstrip("/")
        if target == "/" or not mount.target:
            raise state.fail(f"invalid mount target {quote(target)}", it)
        if mount.kind is MountKind.TMPFS:
            made = GraphMount(target, type=MountType.TMPFS, tmpfs_size_bytes=mount.size_bytes, readonly=mount.readonly)
            self._mounts.append(made)
            return
        selector = posixpath.normpath(posixpath.join("/", mount.source))
        selector = "" if selector in ("/", "//") else selector
        cache = None
        if mount.kind is MountKind.CACHE:
            cache_id = f"{state.shared.options.cache_namespace}/{mount.id or posixpath.normpath(mount.target)}"
            cache = CacheMount(cache_id, _SHARINGS[mount.sharing])
            if not selector and (mount.uid, mount.gid, mount.mode) != (None, None, None):
                source, selector = self._cache_folder(mount, source), "/cache"
        elif not mount.from_:
            state.context_paths.add(selector or "/")
        made = GraphMount(
            target,
            input=self._input(source),
            selector=selector,
            readonly=mount.readonly,
            type=MountType.CACHE if cache else MountType.BIND,
            cache=cache,
        )
        self._mounts.append(made)

    def _cache_folder(self, mount: Mount, source: Output | None) -> Output:
        """What a cache begins as where its owner or mode is said."""
        owner = owner_of(f"{mount.uid or 0}:{mount.gid or 0}", EMPTY)
        deed = MakeDir("/cache", mode=0o755 if mount.mode is None else mount.mode, owner=owner)
        action = FileAction(deed, input=EMPTY if source is None else 0, output=0)
        note = Note(name="[internal] settings cache mount permissions")
        inputs = () if source is None else (source,)
        return Vertex(File((action,)), inputs, platform=self._state.platform, note=note).output()

    def _secret(self, mount: Mount) -> None:
        secret_id = mount.source or mount.id or posixpath.basename(mount.target) or (mount.env or "")
        optional = not mount.required
        self._state.secrets.setdefault(secret_id, Secret(secret_id, mount.required, self._it.source))
        if mount.env is not None:
            self._secret_env.append(SecretEnv(secret_id, mount.env or secret_id, optional))
        if mount.env is None or mount.target:
            target = mount.target or f"{SECRETS_FOLDER}/{posixpath.basename(secret_id)}"
            secret = _secret_mount(secret_id, mount, SECRET_MODE)
            dest = posixpath.normpath(posixpath.join("/", self._state.cwd, target))
            self._special.append(GraphMount(dest, type=MountType.SECRET, secret=secret))

    def _ssh(self, mount: Mount) -> None:
        if mount.source:
            raise self._state.fail("ssh does not support source", self._it)
        agent = mount.id or "default"
        self._state.ssh.setdefault(agent, Secret(agent, mount.required, self._it.source))
        target = mount.target or SSH_SOCKET.format(number=len(self._sockets))
        dest = posixpath.normpath(posixpath.join("/", self._state.cwd, target))
        self._sockets.append(dest)
        secret = _secret_mount(agent, mount, SOCKET_MODE)
        self._special.append(GraphMount(dest, type=MountType.SSH, secret=secret))


def _secret_mount(secret_id: str, mount: Mount, mode: int) -> SecretMount:
    return SecretMount(
        secret_id,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
        mode=mode if mount.mode is None else mount.mode,
        optional=not mount.required,
    )


def _summary(text: str) -> str:
    lines = trim(text).replace("\r\n", "\n").split("\n")
    return lines[0] + ("..." if len(lines) > 1 else "")
