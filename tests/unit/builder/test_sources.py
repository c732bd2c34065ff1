"""Sources from the net: a web server and a repository behind one, both of the test's own."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.builder.graph import Output, Source, Vertex
from pier.builder.progress import Finished
from pier.builder.solver import StepFailed
from pier.builder.sources.git import BadGitSource, address, chosen
from pier.builder.sources.web import BadAttribute, name_of

from .conftest import Lab

IDENTITY = [
    "-c",
    "user.name=t",
    "-c",
    "user.email=t@t",
    "-c",
    "init.defaultBranch=main",
    "-c",
    "protocol.file.allow=always",
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """(address, folder, paths that were asked for)"""
    folder = tmp_path / "www"
    folder.mkdir()
    asked: list[str] = []
    handler = functools.partial(type("Handler", (Quiet,), {"asked": asked}), directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()
    thread.join()


def http_source(url: str, **attrs: str) -> Output:
    return Vertex(Source(url, {f"http.{name}": value for name, value in attrs.items()})).output()


@pytest.mark.root
async def test_a_file_by_its_address(lab: Lab, web: tuple[str, Path, list[str]]) -> None:
    url, folder, asked = web
    (folder / "file.txt").write_bytes(b"hello")
    assert await lab.tree(http_source(f"{url}/file.txt")) == {"file.txt": b"hello"}
    assert await lab.tree(http_source(f"{url}/file.txt", filename="other", perm="0755")) == {"other": b"hello"}
    (folder / "file.txt").write_bytes(b"changed")
    assert await lab.tree(http_source(f"{url}/file.txt")) == {"file.txt": b"changed"}
    checksum = f"sha256:{hashlib.sha256(b'changed').hexdigest()}"
    known = http_source(f"{url}/file.txt", checksum=checksum)
    assert await lab.tree(known) == {"file.txt": b"changed"}
    asked.clear()
    await lab.solve(known)
    assert not asked
    assert lab.problems() == []


@pytest.mark.root
async def test_a_file_that_is_not_there_or_another(lab: Lab, web: tuple[str, Path, list[str]]) -> None:
    url, folder, _ = web
    with pytest.raises(StepFailed, match="404"):
        await lab.solve(http_source(f"{url}/none"))
    (folder / "f").write_bytes(b"x")
    with pytest.raises(StepFailed, match="digest mismatch"):
        await lab.solve(http_source(f"{url}/f", checksum=f"sha256:{64 * '0'}"))
    assert lab.problems() == []


@pytest.mark.parametrize(
    ("url", "wanted", "name"),
    [
        ("https://h/a/b.txt?x=1", "", "b.txt"),
        ("https://h/", "", "download"),
        ("https://h/a%20b", "", "a b"),
        ("https://h/x", "y", "y"),
    ],
)
def test_names_of_files(url: str, wanted: str, name: str) -> None:
    assert name_of(url, wanted) == name


@pytest.mark.parametrize("url", ["https://h/..", "https://h/a%2f..%2fb"])
def test_a_name_that_leads_elsewhere(url: str) -> None:
    with pytest.raises(BadAttribute):
        name_of(url, "")


# --- git


def git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(web: tuple[str, Path, list[str]], tmp_path: Path) -> tuple[str, Path]:
    """(address, the working copy); `publish` puts what is committed where the server has it."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    git(work, "init", "--quiet")
    (work / "a").write_text("A")
    (work / "sub/b").write_text("B")
    (work / "link").symlink_to("/etc")
    git(work, "add", "-A")
    git(work, "commit", "--quiet", "-m", "one")
    git(work, "tag", "-a", "v1", "-m", "v1")
    publish(web[1], work)
    return f"{web[0]}/repo.git", work


def publish(www: Path, work: Path) -> None:
    git(www, "clone", "--quiet", "--bare", str(work), "repo.git")
    git(www / "repo.git", "update-server-info")


def git_source(remote: str, fragment: str = "", **attrs: str) -> Output:
    named = {f"git.{name}": value for name, value in attrs.items()}
    return Vertex(Source(f"git://host/repo.git{fragment}", {"git.fullurl": remote, **named})).output()


@pytest.mark.root
async def test_a_repositorys_files_and_its_commit_as_the_key(lab: Lab, repository: tuple[str, Path]) -> None:
    remote, work = repository
    tree = await lab.tree(git_source(remote))
    assert tree == {"a": b"A", "sub": ["b"], "sub/b": b"B", "link": "/etc"}
    commit = git(work, "rev-parse", "HEAD")
    assert await lab.tree(git_source(remote, "#v1:sub")) == {"b": b"B"}
    assert await lab.tree(git_source(remote, f"#{commit}:sub")) == {"b": b"B"}
    ended = [event for event in await lab.events() if isinstance(event, Finished)]
    assert ended[-1].cached
    kept = await lab.tree(git_source(remote, keepgitdir="true"))
    assert ".git" in kept
    assert lab.problems() == []


@pytest.mark.root
async def test_attack_19_a_sub_directory_that_is_a_link(lab: Lab, repository: tuple[str, Path]) -> None:
    with pytest.raises(StepFailed, match="'link'"):
        await lab.solve(git_source(repository[0], "#:link"))
    with pytest.raises(StepFailed, match="no ref nothing"):
        await lab.solve(git_source(repository[0], "#nothing"))
    with pytest.raises(StepFailed, match="expected checksum"):
        await lab.solve(git_source(repository[0], "#main", checksum=40 * "0"))


@pytest.mark.parametrize(
    ("identifier", "fullurl"),
    [
        ("git://h/r.git#--upload-pack=touch /tmp/x", ""),
        ("git://h/r.git#-x", ""),
        ("git://h/r.git#a..b", ""),
        ("git://h/r.git", "--upload-pack=x"),
        ("git://h/r.git", "ext::sh -c touch% /tmp/x"),
        ("git://h/r.git", "file:///etc"),
        ("git://h/r.git", "/etc"),
        ("git://h/r.git", "ssh://-oProxyCommand=x/r"),
        ("git://h/r.git", "-oProxyCommand=x@h:r"),
        ("git://h/r.git#main:.git", ""),
        ("git://h/r.git#main:a/.git/hooks", ""),
    ],
)
def test_attack_19_words_that_git_would_take_for_options(identifier: str, fullurl: str) -> None:
    with pytest.raises(BadGitSource):
        address(Source(identifier, {"git.fullurl": fullurl} if fullurl else {}))


def test_which_commit_a_reference_means() -> None:
    listing = "1\tHEAD\n2\trefs/heads/x\n3\trefs/tags/x\n4\trefs/tags/v\n5\trefs/tags/v^{}\n"
    assert [chosen(listing, ref) for ref in ("", "x", "v", "refs/tags/x", "none")] == ["1", "2", "5", "3", ""]
