"""Manifest lists in the making: files as Docker's command has them, names that stay in their folder."""

from pathlib import Path

import pytest

from pier.cli.errors import Failure
from pier.cli.flags import Flag, Options
from pier.cli.manifests import LIST_TYPE, OCI_LIST_TYPE, Lists, as_list, file_name, full


def lists(folder: Path) -> Lists:
    given = Options((Flag("config", "", "string", ""),))
    given.accept(Flag("config", "", "string", ""), str(folder))
    return Lists(given)


def entry(name: str, kind: str = "application/vnd.docker.distribution.manifest.v2+json") -> dict[str, object]:
    described = {"mediaType": kind, "digest": "sha256:" + 64 * "a", "size": 3, "platform": {"os": "linux"}}
    return {"Ref": name, "Descriptor": described}


def test_names_are_full_and_files_lead_nowhere_else() -> None:
    assert full("a/b") == "docker.io/a/b:latest"
    assert file_name("r.test:5000/a/b:1") == "r.test-5000_a_b-1"
    assert "/" not in file_name("../../etc/passwd")
    assert not file_name("../../etc/passwd").startswith(".")
    with pytest.raises(Failure, match="invalid reference format"):
        full("A:")


def test_put_and_remove(tmp_path: Path) -> None:
    made = lists(tmp_path)
    assert not made.has("docker.io/l:1")
    for name in ("docker.io/b:1", "docker.io/a:1"):
        made.put("docker.io/l:1", entry(name))
    assert (tmp_path / "manifests" / "docker.io_l-1" / "docker.io_a-1").is_file()
    assert [one["Ref"] for one in made.entries("docker.io/l:1")] == ["docker.io/a:1", "docker.io/b:1"]
    assert made.remove("docker.io/l:1")
    assert not made.remove("docker.io/l:1")
    assert made.entries("docker.io/l:1") == []


def test_the_type_of_the_list_follows_its_manifests() -> None:
    oci = entry("b", "application/vnd.oci.image.manifest.v1+json")
    assert as_list([entry("a"), oci])["mediaType"] == LIST_TYPE
    assert as_list([oci])["mediaType"] == OCI_LIST_TYPE
    assert as_list([oci])["manifests"][0]["platform"] == {"os": "linux"}
