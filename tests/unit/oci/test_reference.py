"""Names of images, as Docker reads, completes and shortens them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.oci.digest import Digest
from pier.oci.reference import InvalidReference, InvalidTag, Reference, check_tag

D = Digest("sha256:" + "a" * 64)


@pytest.mark.parametrize(
    ("text", "expected", "familiar"),
    [
        ("busybox", Reference("docker.io", "library/busybox", "latest"), "busybox:latest"),
        ("busybox:1.36", Reference("docker.io", "library/busybox", "1.36"), "busybox:1.36"),
        ("library/busybox", Reference("docker.io", "library/busybox", "latest"), "busybox:latest"),
        ("docker.io/busybox", Reference("docker.io", "library/busybox", "latest"), "busybox:latest"),
        ("index.docker.io/user/app", Reference("docker.io", "user/app", "latest"), "user/app:latest"),
        ("library/a/b", Reference("docker.io", "library/a/b", "latest"), "library/a/b:latest"),
        ("localhost/app", Reference("localhost", "app", "latest"), "localhost/app:latest"),
        ("localhost:5000/a/b", Reference("localhost:5000", "a/b", "latest"), "localhost:5000/a/b:latest"),
        ("[::1]:5000/app:v1", Reference("[::1]:5000", "app", "v1"), "[::1]:5000/app:v1"),
        ("Registry/app", Reference("Registry", "app", "latest"), "Registry/app:latest"),
        ("quay.io/org/a__b-c.d", Reference("quay.io", "org/a__b-c.d", "latest"), "quay.io/org/a__b-c.d:latest"),
        (f"busybox@{D}", Reference("docker.io", "library/busybox", None, D), f"busybox@{D}"),
        (f"r.example/b:t@{D}", Reference("r.example", "b", "t", D), f"r.example/b:t@{D}"),
        ("a:" + "t" * 128, Reference("docker.io", "library/a", "t" * 128), "a:" + "t" * 128),
    ],
)
def test_parse(text: str, expected: Reference, familiar: str) -> None:
    assert Reference.parse(text) == expected
    assert expected.familiar == familiar
    assert Reference.parse(familiar) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "repository name must have at least one component"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("user/App:x", "invalid reference format: repository name (user/App) must be lowercase"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "repository name must not be more than 255 characters"),
        ("localhost/", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a:t:u", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        (f"a@{D}@{D}", "invalid reference format"),
        ("a@md5:" + "a" * 32, "invalid reference format: unsupported digest algorithm md5"),
        ("a@sha256:" + "a" * 63, "invalid reference format: sha256 has 64 digits, not 63"),
        ("../etc/passwd", "invalid reference format"),
        ("a/../b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("bücher", "invalid reference format"),
        ("registry.example:port/a", "invalid reference format"),
        ("a" * 5000, "invalid reference format"),
    ],
)
def test_refused_with_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert caught.value.message == message
    assert caught.value.status == 400


def test_tag_and_digest_replace_each_other() -> None:
    reference = Reference.parse("busybox:1")
    assert str(reference.with_digest(D)) == f"docker.io/library/busybox@{D}"
    assert str(reference.with_digest(D).with_tag("2")) == "docker.io/library/busybox:2"
    assert Reference.parse("busybox", default_tag=None).tag is None
    assert Reference.parse(f"busybox:1@{D}").identifier == D
    with pytest.raises(InvalidTag):
        check_tag(".hidden")


component = st.from_regex(r"\A[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,8}){0,2}\Z")
domain = st.sampled_from(["docker.io", "localhost", "localhost:5000", "ghcr.io", "10.0.0.1:80", "[fe80::1]:443"])
tag = st.none() | st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\Z")
digest = st.none() | st.binary(max_size=4).map(Digest.of)


@given(domain, st.lists(component, min_size=1, max_size=4).map("/".join), tag, digest)
def test_familiar_and_canonical_forms_read_back(
    host: str, path: str, label: str | None, content: Digest | None
) -> None:
    text = f"{host}/{path}" + (f":{label}" if label else "") + (f"@{content}" if content else "")
    reference = Reference.parse(text, default_tag=None)
    for written in (str(reference), reference.familiar):
        if len(written) != 64:
            assert Reference.parse(written, default_tag=None) == reference


@given(st.text(alphabet="aA0:/@._-[]\n\0é ", max_size=60))
def test_anything_else_is_refused_and_never_escapes(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert ".." not in reference.path.split("/")
