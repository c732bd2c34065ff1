"""Definitions of BuildKit's (LLB, ops.proto) as the builder's graph, whose vertices mirror them one to one.

A definition is a list of encoded operations. One is named by the SHA-256 of its bytes, so whoever names another can
only have come after it: there are no cycles. The last of the list has no operation, only an input: what is wanted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from pier.builder import graph
from pier.builder.graph import Location, Note, Output, Position, ProgressGroup, Vertex
from pier.buildkit.pb import ops_pb2 as pb
from pier.errors import InvalidParameter, NotImplementedYet
from pier.oci import Platform

__all__ = ["BadDefinition", "location_of", "output_of", "platform_of"]

E = TypeVar("E", bound=IntEnum)
OPS_MAX: Final = 100_000
NAME_KEY: Final = "llb.customname"


class BadDefinition(InvalidParameter):
    """invalid definition: {reason}"""


def output_of(definition: pb.Definition) -> Output | None:
    """What a definition wants; None: nothing, an empty tree. Raises BadDefinition, InvalidVertex, NotImplementedYet."""
    if not definition.ops:
        return None
    if len(definition.ops) > OPS_MAX:
        raise BadDefinition(reason=f"{len(definition.ops)} operations, more than {OPS_MAX}")
    ops: dict[str, pb.Op] = {}
    last = ""
    for raw in definition.ops:
        last = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        try:
            ops[last] = pb.Op.FromString(raw)
        except DecodeError:
            raise BadDefinition(reason=f"operation {last} cannot be decoded") from None
    wanted = ops[last]
    if wanted.WhichOneof("op") is not None or len(wanted.inputs) != 1:
        raise BadDefinition(reason="its last operation does not say what is wanted")
    vertices = _vertices(definition, ops, wanted.inputs[0].digest)
    return _output(vertices, wanted.inputs[0])


def _vertices(definition: pb.Definition, ops: dict[str, pb.Op], wanted: str) -> dict[str, Vertex]:
    """All that `wanted` stands on, and itself, by their names in the definition."""
    made: dict[str, Vertex] = {}
    stack = [wanted]
    while stack:
        digest = stack[-1]
        if digest in made:
            stack.pop()
            continue
        if digest not in ops:
            raise BadDefinition(reason=f"{digest} is an input and not among its operations")
        missing = [each.digest for each in ops[digest].inputs if each.digest not in made]
        if missing:
            stack += missing
            continue
        op = ops[digest]
        made[digest] = Vertex(
            _operation(op),
            tuple(_output(made, each) for each in op.inputs),
            platform_of(op.platform) if op.HasField("platform") else None,
            tuple(op.constraints.filter),
            _note(definition, digest, op),
        )
    return made


def _output(made: dict[str, Vertex], edge: pb.Input) -> Output:
    if edge.digest not in made or edge.index < 0:
        raise BadDefinition(reason=f"output {edge.index} of {edge.digest} is wanted, which there is not")
    return made[edge.digest].output(edge.index)


def platform_of(sent: pb.Platform) -> Platform:
    """A platform as it was sent."""
    return Platform(
        architecture=sent.architecture,
        os=sent.os,
        os_version=sent.os_version,
        os_features=tuple(sent.os_features),
        variant=sent.variant,
    )


def _note(definition: pb.Definition, digest: str, op: pb.Op) -> Note:
    said = definition.metadata[digest] if digest in definition.metadata else pb.OpMetadata()
    description = dict(said.description)
    group = None
    if said.HasField("progress_group"):
        sent = said.progress_group
        group = ProgressGroup(sent.id, sent.name, sent.weak)
    proxy = None
    if op.exec.meta.HasField("proxy_env"):
        env = op.exec.meta.proxy_env
        proxy = graph.ProxyEnv(env.http_proxy, env.https_proxy, env.ftp_proxy, env.no_proxy, env.all_proxy)
    return Note(
        name=description.pop(NAME_KEY, ""),
        ignore_cache=said.ignore_cache,
        location=_location(definition, digest),
        group=group,
        description=description,
        export_cache=said.export_cache.value if said.HasField("export_cache") else None,
        proxy_env=proxy,
    )


def _location(definition: pb.Definition, digest: str) -> Location | None:
    """Where the operation was written down; the first place of several."""
    if digest not in definition.source.locations:
        return None
    for place in definition.source.locations[digest].locations:
        if 0 <= place.source_index < len(definition.source.infos) and place.ranges:
            return location_of(definition.source.infos[place.source_index].filename, place.ranges)
    return None


def location_of(filename: str, ranges: Iterable[pb.Range]) -> Location:
    """Places in a file, as a client gives them."""
    return Location(
        filename,
        tuple(
            (Position(each.start.line, each.start.character), Position(each.end.line, each.end.character))
            for each in ranges
        ),
    )


# --- operations


def _operation(op: pb.Op) -> graph.Op:
    match op.WhichOneof("op"):
        case "source":
            return graph.Source(op.source.identifier, dict(op.source.attrs))
        case "exec":
            return _exec(op.exec)
        case "file":
            return graph.File(tuple(_action(each) for each in op.file.actions))
        case "merge":
            return graph.Merge(tuple(each.input for each in op.merge.inputs))
        case "diff":
            return graph.Diff(op.diff.lower.input, op.diff.upper.input)
        case "build":
            raise NotImplementedYet(what="a build within a build (LLB's BuildOp)")
    raise BadDefinition(reason="an operation of a kind that is not known")


def _exec(op: pb.ExecOp) -> graph.Exec:
    meta = op.meta
    return graph.Exec(
        graph.Meta(
            args=tuple(meta.args),
            env=tuple(meta.env),
            cwd=meta.cwd or "/",
            user=meta.user,
            extra_hosts=tuple(graph.HostIP(each.host, each.ip) for each in meta.extra_hosts),
            hostname=meta.hostname,
            ulimits=tuple(graph.Ulimit(each.name, each.soft, each.hard) for each in meta.ulimits),
            cgroup_parent=meta.cgroup_parent,
            remove_mount_stubs_recursive=meta.remove_mount_stubs_recursive,
            valid_exit_codes=tuple(meta.valid_exit_codes),
        ),
        tuple(_mount(each) for each in op.mounts),
        _member(graph.NetMode, op.network, "network"),
        _member(graph.SecurityMode, op.security, "security mode"),
        tuple(graph.SecretEnv(each.id, each.name, each.optional) for each in op.secret_env),
        tuple(graph.Device(each.name, each.optional) for each in op.cdi_devices),
    )


def _mount(mount: pb.Mount) -> graph.Mount:
    type_ = _member(graph.MountType, mount.type, "mount type")
    cache = secret = None
    if type_ is graph.MountType.CACHE:
        cache = graph.CacheMount(mount.cache.id, _member(graph.CacheSharing, mount.cache.sharing, "sharing mode"))
    elif type_ in (graph.MountType.SECRET, graph.MountType.SSH):
        opt = mount.secret if type_ is graph.MountType.SECRET else mount.ssh
        secret = graph.SecretMount(opt.id, opt.uid, opt.gid, opt.mode, opt.optional)
    return graph.Mount(
        dest=mount.dest,
        input=mount.input,
        selector=mount.selector,
        output=mount.output,
        readonly=mount.readonly,
        type=type_,
        tmpfs_size_bytes=mount.tmpfs.size,
        cache=cache,
        secret=secret,
    )


def _action(action: pb.FileAction) -> graph.FileAction:
    return graph.FileAction(_deed(action), action.input, action.secondary_input, action.output)


def _deed(action: pb.FileAction) -> graph.Deed:
    match action.WhichOneof("action"):
        case "copy":
            return _copy(action.copy)
        case "mkfile":
            made = action.mkfile
            return graph.MakeFile(made.path, made.data, made.mode, _owner(made), made.timestamp)
        case "mkdir":
            folder = action.mkdir
            return graph.MakeDir(folder.path, folder.mode, folder.make_parents, _owner(folder), folder.timestamp)
        case "symlink":
            link = action.symlink
            return graph.Symlink(link.oldpath, link.newpath, _owner(link), link.timestamp)
        case "rm":
            return graph.Remove(action.rm.path, action.rm.allow_not_found, action.rm.allow_wildcard)
    raise BadDefinition(reason="a file action of a kind that is not known")


def _copy(copy: pb.FileActionCopy) -> graph.Copy:
    return graph.Copy(
        src=copy.src,
        dest=copy.dest,
        owner=_owner(copy),
        mode=copy.mode,
        mode_str=copy.mode_str,
        follow_symlink=copy.follow_symlink,
        dir_copy_contents=copy.dir_copy_contents,
        attempt_unpack=copy.attempt_unpack,
        create_dest_path=copy.create_dest_path,
        allow_wildcard=copy.allow_wildcard,
        allow_empty_wildcard=copy.allow_empty_wildcard,
        timestamp_ns=copy.timestamp,
        include_patterns=tuple(copy.include_patterns),
        exclude_patterns=tuple(copy.exclude_patterns),
        always_replace_existing_dest_paths=copy.always_replace_existing_dest_paths,
        required_paths=tuple(copy.required_paths),
    )


def _owner(
    deed: pb.FileActionCopy | pb.FileActionMkFile | pb.FileActionMkDir | pb.FileActionSymlink,
) -> graph.Owner | None:
    if not deed.HasField("owner"):
        return None
    user = _who(deed.owner.user) if deed.owner.HasField("user") else None
    group = _who(deed.owner.group) if deed.owner.HasField("group") else None
    return graph.Owner(user, group)


def _who(who: pb.UserOpt) -> graph.NamedUser | graph.UserID | None:
    match who.WhichOneof("user"):
        case "by_name":
            return graph.NamedUser(who.by_name.name, who.by_name.input)
        case "by_id":
            return graph.UserID(who.by_id)
    return None


def _member(kind: type[E], value: int, what: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise BadDefinition(reason=f"{what} {value} is not known") from None
