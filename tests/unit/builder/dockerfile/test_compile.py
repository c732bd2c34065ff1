"""Dockerfile -> graph: stages, variables, mounts, copies, contexts, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.builder import graph
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.graph import EMPTY, CacheSharing, HostIP, MountType, NetMode, ProxyEnv, SecurityMode, Source
from pier.oci import Platform
from pier.oci.image_config import RunConfig

from .compiling import ARM64, PATH, Images, compiled, execs, files, history, image, last, names, sources, steps

B = "FROM busybox\n"


def refused(text: str, *args: Any, **options: Any) -> DockerfileError:
    with pytest.raises(DockerfileError) as raised:
        compiled(text, *args, **options)
    return raised.value


def copies(found: Any) -> list[graph.Copy]:
    return [action.deed for file in files(found) for action in file.actions if isinstance(action.deed, graph.Copy)]


# --- stages


def test_only_what_the_target_needs_is_asked_for_and_built() -> None:
    images = Images({"busybox": image(), "one": image(), "two": image()})
    text = "FROM one AS a\nRUN 1\nFROM two AS b\nRUN 2\nFROM busybox AS c\nCOPY --from=a /x /x\nFROM missing\nRUN 3"
    found = compiled(text, images, target="c")
    assert sorted(images.asked) == [(f"docker.io/library/{name}:latest", "linux/amd64") for name in ("busybox", "one")]
    assert [each.meta.args[-1] for each in execs(found)] == ["1"]


@pytest.mark.parametrize(("target", "args"), [("", ["3"]), ("A", ["1"]), ("b", ["1", "2"]), ("1", ["1", "2"])])
def test_target(target: str, args: list[str]) -> None:
    found = compiled("FROM busybox AS a\nRUN 1\nFROM a AS b\nRUN 2\nFROM busybox\nRUN 3", target=target)
    assert [each.meta.args[-1] for each in execs(found)] == args


def test_an_unknown_target_names_the_nearest() -> None:
    error = refused("FROM busybox AS build\nFROM busybox AS test", target="biuld")
    assert error.message == 'target stage "biuld" could not be found (did you mean build?)'


def test_scratch_is_nothing() -> None:
    found = compiled("FROM scratch\nENV A=1")
    assert found.output is None
    assert found.image.config.env == [PATH, "A=1"]
    (step,) = files(compiled("FROM scratch\nCOPY a /"))
    assert step.actions[0].input == EMPTY


def test_an_image_that_is_only_copied_from() -> None:
    images = Images({"busybox": image(), "tools": image()})
    found = compiled(B + "COPY --from=tools /a /b", images)
    assert [source.identifier for source in sources(found)] == [
        "docker-image://docker.io/library/busybox:latest",
        "docker-image://docker.io/library/tools:latest",
    ]
    assert "FROM docker.io/library/tools:latest" in names(found)


def test_variables_in_from() -> None:
    found = compiled("ARG N=busy\nARG T=$N\nFROM ${T}box:latest", build_args={})
    assert sources(found)[0].identifier == "docker-image://docker.io/library/busybox:latest"


def test_trap_24_a_circle_is_printed_with_its_lines() -> None:
    error = refused("FROM busybox AS a\nCOPY --from=b /x /x\nFROM busybox AS b\nRUN --mount=from=a,target=/y true")
    assert error.message == (
        "circular dependency detected on stage: a (a -> b -> a; line 2: a needs b by COPY --from=b /x /x, "
        "line 4: b needs a by RUN --mount=from=a,target=/y true)"
    )
    assert [place.first_line for place in error.at] == [2, 4]
    assert "circular dependency detected on stage: a (a -> a" in refused("FROM busybox AS a\nCOPY --from=a x y").message


def test_a_circle_of_thousands_of_stages() -> None:
    stages = [f"FROM scratch AS s{n}\nCOPY --from=s{(n + 1) % 1000} /x /x" for n in range(1000)]
    assert len(refused("\n".join(stages)).at) == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (B + "COPY --from=3 a b", "invalid stage index 3"),
        (
            B + "COPY --from=$X a b",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround",
        ),
        (
            "FROM busybox AS a\nCOPY --from=1 /x /x\nFROM busybox AS b\nFROM a",
            'cannot copy from stage "b", it needs to be defined before current stage "a"',
        ),
        ("FROM $NOPE", "base name ($NOPE) should not be blank"),
        ("FROM b:?", 'failed to parse stage name "b:?": invalid reference format'),
        ("FROM busibox", "busibox: docker.io/library/busibox:latest: not found (did you mean busybox?)"),
        (
            "FROM --platform=a/b/c/d busybox",
            'failed to parse platform a/b/c/d: "a/b/c/d": cannot parse platform specifier: invalid argument',
        ),
        ("FROM --platform=$NOPE busybox", "empty platform value from expression $NOPE"),
        ("FROM --platform=windows/amd64 busybox", "stages for windows cannot be built here: only those for linux can"),
        (B + "STOPSIGNAL NOPE", "invalid signal: NOPE"),
        (B + "EXPOSE 99999", "invalid containerPort: 99999"),
        (B + "EXPOSE 80/foo", 'invalid port: "80/foo": invalid proto: foo'),
        (B + "ENV A=${B:?why}", 'failed to process "${B:?why}": B: why'),
        (B + "RUN --mount=type=$T,target=/x true", 'unsupported mount type ""'),
        (B + "RUN --mount=type=cache true", 'invalid mount target "/"'),
        (
            B + "COPY --chmod=999 a b",
            "invalid chmod parameter: '999'. it should be octal string and between 0 and 07777",
        ),
        (
            B + "COPY --chmod=u+q a b",
            "invalid chmod parameter: 'u+q'. it should be octal, or symbolic such as u=rwX,go-w",
        ),
        (B + "ADD --checksum=sha256:0 a b", "checksum requires HTTP(S) or Git sources"),
        (B + "COPY http://x/a b", "source can't be a URL for COPY"),
        (B + "COPY https://x/a.git b", "source can't be a git ref for COPY"),
        (B + "ADD https://x/a.git?nope=1 b", 'unexpected query "nope"'),
        (
            "# syntax=foo/bar:1\nFROM busybox",
            "# syntax=foo/bar:1: a frontend from an image is not run: the language here is that of docker/dockerfile, "
            "in every version; remove the line if the file is a plain Dockerfile",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    assert refused(text).message == message


def test_no_frontend_is_fetched_for_its_own_language() -> None:
    for syntax in (
        "docker/dockerfile:1",
        "docker/dockerfile:1.7-labs",
        "docker.io/docker/dockerfile@sha256:0",
        "docker/dockerfile-upstream:master-labs",
        "docker.io/docker/dockerfile-upstream:1.9 and further words",
        "mirror.internal:5000/docker/dockerfile:1",
        "harbor.internal/hub/docker/dockerfile:1@sha256:0",
    ):
        assert compiled(f"# syntax={syntax}\nFROM scratch").output is None


def test_an_image_for_windows() -> None:
    images = Images({"busybox": image(platform=Platform(os="windows", architecture="amd64"))})
    assert refused(B, images).message == "busybox is an image for windows: only those for linux can be built upon"


# --- triggers


def test_triggers_of_an_image_run_first_and_are_not_handed_on() -> None:
    triggers = ["ENV A=1", "COPY --from=tools /t /t", "RUN t"]
    images = Images({"busybox": image(RunConfig(env=[PATH], on_build=triggers)), "tools": image()})
    found = compiled(B + "RUN own", images)
    assert [each.meta.args[-1] for each in execs(found)] == ["t", "own"]
    assert found.image.config.on_build == []
    assert found.image.config.env == [PATH, "A=1"]
    assert ("docker.io/library/tools:latest", "linux/amd64") in images.asked
    assert "[3/4] ONBUILD RUN t" in names(found)


def test_triggers_of_a_stage() -> None:
    found = compiled("FROM busybox AS a\nONBUILD RUN t\nFROM a\nRUN own\nFROM busybox", target="1")
    assert [each.meta.args[-1] for each in execs(found)] == ["t", "own"]


# --- variables


def test_arguments_of_a_stage() -> None:
    text = "ARG G=g\nFROM busybox AS a\nARG G\nARG D=$G.d\nENV E=$D\nFROM a\nRUN x\nFROM busybox\nRUN y"
    (step,) = execs(compiled(text, target="1"))
    assert step.meta.env == (PATH, "G=g", "D=g.d", "E=g.d")
    (step,) = execs(compiled(text))
    assert step.meta.env == (PATH,)


def test_given_values_go_before_defaults() -> None:
    found = compiled("ARG A=1\nFROM busybox\nARG A=2 B\nRUN x", build_args={"A": "9", "UNUSED": "u", "HTTP_PROXY": "p"})
    assert execs(found)[0].meta.env == (PATH, "A=9")
    assert found.unused_args == ("UNUSED",)
    assert found.output is not None
    assert found.output.vertex.note.proxy_env == ProxyEnv(http_proxy="p")
    assert history(found)[-1] == "RUN |2 A=9 B= /bin/sh -c x # buildkit"


def test_platform_arguments() -> None:
    names_of = "BUILDPLATFORM BUILDARCH TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT TARGETSTAGE"
    text = f"FROM busybox AS out\nARG {names_of}\nRUN x"
    images = Images({"busybox": image(platform=Platform(os="linux", architecture="arm", variant="v7"))})
    arm = Platform(os="linux", architecture="arm", variant="v7")
    (step,) = execs(compiled(text, images, target_platform=arm))
    assert dict(each.split("=") for each in step.meta.env[1:]) == {
        "BUILDPLATFORM": "linux/amd64",
        "BUILDARCH": "amd64",
        "TARGETPLATFORM": "linux/arm/v7",
        "TARGETOS": "linux",
        "TARGETARCH": "arm",
        "TARGETVARIANT": "v7",
        "TARGETSTAGE": "out",
    }


def test_a_stage_of_another_platform() -> None:
    images = Images({"busybox": image(platform=ARM64), "go": image()})
    text = "FROM --platform=$BUILDPLATFORM go AS build\nARG TARGETARCH\nRUN x\nFROM busybox\nCOPY --from=build /o /o"
    found = compiled(text, images, target_platform=ARM64, several_platforms=True)
    assert (
        images.asked
        == [
            ("docker.io/library/go:latest", "linux/amd64"),
            ("docker.io/library/busybox:latest", "linux/arm64"),
        ]
        or images.asked[::-1]
    )
    assert "[linux/amd64->arm64 build 2/2] RUN x" in names(found)
    assert str(found.platform) == "linux/arm64"
    assert found.image.architecture == "arm64"


# --- RUN


def run(line: str, **options: Any) -> graph.Exec:
    return execs(compiled(B + line, **options))[-1]


def test_run_mounts() -> None:
    step = run(
        "RUN --mount=type=cache,target=/c,sharing=locked --mount=type=tmpfs,target=t,size=2k "
        "--mount=source=/s,target=/b --mount=type=secret,id=k,env=K --mount=type=secret,id=k,mode=0440 "
        "--mount=type=ssh,required make",
        cache_namespace="ns",
    )
    root, bind, cache, tmpfs, secret, ssh = step.mounts
    assert (root.dest, root.input, root.output) == ("/", 0, 0)
    assert (bind.dest, bind.selector, bind.readonly, bind.output) == ("/b", "/s", True, EMPTY)
    assert (cache.type, cache.input, cache.readonly) == (MountType.CACHE, EMPTY, False)
    assert cache.cache == graph.CacheMount("ns//c", CacheSharing.LOCKED)
    assert (tmpfs.type, tmpfs.dest, tmpfs.tmpfs_size_bytes) == (MountType.TMPFS, "/t", 2048)
    assert (secret.dest, secret.secret) == ("/run/secrets/k", graph.SecretMount("k", mode=0o440, optional=True))
    assert (ssh.dest, ssh.secret) == ("/run/buildkit/ssh_agent.0", graph.SecretMount("default", mode=0o600))
    assert step.secret_env == (graph.SecretEnv("k", "K", optional=True),)
    assert "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in step.meta.env


def test_a_writable_bind_is_thrown_away() -> None:
    mount = run("RUN --mount=target=/x,rw true").mounts[1]
    assert (mount.readonly, mount.output) == (False, EMPTY)


def test_a_cache_with_an_owner_begins_as_a_folder_of_theirs() -> None:
    found = compiled(B + "RUN --mount=type=cache,target=/c,uid=5,mode=0700 true")
    (folder,) = files(found)
    deed = folder.actions[0].deed
    assert isinstance(deed, graph.MakeDir)
    assert (deed.path, deed.mode, deed.owner) == ("/cache", 0o700, graph.Owner(graph.UserID(5), graph.UserID(0)))
    assert execs(found)[0].mounts[1].selector == "/cache"


def test_network_security_devices_and_the_builds_own_settings() -> None:
    step = run(
        "RUN --network=none --security=insecure --device=vendor.com/gpu=all,required true",
        extra_hosts=(HostIP("a", "1.2.3.4"),),
        hostname="h",
        network=NetMode.HOST,
    )
    assert (step.network, step.security) == (NetMode.NONE, SecurityMode.INSECURE)
    assert step.devices == (graph.Device("vendor.com/gpu=all"),)
    assert (step.meta.extra_hosts, step.meta.hostname) == ((HostIP("a", "1.2.3.4"),), "h")
    assert run("RUN true", network=NetMode.HOST).network is NetMode.HOST


def test_scripts_with_an_interpreter_are_files() -> None:
    found = compiled(B + "RUN <<EOF\n#!/bin/x\nhi\nEOF")
    (script,) = files(found)
    step = execs(found)[0]
    assert script.actions[0].deed == graph.MakeFile("/EOF", b"#!/bin/x\nhi\n", mode=0o755)
    assert step.meta.args == ("/bin/sh", "-c", "/dev/pipes/EOF")
    assert (step.mounts[1].dest, step.mounts[1].readonly) == ("/dev/pipes/", True)


# --- COPY and ADD


def test_only_what_is_used_of_the_context_is_asked_for() -> None:
    (context,) = [each for each in sources(compiled(B + "COPY a b/c/ /x/\nRUN --mount=source=d,target=/d true"))
                  if each.identifier == "local://context"]  # fmt: skip
    assert json.loads(context.attrs["local.followpaths"]) == ["a", "b/c", "d"]
    whole = sources(compiled(B + "COPY . /x/\nCOPY a /x/", ignore_patterns=("*.md",)))[-1]
    assert "local.followpaths" not in whole.attrs
    assert json.loads(whole.attrs["local.excludepatterns"]) == ["*.md"]


def test_a_copy() -> None:
    found = compiled(B + "WORKDIR /w\nCOPY --chown=me:7 --exclude=*.c a b/ sub/")
    first, second = last(found).actions
    assert (first.deed.src, first.deed.dest, second.deed.src) == ("/a", "/w/sub/", "/b")
    assert first.deed.exclude_patterns == ("*.c",)
    assert first.deed.owner == graph.Owner(graph.NamedUser("me", 0), graph.UserID(7))
    assert second.deed.owner == graph.Owner(graph.NamedUser("me", 2), graph.UserID(7))
    assert (first.input, first.secondary_input, first.output) == (0, 1, EMPTY)
    assert (second.input, second.secondary_input, second.output) == (2, 1, 0)


@pytest.mark.parametrize(
    ("dest", "expected"),
    [(".", "/w/"), ("./", "/w/"), ("x", "/w/x"), ("x/", "/w/x/"), ("x/.", "/w/x/."), ("/", "/"), ("../y", "/y"),
     ("/a//b/../c/", "/a/c/"), ("/.", "/.")],
)  # fmt: skip
def test_destinations(dest: str, expected: str) -> None:
    assert copies(compiled(f"{B}WORKDIR /w\nCOPY a {dest}"))[0].dest == expected


@pytest.mark.parametrize(
    ("source", "src", "include", "required"),
    [
        ("a/b", "/", ("a/b",), ("/a/b",)),
        ("./a/./b/c", "/a", ("b/c",), ("/a/b/c",)),
        ("a/*/b", "/", ("a/*/b",), ()),
        ("/a/./*.c", "/a", ("*.c",), ()),
    ],
)
def test_parents(source: str, src: str, include: tuple[str, ...], required: tuple[str, ...]) -> None:
    (copy,) = copies(compiled(f"{B}COPY --parents {source} /d/"))
    assert (copy.src, copy.include_patterns, copy.required_paths) == (src, include, required)


def test_link_stands_beside_the_stage() -> None:
    found = compiled(B + "COPY --link a /a")
    assert last(found) == graph.Merge((0, 1))
    (copy,) = files(found)
    assert copy.actions[0].input == EMPTY
    groups = [vertex.note.group for vertex in steps(found)[-2:]]
    assert all(group is not None and group.name == "[2/2] COPY --link a /a" for group in groups)


def test_add_from_elsewhere() -> None:
    text = B + f"ADD --checksum=sha256:{64 * 'a'} https://x.y/z/f.tar /d/\nADD --unpack https://x.y/ /e\n"
    found = compiled(
        text + "ADD --keep-git-dir git@host:o/r.git#v1:sub /g/\nADD https://h/r.git?branch=b&submodules=0 /i/"
    )
    web, bare, ssh, https = sources(found)[1:]
    assert web == Source("https://x.y/z/f.tar", {"http.filename": "f.tar", "http.checksum": "sha256:" + 64 * "a"})
    assert bare.attrs == {"http.filename": "__unnamed__"}
    assert ssh.identifier == "git://host/o/r.git#v1:sub"
    assert ssh.attrs["git.keepgitdir"] == "true"
    assert ssh.attrs["git.mountsshsock"] == "default"
    assert https.identifier == "git://h/r.git#refs/heads/b"
    assert (https.attrs["git.fullurl"], https.attrs["git.skipsubmodules"]) == ("https://h/r.git", "true")
    assert [copy.attempt_unpack for copy in copies(found)] == [False, True, False, False]
    assert [copy.src for copy in copies(found)] == ["/f.tar", "/__unnamed__", "/", "/"]


@pytest.mark.parametrize(
    ("line", "corrected"),
    [
        ("COPY a b /dest", "COPY a b /dest/"),
        ('COPY ["a", "b c", "/dest"]', 'COPY ["a", "b c", "/dest/"]'),
        ("ADD a b c d", "ADD a b c d/"),
        ("COPY a <<E $D\nE", "COPY a <<E $D/"),
        ("COPY a b /usr/local/bin/x", "COPY a b /usr/local/bin/x/"),
    ],
)
def test_trap_05_several_sources_want_a_folder(line: str, corrected: str) -> None:
    error = refused(f"{B}ENV D=/d\n{line}")
    assert error.message.endswith(f"must be a directory and end with a /: line 3 should read: {corrected}")
    assert error.at[0].first_line == 3


@pytest.mark.parametrize(
    "text",
    [
        "COPY a b /d/",
        "COPY a b .",
        "COPY a b ..",
        "COPY a b /",
        "COPY a* /d",
        "ENV D=x/\nCOPY a b $D",
        "WORKDIR /d\nCOPY a b /d",
        "WORKDIR /d/e\nCOPY a b /d",
        "COPY x /d/\nCOPY a b /d",
        "COPY a b /usr/local/bin",
        "COPY a b /data",
        "COPY a b /srv/app",
        "RUN mkdir -p /made/here && true\nCOPY a b /made/here",
    ],
)
def test_trap_05_a_folder_is_known_when_it_is_seen(text: str) -> None:
    known = RunConfig(env=[PATH], working_dir="/srv/app", volumes={"/data": {}})
    assert copies(compiled(B + text, Images({"busybox": image(known)})))


# --- contexts


def test_named_contexts() -> None:
    images = Images({"busybox": image(), "other": image()})
    text = "FROM busybox AS base\nRUN x\nFROM base\nCOPY --from=files /a /a\nCOPY --from=tool /b /b"
    contexts = {"base": "docker-image://other", "files": "local:files", "tool": "https://h/t.git#v1"}
    found = compiled(text, images, contexts=contexts)
    assert [each.identifier for each in sources(found)] == [
        "docker-image://docker.io/library/other:latest",
        "local://files",
        "git://h/t.git#v1",
    ]
    assert execs(found) == []


def test_a_context_in_place_of_an_image() -> None:
    found = compiled(B + "RUN x", Images({"other": image()}), contexts={"busybox": "docker-image://other:latest"})
    assert sources(found)[0].identifier == "docker-image://docker.io/library/other:latest"
    assert refused(B, contexts={"busybox": "nope"}).message == "invalid context specifier nope for busybox"
    assert refused(B, contexts={"busybox": "nope:x"}).message == "unsupported context source nope for busybox"


# --- notes, times, labels


def test_no_cache() -> None:
    text = "FROM busybox AS a\nRUN 1\nFROM a AS b\nRUN 2"

    def ignoring(**options: Any) -> list[bool]:
        return [
            vertex.note.ignore_cache for vertex in steps(compiled(text, **options)) if isinstance(vertex.op, graph.Exec)
        ]

    assert ignoring() == [False, False]
    assert ignoring(no_cache=True) == [True, True]
    assert ignoring(no_cache_stages=frozenset({"b"})) == [False, True]


def test_steps_know_their_lines() -> None:
    found = compiled(B + "RUN a \\\n  b")
    assert found.output is not None
    note = found.output.vertex.note
    assert note.location is not None
    assert note.location.ranges == ((graph.Position(2), graph.Position(3)),)
    assert note.description == {"com.docker.dockerfile.v1.command": "RUN a   b"}


def test_a_secret_is_not_shown() -> None:
    found = compiled(B + "ENV S=clear\nRUN --mount=type=secret,id=s,env=S echo $S")
    assert names(found)[-1] == "[2/2] RUN --mount=type=secret,id=s,env=S echo ****"


def test_reproducible_times_and_labels() -> None:
    found = compiled(B + "COPY a /a\nWORKDIR /w", build_args={"SOURCE_DATE_EPOCH": "1500000000"}, labels={"l": "1"})
    assert [entry.created for entry in found.image.history[1:]] == ["2017-07-14T02:40:00Z"] * 2
    assert {action.deed.timestamp_ns for file in files(found) for action in file.actions
            if not isinstance(action.deed, graph.Remove)} == {1500000000 * 10**9}  # fmt: skip
    assert found.image.config.labels == {"l": "1"}
    assert found.epoch_s == 1500000000
    assert compiled("ARG SOURCE_DATE_EPOCH=77\n" + B).epoch_s == 77
    assert compiled(B).epoch_s is None
    assert "SOURCE_DATE_EPOCH" in refused(B, build_args={"SOURCE_DATE_EPOCH": "x"}).message


def test_a_history_has_bounds() -> None:
    text = "ENV A=" + "x" * 1000 + "\n" + "ENV A=$A$A\n" * 9 + "ENV B=$A\n" * 20
    assert refused(B + text).message.startswith("the image's history would have more than")


def test_many_stages_one_upon_another() -> None:
    text = "".join(f"FROM {'scratch' if not n else f's{n - 1}'} AS s{n}\n" for n in range(1_000))
    assert compiled(text).output is None


# --- files that nobody meant

_LINES = st.sampled_from(
    [
        *("FROM busybox AS a", "FROM a", "FROM scratch", "FROM $X", "FROM --platform=$TARGETPLATFORM busybox"),
        *(
            "ARG X=busybox",
            "ARG A=1 B C=$A",
            "ENV A=$B",
            "ENV Q $A x",
            "ENV ${A}=b",
            "ENV a=${A//x/y}${B%%*}",
            "ENV a==",
        ),
        *("COPY a b", "COPY --from=a x y/", "COPY --from=0 x y/", "COPY --chown=$A:b --chmod=$B a b", 'COPY "" ""'),
        *(
            'COPY ["",""]',
            "COPY $Z $Z",
            "COPY --parents a/./b x/",
            "COPY <<E <<-'F' /x/\n$A\nE\n\tb\n\tF",
            "COPY --link a b",
        ),
        *("ADD https://x/y z", "ADD git@h:x.git#v:s /g", "ADD $Z $Z $Z/", "RUN x", "RUN []", "RUN", "RUN <<E\n#!/x\nE"),
        *("RUN a <<E b <<F\n1\nE\n2\nF", "RUN --mount=type=cache,target=/x,id=$A x", "RUN --mount=from=a,target=$A x"),
        *("RUN --mount=type=secret,env=X x", "RUN --mount=target=,source= x", "RUN --mount=from=,target=/a x"),
        *("WORKDIR $A", "WORKDIR ''", "USER ''", 'VOLUME ["$A"]', "EXPOSE $A", "EXPOSE 1:2:3:4", "STOPSIGNAL $A"),
        *('SHELL [""]', "CMD []", "ENTRYPOINT x", "ONBUILD COPY --from=a x y", "ONBUILD RUN <<E\nx\nE", "MAINTAINER x"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, max_size=8), st.booleans(), st.sampled_from(["", " ", "9"]))
def test_any_file_is_compiled_or_refused(lines: list[str], everything: bool, value: str) -> None:
    text = "\n".join(["FROM busybox", *lines])
    triggers = RunConfig(env=[PATH], on_build=["COPY --from=a x y"] if everything else [])
    with suppress(DockerfileError):
        found = compiled(text, Images({"busybox": image(triggers)}), all_stages=everything, build_args={"A": value})
        assert msgspec.json.encode(found.image, enc_hook=str)
        assert all(names(found))
