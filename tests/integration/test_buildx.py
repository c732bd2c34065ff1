"""BuildKit's clients as they are: `docker buildx build`, `bake` and `docker compose`, with their own display."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Daemon, poll

pytestmark = pytest.mark.root

TOOL = Path(__file__).resolve().parents[2] / "tools" / "docker-plugins"


class Buildx:
    """Docker's command with its plugins, against one daemon."""

    def __init__(self, daemon: Daemon, config: Path) -> None:
        self.environment = {**daemon.environment, "DOCKER_CONFIG": str(config), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

    def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *words], env=self.environment, input=stdin, capture_output=True, timeout=60, check=False
        )
        return subprocess.CompletedProcess(
            words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def ok(self, *words: str) -> str:
        """What a command that must succeed has shown, on both streams."""
        done = self(*words)
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    def build(self, folder: Path, *flags: str) -> str:
        """`buildx build` with its plain display."""
        return self.ok("buildx", "build", "--progress=plain", *flags, str(folder))


@pytest.fixture(scope="module")
def plugins() -> str:
    if shutil.which("docker") is None:
        pytest.skip("Docker's command line is not installed")
    found = subprocess.run([TOOL], capture_output=True, text=True, timeout=300, check=False)
    if found.returncode:
        pytest.skip(f"no docker-buildx: {found.stderr.strip()}")
    return found.stdout.strip()


@pytest.fixture
def buildx(daemon: Daemon, plugins: str, tmp_path: Path) -> Iterator[Buildx]:
    config = tmp_path / "config"
    config.mkdir()
    (config / "cli-plugins").symlink_to(plugins)
    made = Buildx(daemon, config)
    before = set(made.ok("images", "-aq", "--no-trunc").split())
    yield made
    if left := set(made.ok("images", "-aq", "--no-trunc").split()) - before:
        made.ok("rmi", "-f", *left)


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Path]:
    folder = tmp_path / "context"
    folder.mkdir()

    def make(dockerfile: str, **files: str) -> Path:
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            (folder / name).write_text(text)
        return folder

    return make


FILE = """\
FROM busybox AS made
RUN echo made > /greeting
FROM busybox
COPY --from=made /greeting /in/
COPY a /a
CMD ["cat", "/in/greeting", "/a"]
"""


def test_a_build_is_shown_cached_and_can_be_run(buildx: Buildx, context: Callable[..., Path], tmp_path: Path) -> None:
    folder, facts, id = context(FILE, a="A\n"), tmp_path / "facts", tmp_path / "id"
    shown = buildx.build(folder, "-t", "x:1", "--metadata-file", str(facts), "--iidfile", str(id))
    assert "[made 2/2] RUN echo made > /greeting" in shown
    assert "naming to docker.io/library/x:1 done" in shown
    assert buildx.ok("run", "--rm", "x:1") == "made\nA\n"
    image = buildx.ok("image", "inspect", "-f", "{{.Id}}", "x:1").strip()
    said = json.loads(facts.read_text())
    assert said["containerimage.config.digest"] == image
    assert said["image.name"] == "docker.io/library/x:1"
    assert id.read_text() == image
    again = buildx.build(folder, "-t", "x:2")
    assert again.count("CACHED") == 3
    assert buildx.ok("image", "inspect", "-f", "{{.Id}}", "x:2").strip() == image


