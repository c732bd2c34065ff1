"""Definitions of LLB become graphs; those that make no sense are refused with a reason."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.builder import graph
from pier.buildkit.llb import BadDefinition, output_of
from pier.buildkit.pb import ops_pb2 as pb
from pier.errors import PierError
from pier.oci import Platform


class Writer:
    """Makes definitions."""

    def __init__(self) -> None:
        self.definition = pb.Definition()

    def add(self, op: pb.Op, **metadata: object) -> str:
        raw = op.SerializeToString()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.definition.ops.append(raw)
        if metadata:
            self.definition.metadata[digest].CopyFrom(pb.OpMetadata(**metadata))  # type: ignore[arg-type]
        return digest

    def want(self, digest: str, index: int = 0) -> graph.Output:
        self.add(pb.Op(inputs=[pb.Input(digest=digest, index=index)]))
        output = output_of(self.definition)
        assert output is not None
        return output


def image(name: str = "docker-image://docker.io/library/busybox:latest") -> pb.Op:
    return pb.Op(
        source=pb.SourceOp(identifier=name, attrs={"image.resolvemode": "local"}),
        platform=pb.Platform(os="linux", architecture="arm64", variant="v8"),
    )


def test_an_empty_definition_wants_nothing() -> None:
    assert output_of(pb.Definition()) is None


def test_a_source() -> None:
    writer = Writer()
    vertex = writer.want(writer.add(image())).vertex
    assert vertex.op == graph.Source("docker-image://docker.io/library/busybox:latest", {"image.resolvemode": "local"})
    assert vertex.platform == Platform(os="linux", architecture="arm64", variant="v8")


def test_a_process_with_all_its_mounts() -> None:
    writer = Writer()
    base = writer.add(image())
    op = pb.ExecOp(
        meta=pb.Meta(
            args=["make"],
            env=["A=1"],
            cwd="/src",
            user="1:2",
            proxy_env=pb.ProxyEnv(http_proxy="http://p"),
            extra_hosts=[pb.HostIP(host="h", ip="1.2.3.4")],
            hostname="n",
            ulimits=[pb.Ulimit(name="nofile", soft=1, hard=2)],
            valid_exit_codes=[0, 3],
        ),
        mounts=[
            pb.Mount(dest="/", input=0, output=0),
            pb.Mount(
                dest="/c",
                input=-1,
                output=-1,
                type=pb.CACHE,
                cache=pb.CacheOpt(id="x", sharing=int(graph.CacheSharing.LOCKED)),
            ),
            pb.Mount(dest="/t", input=-1, output=-1, type=pb.TMPFS, tmpfs=pb.TmpfsOpt(size=5)),
            pb.Mount(
                dest="/s", input=-1, output=-1, type=pb.SECRET, secret=pb.SecretOpt(id="s", mode=0o400, optional=True)
            ),
            pb.Mount(dest="/a", input=-1, output=-1, type=pb.SSH, ssh=pb.SSHOpt(id="default", uid=3, mode=0o600)),
        ],
        network=pb.HOST,
        security=pb.INSECURE,
        secret_env=[pb.SecretEnv(id="t", name="TOKEN", optional=True)],
        cdi_devices=[pb.CDIDevice(name="vendor.com/gpu=0")],
    )
    step = writer.add(
        pb.Op(inputs=[pb.Input(digest=base)], exec=op),
        ignore_cache=True,
        description={"llb.customname": "[2/2] RUN make", "com.docker.dockerfile.v1.command": "RUN make"},
        progress_group=pb.ProgressGroup(id="g", name="group"),
    )
    writer.definition.source.infos.add(filename="Dockerfile")
    place = pb.Location(ranges=[pb.Range(start=pb.Position(line=2), end=pb.Position(line=3, character=4))])
    writer.definition.source.locations[step].locations.append(place)
    vertex = writer.want(step).vertex
    assert vertex.op == graph.Exec(
        graph.Meta(
            args=("make",),
            env=("A=1",),
            cwd="/src",
            user="1:2",
            extra_hosts=(graph.HostIP("h", "1.2.3.4"),),
            hostname="n",
            ulimits=(graph.Ulimit("nofile", 1, 2),),
            valid_exit_codes=(0, 3),
        ),
        (
            graph.Mount("/", 0, output=0),
            graph.Mount("/c", type=graph.MountType.CACHE, cache=graph.CacheMount("x", graph.CacheSharing.LOCKED)),
            graph.Mount("/t", type=graph.MountType.TMPFS, tmpfs_size_bytes=5),
            graph.Mount("/s", type=graph.MountType.SECRET, secret=graph.SecretMount("s", 0, 0, 0o400, True)),
            graph.Mount("/a", type=graph.MountType.SSH, secret=graph.SecretMount("default", 3, 0, 0o600)),
        ),
        graph.NetMode.HOST,
        graph.SecurityMode.INSECURE,
        (graph.SecretEnv("t", "TOKEN", True),),
        (graph.Device("vendor.com/gpu=0"),),
    )
    assert vertex.note == graph.Note(
        name="[2/2] RUN make",
        ignore_cache=True,
        location=graph.Location("Dockerfile", ((graph.Position(2), graph.Position(3, 4)),)),
        group=graph.ProgressGroup("g", "group"),
        description={"com.docker.dockerfile.v1.command": "RUN make"},
        proxy_env=graph.ProxyEnv("http://p"),
    )
    assert [each.vertex.op for each in vertex.inputs] == [output_source()]


def output_source() -> graph.Source:
    return graph.Source("docker-image://docker.io/library/busybox:latest", {"image.resolvemode": "local"})


def test_file_actions() -> None:
    writer = Writer()
    base = writer.add(image())
    named = pb.ChownOpt(user=pb.UserOpt(by_name=pb.NamedUserOpt(name="www", input=0)), group=pb.UserOpt(by_id=7))
    actions = [
        pb.FileAction(
            input=0,
            secondary_input=0,
            output=-1,
            copy=pb.FileActionCopy(src="/a", dest="/b", owner=named, mode=-1, timestamp=-1, mode_str="u+x"),
        ),
        pb.FileAction(
            input=1, secondary_input=-1, output=-1, mkfile=pb.FileActionMkFile(path="/f", data=b"x", timestamp=5)
        ),
        pb.FileAction(input=2, secondary_input=-1, output=-1, mkdir=pb.FileActionMkDir(path="/d", make_parents=True)),
        pb.FileAction(input=3, secondary_input=-1, output=-1, symlink=pb.FileActionSymlink(oldpath="/f", newpath="/l")),
        pb.FileAction(input=4, secondary_input=-1, output=0, rm=pb.FileActionRm(path="/f", allow_not_found=True)),
    ]
    step = writer.add(pb.Op(inputs=[pb.Input(digest=base)], file=pb.FileOp(actions=actions)))
    op = writer.want(step).vertex.op
    assert isinstance(op, graph.File)
    assert [action.deed for action in op.actions] == [
        graph.Copy(
            "/a",
            "/b",
            owner=graph.Owner(graph.NamedUser("www", 0), graph.UserID(7)),
            mode_str="u+x",
        ),
        graph.MakeFile("/f", b"x", mode=0, timestamp_ns=5),
        graph.MakeDir("/d", mode=0, make_parents=True, timestamp_ns=0),
        graph.Symlink("/f", "/l", timestamp_ns=0),
        graph.Remove("/f", allow_not_found=True),
    ]
    assert [action.output for action in op.actions] == [-1, -1, -1, -1, 0]


def test_merge_and_diff() -> None:
    writer = Writer()
    one, other = writer.add(image()), writer.add(image("docker-image://b"))
    inputs = [pb.Input(digest=one), pb.Input(digest=other)]
    merged = writer.add(pb.Op(inputs=inputs, merge=pb.MergeOp(inputs=[pb.MergeInput(input=0), pb.MergeInput(input=1)])))
    assert writer.want(merged).vertex.op == graph.Merge((0, 1))
    second = Writer()
    one, other = second.add(image()), second.add(image("docker-image://b"))
    diff = pb.DiffOp(lower=pb.DiffInput(input=0), upper=pb.DiffInput(input=1))
    assert second.want(second.add(pb.Op(inputs=inputs, diff=diff))).vertex.op == graph.Diff(0, 1)


def test_the_same_step_twice_is_one_vertex() -> None:
    writer = Writer()
    base = writer.add(image())
    merge = pb.MergeOp(inputs=[pb.MergeInput(input=0), pb.MergeInput(input=1)])
    vertex = writer.want(writer.add(pb.Op(inputs=[pb.Input(digest=base), pb.Input(digest=base)], merge=merge))).vertex
    assert vertex.inputs[0].vertex is vertex.inputs[1].vertex


NOWHERE = "sha256:" + 64 * "0"
BAD = {
    "bytes": (pb.Definition(ops=[b"\xff\xff"]), "cannot be decoded"),
    "nothing wanted": (pb.Definition(ops=[image().SerializeToString()]), "does not say what is wanted"),
    "unknown input": (
        pb.Definition(ops=[pb.Op(inputs=[pb.Input(digest=NOWHERE)]).SerializeToString()]),
        "is an input and not among its operations",
    ),
}


@pytest.mark.parametrize(("definition", "reason"), BAD.values(), ids=BAD)
def test_bad_definitions(definition: pb.Definition, reason: str) -> None:
    with pytest.raises(BadDefinition, match=reason):
        output_of(definition)


@pytest.mark.parametrize(
    "op",
    [
        pb.Op(exec=pb.ExecOp(meta=pb.Meta(args=["x"]), mounts=[pb.Mount(dest="/", input=5)])),
        pb.Op(exec=pb.ExecOp(mounts=[pb.Mount(dest="/", input=-1)])),
        pb.Op(exec=pb.ExecOp(meta=pb.Meta(args=["x"]), mounts=[pb.Mount(dest="/", input=-1, type=17)])),  # type: ignore[arg-type]
        pb.Op(file=pb.FileOp(actions=[pb.FileAction()])),
        pb.Op(build=pb.BuildOp()),
        pb.Op(platform=pb.Platform(os="linux")),
    ],
    ids=["unknown mount input", "no command", "unknown mount type", "no action", "build in a build", "no operation"],
)
def test_operations_that_make_no_sense(op: pb.Op) -> None:
    writer = Writer()
    with pytest.raises(PierError):
        writer.want(writer.add(op))


def test_a_long_chain_is_no_recursion() -> None:
    writer = Writer()
    last = writer.add(image())
    for number in range(3000):
        mkdir = pb.FileActionMkDir(path=f"/{number}")
        action = pb.FileAction(input=0, secondary_input=-1, output=0, mkdir=mkdir)
        last = writer.add(pb.Op(inputs=[pb.Input(digest=last)], file=pb.FileOp(actions=[action])))
    assert len(list(graph.below([writer.want(last)]))) == 3001


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_read_or_refused(ops: list[bytes]) -> None:
    try:
        output_of(pb.Definition(ops=ops))
    except PierError:
        return