def test_a_changed_file_makes_what_needs_it_anew_and_nothing_else(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context(FILE, a="A\n")
    buildx.build(folder, "-t", "x")
    (folder / "a").write_text("B\n")
    (folder / "unused").write_text("x" * 100_000)
    shown = buildx.build(folder, "-t", "x")
    assert shown.count("CACHED") == 2
    assert buildx.ok("run", "--rm", "x") == "made\nB\n"


def test_a_failing_step_shows_its_output_and_its_line(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN echo before; exit 3\n")
    done = buildx("buildx", "build", "--progress=plain", str(folder))
    assert done.returncode == 1
    assert "Dockerfile:2" in done.stderr
    assert "2 | >>> RUN echo before; exit 3" in done.stderr
    reason = 'process "/bin/sh -c echo before; exit 3" did not complete successfully: exit code: 3'
    assert f"ERROR: failed to solve: {reason}" in done.stderr


def test_the_time_of_an_image_is_said_in_its_dockerfile(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("ARG SOURCE_DATE_EPOCH=77\nFROM scratch\nCOPY a /\n", a="A\n")
    buildx.build(folder, "-t", "x")
    assert buildx.ok("image", "inspect", "-f", "{{.Created}}", "x").strip() == "1970-01-01T00:01:17Z"
    refused = buildx("buildx", "build", "--build-arg", "SOURCE_DATE_EPOCH=soon", str(folder))
    assert "failed to solve: invalid SOURCE_DATE_EPOCH: soon: seconds since 1970 are wanted" in refused.stderr


def test_a_wrong_line_is_shown(buildx: Buildx, context: Callable[..., Path]) -> None:
    done = buildx("buildx", "build", "--progress=plain", str(context("FROM busybox\nCOPPY a b\n")))
    assert done.returncode == 1
    reason = "dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)"
    assert f"ERROR: failed to solve: {reason}" in done.stderr, "no code's name before it"
    assert "2 | >>> COPPY a b" in done.stderr


def test_what_the_checks_found_is_told_of_a_refused_file_too(buildx: Buildx, context: Callable[..., Path]) -> None:
    done = buildx("buildx", "build", "--progress=plain", str(context("FROM busybox\nMAINTAINER me\nEXPOSE abc\n")))
    assert done.returncode == 1
    assert "ERROR: failed to solve: invalid containerPort: abc" in done.stderr
    assert "MaintainerDeprecated: " in done.stderr


def test_checks_are_shown_as_warnings(buildx: Buildx, context: Callable[..., Path]) -> None:
    shown = buildx.build(context("FROM busybox as x\nCMD echo hi\n"))
    assert "2 warnings found" in shown
    assert "JSONArgsRecommended" in shown


def test_secrets_and_cache_mounts(buildx: Buildx, context: Callable[..., Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    folder = context(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=s,required [ $(cat /run/secrets/s) = s3cret ]\n"
        "RUN --mount=type=secret,id=s,env=S [ $S = s3cret ]\n"
        "RUN --mount=type=cache,target=/c,id=buildx-test echo x >> /c/f; cp /c/f /f\n"
        "RUN [ ! -e /run/secrets/s ] && [ ! -e /c/f ]\n"
    )
    buildx.build(folder, "--secret", f"id=s,src={secret}", "-t", "x")
    buildx.build(folder, "--secret", f"id=s,src={secret}", "-t", "x", "--no-cache")
    assert buildx.ok("run", "--rm", "x", "cat", "/f") == "x\nx\n"
    done = buildx("buildx", "build", str(folder), "--no-cache")
    assert "secret s: not found" in done.stderr


def test_an_agent_of_the_clients(buildx: Buildx, context: Callable[..., Path]) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent")
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    facts = dict(part.split("=", 1) for part in agent.replace(";", "\n").split() if "=" in part)
    buildx.environment |= {"SSH_AUTH_SOCK": facts["SSH_AUTH_SOCK"]}
    try:
        folder = context("FROM busybox\nRUN --mount=type=ssh [ -S $SSH_AUTH_SOCK ] && echo there is one\n")
        assert "there is one" in buildx.build(folder, "--ssh", "default")
    finally:
        os.kill(int(facts["SSH_AGENT_PID"]), signal.SIGTERM)


OUT = """\
FROM busybox AS made
RUN mkdir -p /o/d && echo out > /o/d/f && chmod 640 /o/d/f && ln -s d/f /o/l
FROM scratch
COPY --from=made /o /
"""


def test_files_for_the_client(buildx: Buildx, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context(OUT)
    buildx.build(folder, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/l").read_text() == "out\n"
    assert (tmp_path / "out/d/f").stat().st_mode & 0o777 == 0o640
    buildx.build(folder, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["d", "d/f", "l"]


def test_a_file_from_standard_input(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("", a="A")
    done = buildx("buildx", "build", "-f", "-", "-t", "x", str(folder), stdin=b"FROM busybox\nCOPY a /b\n")
    assert done.returncode == 0, done
    assert buildx.ok("run", "--rm", "x", "cat", "/b") == "A"


def test_a_context_from_standard_input(buildx: Buildx) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("Dockerfile", b"FROM busybox\nCOPY a /b\n"), ("a", b"A")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    done = buildx("buildx", "build", "-t", "x", "-", stdin=buffer.getvalue())
    assert done.returncode == 0, done
    assert buildx.ok("run", "--rm", "x", "cat", "/b") == "A"


def test_what_is_ignored_is_not_sent(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nCOPY . /c\nRUN [ -e /c/a ] && [ ! -e /c/left ]\n", a="A", left="out")
    (folder / ".dockerignore").write_text("left\n")
    buildx.build(folder)


def test_two_targets_of_a_bake_file(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context(FILE, a="A\n", other=OUT)
    (folder / "docker-bake.json").write_text(
        json.dumps(
            {
                "group": {"default": {"targets": ["one", "two"]}},
                "target": {
                    "one": {"context": str(folder), "tags": ["one"]},
                    "two": {"context": str(folder), "dockerfile": "other", "tags": ["two"]},
                },
            }
        )
    )
    buildx.ok("buildx", "bake", "-f", str(folder / "docker-bake.json"))
    assert {"one:latest", "two:latest"} <= set(buildx.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split())


def test_the_cache_is_shown_and_pruned(buildx: Buildx, daemon: Daemon, context: Callable[..., Path]) -> None:
    buildx.build(context("FROM busybox\nRUN head -c 100000 /dev/urandom > /f\n"))
    assert "Reclaimable:" in buildx.ok("buildx", "du")
    shown = buildx.ok("buildx", "du", "--verbose", "--filter", "type=source.local")
    assert "Description:\tlocal source for context" in shown
    kept = buildx.ok("buildx", "prune", "-af", "--filter", "until=24h")
    assert kept.split() == ["Total:", "0B"]
    assert "Total:" in buildx.ok("buildx", "prune", "-af", "--filter", "type=regular")
    assert "local source for context" in buildx.ok("buildx", "du", "--verbose")
    assert "Total:" in buildx.ok("buildx", "prune", "-af")
    assert buildx.ok("buildx", "du").split()[-1] == "0B"
    assert list((daemon.data_root / "builder/synced").iterdir()) == []


def test_the_builder_describes_itself(buildx: Buildx) -> None:
    shown = buildx.ok("buildx", "inspect")
    assert "Status:           running" in shown
    assert "Platforms:        linux/" in shown


def test_a_client_that_goes_away_ends_its_build(
    buildx: Buildx, context: Callable[..., Path], daemon: Daemon, tmp_path: Path
) -> None:
    folder = context("FROM busybox\nRUN echo begun; sleep 1000\n")
    steps = daemon.exec_root / "builds"
    with (tmp_path / "shown").open("wb") as shown:
        build = subprocess.Popen(
            ["docker", "buildx", "build", "--progress=plain", str(folder)],
            env=buildx.environment,
            stdout=shown,
            stderr=shown,
        )
    poll(lambda: "begun" in (tmp_path / "shown").read_text(), "the step to begin", 30)
    assert list(steps.iterdir())
    build.send_signal(signal.SIGKILL)
    build.wait()
    poll(lambda: not list(steps.iterdir()), "the step to be gone", 30)


def test_a_file_is_asked_for_what_it_takes(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("ARG A=1\nFROM busybox AS one\n# B is the second\nARG B=2\nRUN --mount=type=secret,id=s true\n")
    buildx.environment |= {"BUILDX_EXPERIMENTAL": "1"}
    shown = buildx.ok("buildx", "build", "--print=outline", str(folder))
    assert "B" in shown
    assert "SECRET" in shown


def test_what_was_built_is_remembered(buildx: Buildx, context: Callable[..., Path]) -> None:
    if "history" not in buildx.ok("buildx", "--help"):
        pytest.skip("docker-buildx is too old to ask")
    buildx.build(context("FROM busybox\nRUN echo remember me\n"))
    assert "Completed" in buildx.ok("buildx", "history", "ls")
    assert "remember me" in buildx.ok("buildx", "history", "logs", "--progress=plain")
    buildx.ok("buildx", "history", "rm", "--all")


MULTI = """\
FROM --platform=$BUILDPLATFORM busybox AS made
ARG TARGETARCH BUILDPLATFORM
RUN echo $TARGETARCH on $BUILDPLATFORM > /made
FROM scratch
ARG TARGETARCH
COPY --from=made /made /a-$TARGETARCH
"""
BOTH = ("--platform", "linux/amd64,linux/arm64")


def test_an_image_of_two_platforms_in_every_output_at_once(
    buildx: Buildx, context: Callable[..., Path], tmp_path: Path
) -> None:
    """With the default builder and its default of a provenance, which nobody here makes."""
    del buildx.environment["BUILDX_NO_DEFAULT_ATTESTATIONS"]
    folder, facts = context(MULTI), tmp_path / "facts"
    archive, layout, files = tmp_path / "oci.tar", tmp_path / "layout", tmp_path / "files"
    wanted = [
        "type=image",
        f"type=oci,dest={archive},compression=zstd",
        f"type=oci,tar=false,dest={layout}",
        str(files),
    ]
    outputs = [word for each in wanted for word in ("--output", each)]
    notes = ("--annotation", "index:a=b", "--annotation", "manifest[linux/arm64]:c=d")
    shown = buildx.build(folder, *BOTH, "-t", "multi:1", *outputs, *notes, "--metadata-file", str(facts))
    assert "exporting manifest list sha256:" in shown
    saved = subprocess.check_output(["docker", "save", "multi:1"], env=buildx.environment, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(saved)) as opened:
        [entry] = json.loads(opened.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
    assert entry["mediaType"] == "application/vnd.oci.image.index.v1+json"
    with tarfile.open(archive) as opened:
        read = {entry.name: opened.extractfile(entry).read() for entry in opened if entry.isfile()}  # type: ignore[union-attr]
    [entry] = json.loads(read["index.json"])["manifests"]
    index = json.loads(read[entry["digest"].replace("sha256:", "blobs/sha256/")])
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["annotations"] == {"a": "b"}
    platforms = [each["platform"]["architecture"] for each in index["manifests"]]
    assert platforms == ["amd64", "arm64"]
    manifest = json.loads(read[index["manifests"][1]["digest"].replace("sha256:", "blobs/sha256/")])
    assert manifest["annotations"] == {"c": "d"}
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    assert json.loads((layout / "index.json").read_text())["manifests"][0]["mediaType"] == index["mediaType"]
    assert (files / "linux_arm64/a-arm64").read_text().startswith("arm64 on linux/")
    said = json.loads(facts.read_text())
    assert said["image.name"] == "docker.io/library/multi:1"
    assert said["containerimage.descriptor"]["digest"] == said["containerimage.digest"]
    assert said["buildx.build.ref"].startswith("default/")
    assert "containerimage.config.digest" not in said


def test_programs_of_another_platform_are_told_apart(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("FROM scratch\nCOPY sh /bin/sh\nRUN true\n")
    foreign = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x02\x01" + bytes(200)  # LoongArch, emulated nowhere
    (folder / "sh").write_bytes(foreign)
    (folder / "sh").chmod(0o755)
    done = buildx("buildx", "build", "--progress=plain", "--platform", "linux/loong64", str(folder))
    assert done.returncode == 1
    assert "exec /bin/sh: exec format error: the program is for linux/loong64" in done.stderr
    assert 'process "/bin/sh -c true" did not complete successfully: exit code: 255' in done.stderr


def test_two_platforms_for_a_client_that_speaks_nothing_but_grpc(
    buildx: Buildx, context: Callable[..., Path], daemon: Daemon, tmp_path: Path
) -> None:
    folder = context(MULTI)
    buildx.ok("buildx", "create", "--name", "piertest", "--driver", "remote", f"unix://{daemon.socket}")
    try:
        both = ("--builder", "piertest", *BOTH, "--output", f"type=oci,name=multi:2,dest={tmp_path / 'oci.tar'}")
        buildx.build(folder, *both)
        with tarfile.open(tmp_path / "oci.tar") as archive:
            assert {"oci-layout", "index.json"} <= set(archive.getnames())
        done = buildx("buildx", "build", "--builder", "piertest", *BOTH, "-o", "type=docker", str(folder))
        assert "docker exporter does not currently support exporting manifest lists" in done.stderr
    finally:
        buildx.ok("buildx", "rm", "piertest")


COMPOSE = """\
services:
  web:
    build: .
    image: compose-web
    init: true
    command: ["sh", "-c", "echo shared > /data/f; httpd -f -h /data"]
    volumes: ["data:/data"]
    networks: {front: {aliases: [site]}, back: {}}
    healthcheck: {test: ["CMD", "wget", "-qO-", "http://127.0.0.1/f"], interval: 0.2s, retries: 50}
  app:
    image: busybox
    init: true
    command: ["sh", "-c", "wget -qO- http://site/f && wget -qO- http://web/f && sleep 1000"]
    depends_on: {web: {condition: service_healthy}}
    networks: [front]
networks:
  front: {}
  back: {internal: true}
volumes:
  data: {}
"""


def test_compose_builds_starts_connects_and_takes_all_away(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN mkdir /data\n")
    (folder / "compose.yaml").write_text(COMPOSE)
    compose = ("compose", "--project-directory", str(folder), "-p", "piertest")
    try:
        buildx.ok(*compose, "up", "-d", "--build", "--scale", "app=2")
        poll(lambda: buildx.ok(*compose, "logs", "app").count("shared") == 4, "both to reach it by both names", 20)
        running = buildx.ok(*compose, "ps", "--format", "{{.Service}} {{.State}}").splitlines()
        assert sorted(running) == ["app running", "app running", "web running"]
        found = buildx.ok(*compose, "exec", "-T", "web", "nslookup", "app")
        assert found.count("Address: 172.") == 2 or found.count("Address: 10.") == 2, found
    finally:
        buildx.ok(*compose, "down", "-v", "-t", "1", "--rmi", "local")
    assert "piertest" not in buildx.ok("network", "ls") + buildx.ok("volume", "ls") + buildx.ok("ps", "-a")
