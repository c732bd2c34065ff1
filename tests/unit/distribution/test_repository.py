"""Names resolved and manifests fetched: logins, mirrors, redirects, and what is said when it fails."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fixtures.registry import TLS, FakeRegistry, Pushed, failing, redirect, refusal, tar
from pier.distribution import Backoff, Credentials, ProxyConfig, Registries, RegistryConfig, Repository
from pier.distribution import endpoints as endpoints_module
from pier.distribution.errors import (
    AccessDenied,
    BadCertificateFile,
    BlobUnknown,
    CertificateRefused,
    ContentRefused,
    ManifestUnknown,
    PlainHttpAnswer,
    RealmRefused,
    RedirectRefused,
    RegistryError,
    RegistryUnreachable,
    TooManyRequests,
)
from pier.oci import Descriptor, Digest, Reference
from pier.oci.manifest import DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_MANIFEST
from pier.storage.content import ContentStore

ALICE = Credentials("alice", "s3cret")
LAYER = tar({"x": b"x"})


class Deaf:
    """A watcher that does not listen."""

    def received(self, offset: int) -> None: ...
    def retrying(self, delay_s: float) -> None: ...
    def verifying(self) -> None: ...


@asynccontextmanager
async def client(name: str, credentials: Credentials | None = None, **config: Any) -> AsyncIterator[Repository]:
    registries = Registries(RegistryConfig(**config), backoff=Backoff(retries=1, first_s=0))
    try:
        yield registries.repository(Reference.parse(name), credentials or Credentials())
    finally:
        await registries.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """A second host."""
    async with FakeRegistry().serving() as server:
        yield server


@pytest.fixture
async def tls_registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving(tls=True) as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`*.test` is this machine, under a name that is not loopback to the client; every other name is unknown."""
    real = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **more: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else str(host)
        if text.endswith(".test"):
            return real("127.0.0.1", *args, **more)
        if text.startswith("127."):
            return real(host, *args, **more)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return iter(())


def image(registry: FakeRegistry, tag: str = "1") -> Pushed:
    return registry.add_image("app", tag, [LAYER])


# --- resolve


async def test_resolve_is_one_head_request(registry: FakeRegistry) -> None:
    pushed = image(registry)
    async with client(f"{registry.host}/app:1") as repository:
        found = await repository.resolve()
    assert found == Descriptor(DOCKER_MANIFEST, pushed.digest, pushed.size)
    assert [(r.method, r.path) for r in registry.seen] == [("HEAD", "/v2/app/manifests/1")]
    assert OCI_MANIFEST in registry.seen[0].headers["Accept"]


async def test_resolve_without_head(registry: FakeRegistry) -> None:
    pushed = image(registry)
    registry.head_headers = False
    async with client(f"{registry.host}/app:1") as repository:
        assert (await repository.resolve()).digest == pushed.digest


async def test_a_tag_that_is_not_there(registry: FakeRegistry) -> None:
    async with client(f"{registry.host}/app:none") as repository:
        with pytest.raises(ManifestUnknown) as caught:
            await repository.resolve()
    message = f"manifest for {registry.host}/app:none not found: manifest unknown: manifest unknown"
    assert caught.value.message == message
    assert caught.value.status == 404


async def test_attack_11_registry_answers_another_digest(registry: FakeRegistry) -> None:
    pushed = image(registry)
    wrong = Digest.of(b"wrong")
    registry.manifests[f"app@{wrong}"] = registry.manifests[f"app@{pushed.digest}"]
    async with client(f"{registry.host}/app@{wrong}") as repository:
        with pytest.raises(ContentRefused, match=f"it is {pushed.digest}"):
            await repository.resolve()
        with pytest.raises(ContentRefused, match="nothing of it was kept"):
            await repository.manifest(Descriptor(DOCKER_MANIFEST, wrong, pushed.size))
        with pytest.raises(ContentRefused, match="not of 7"):
            await repository.manifest(Descriptor(DOCKER_MANIFEST, pushed.digest, 7))


async def test_attack_11_oversized_manifest(registry: FakeRegistry) -> None:
    pushed = image(registry)

    async def huge(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "GET":
            for _ in range(MAX_MANIFEST_BYTES // 65536 + 1):
                await response.write(b" " * 65536)
        return response

    registry.manifest_hook = huge
    async with client(f"{registry.host}/app:1") as repository:
        with pytest.raises(ContentRefused, match=f"more than {MAX_MANIFEST_BYTES} bytes"):
            await repository.resolve()
        with pytest.raises(ContentRefused, match="allowed"):
            await repository.manifest(Descriptor(DOCKER_MANIFEST, pushed.digest, MAX_MANIFEST_BYTES + 1))


# --- logging in


@pytest.mark.parametrize("login", ["basic", "bearer"])
async def test_login_with_a_password(registry: FakeRegistry, login: str) -> None:
    pushed = image(registry)
    registry.login = login
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        found = await repository.resolve()
        await repository.manifest(found)
        await repository.manifest(found)
    assert found.digest == pushed.digest
    assert len(registry.asked("/token")) == (1 if login == "bearer" else 0)
    if login == "bearer":
        [asked] = registry.asked("/token")
        assert "scope=repository:app:pull" in asked.path
        assert "service=registry.test" in asked.path
        assert "account=alice" in asked.path


async def test_login_anonymously_with_a_refresh_token_and_with_a_given_token(registry: FakeRegistry) -> None:
    image(registry)
    registry.login, registry.anonymous = "bearer", True
    async with client(f"{registry.host}/app:1") as repository:
        await repository.resolve()
    assert "Authorization" not in registry.asked("/token")[0].headers
    registry.anonymous = False
    async with client(f"{registry.host}/app:1", Credentials(identity_token="refresh")) as repository:
        await repository.resolve()
    [posted] = registry.asked("/token", "POST")
    assert "grant_type=refresh_token" in posted.body
    async with client(f"{registry.host}/app:1", Credentials(registry_token="t0ken")) as repository:
        await repository.resolve()
    assert len(registry.asked("/token", "POST")) == 1


async def test_a_token_that_has_expired_is_renewed(registry: FakeRegistry) -> None:
    image(registry)
    registry.login = "bearer"
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        await repository.resolve()
        registry.token = "another"
        await repository.resolve()
    assert len(registry.asked("/token")) == 2


REFUSED = 'Head "http://{host}/v2/app/manifests/1": '


@pytest.mark.parametrize(
    ("login", "credentials", "who", "message", "status"),
    [
        ("basic", Credentials(), "nobody (not logged in)", REFUSED + "no basic auth credentials", 500),
        ("basic", Credentials("bob", "guess"), "user bob", "unauthorized: authentication required", 401),
        (
            "bearer",
            Credentials(),
            "nobody (not logged in)",
            REFUSED + "unauthorized: incorrect username or password",
            401,
        ),
        (
            "bearer",
            Credentials("bob", "guess"),
            "user bob",
            REFUSED + "unauthorized: incorrect username or password",
            401,
        ),
    ],
)
async def test_trap_25_unauthorized_names_registry_user_and_scope(
    registry: FakeRegistry, login: str, credentials: Credentials, who: str, message: str, status: int
) -> None:
    image(registry)
    registry.login = login
    async with client(f"{registry.host}/app:1", credentials) as repository:
        with pytest.raises(AccessDenied) as caught:
            await repository.resolve()
    assert caught.value.message == message.format(host=registry.host)
    assert f"asked {registry.host} as {who} for repository:app:pull" in caught.value.wire
    assert f"docker login {registry.host}" in caught.value.wire
    assert "guess" not in caught.value.wire
    assert caught.value.status == status


INSUFFICIENT = 'Bearer realm="https://x/token",error="insufficient_scope"'


@pytest.mark.parametrize(
    ("status", "code", "headers", "message"),
    [
        (403, "DENIED", {}, "pull access denied for {name}, repository does not exist or may require"),
        (401, "UNAUTHORIZED", {"WWW-Authenticate": INSUFFICIENT}, "pull access denied for {name}, repository"),
        (401, "UNAUTHORIZED", {}, "unauthorized: "),
        (404, "NAME_UNKNOWN", {}, "repository {name} not found: name unknown: x"),
        (404, "MANIFEST_UNKNOWN", {}, "manifest for {name}:1 not found: manifest unknown: x"),
        (429, "TOOMANYREQUESTS", {}, "toomanyrequests: x"),
        (503, "", {}, "received unexpected HTTP status: 503 Service Unavailable"),
    ],
)
async def test_refusals_in_docker_s_words(
    registry: FakeRegistry, status: int, code: str, headers: dict[str, str], message: str
) -> None:
    async def refuse(request: web.Request, data: bytes) -> web.StreamResponse:
        return refusal(status, code, "x", headers)

    registry.login, registry.anonymous, registry.manifest_hook = "bearer", True, refuse
    image(registry)
    async with client(f"{registry.host}/app:1") as repository:
        with pytest.raises(RegistryError) as caught:
            await repository.resolve()
    assert caught.value.message.startswith(message.format(name=f"{registry.host}/app"))


async def test_rate_limit(registry: FakeRegistry) -> None:
    registry.manifest_hook = failing(429, 99)
    image(registry)
    async with client(f"{registry.host}/app:1") as repository:
        with pytest.raises(TooManyRequests, match="log in"):
            await repository.resolve()


# --- attack 18


async def test_attack_18_authorization_is_stripped_on_a_redirect_to_another_host(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    pushed = image(registry)
    other.blobs = dict(registry.blobs)
    registry.login = "basic"
    registry.blob_hook[pushed.layers[0]] = redirect(f"{other.url}/v2/app/blobs/{pushed.layers[0]}?sig=a%2Fb")
    content = ContentStore(str(tmp_path))
    size = len(registry.blobs[pushed.layers[0]])
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        await repository.download(Descriptor("x", pushed.layers[0], size), content, Deaf())
    assert registry.leaked()
    assert other.asked("sig=a%2Fb"), "a signed URL must arrive as it was given"
    assert other.leaked() == []


async def test_attack_18_authorization_does_not_come_back_after_a_detour(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    pushed = image(registry)
    [layer] = pushed.layers
    registry.login = "basic"
    other.blobs = dict(registry.blobs)
    registry.blob_hook[layer] = redirect(f"{other.url}/v2/app/blobs/{layer}")
    other.blob_hook[layer] = redirect(f"{registry.url}/v2/app/blobs/{layer}?again")
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        with pytest.raises(AccessDenied):
            await repository.download(Descriptor("x", layer, 1), ContentStore(str(tmp_path)), Deaf())
    [back] = registry.asked("?again")
    assert "Authorization" not in back.headers


async def test_attack_18_login_asked_by_a_redirect_target_is_not_given(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    pushed = image(registry)
    [layer] = pushed.layers
    registry.blob_hook[layer] = redirect(f"{other.url}/v2/app/blobs/{layer}")
    other.login = "bearer"
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        with pytest.raises(AccessDenied):
            await repository.download(Descriptor("x", layer, 1), ContentStore(str(tmp_path)), Deaf())
    assert other.leaked() == []
    assert other.asked("/token") == []


async def test_attack_18_realm_on_another_host_in_the_clear(registry: FakeRegistry, other: FakeRegistry) -> None:
    image(registry)
    registry.login, registry.realm = "bearer", f"http://auth.test:{other.port}/token"
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        with pytest.raises(RealmRefused, match=r"not https .*credentials were not sent"):
            await repository.resolve()
    assert other.seen == []


async def test_attack_18_token_server_that_redirects_gets_nothing_passed_on(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    image(registry)
    registry.login, registry.realm = "bearer", f"{registry.url}/v2/auth/blobs/hop"
    registry.blobs["hop"] = b""
    registry.blob_hook["hop"] = redirect(f"{other.url}/token")
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        with pytest.raises(AccessDenied):
            await repository.resolve()
    assert other.seen == []


@pytest.mark.parametrize(
    "target",
    ["http://elsewhere.test/blob", "file:///etc/passwd", "ftp://127.0.0.1/", "http://u:p@127.0.0.1:1/", "http://["],
)
async def test_attack_18_redirects_that_are_refused(registry: FakeRegistry, tmp_path: Path, target: str) -> None:
    pushed = image(registry)
    [layer] = pushed.layers
    registry.blob_hook[layer] = redirect(target)
    async with client(f"{registry.host}/app:1", ALICE) as repository:
        with pytest.raises(RedirectRefused):
            await repository.download(Descriptor("x", layer, 1), ContentStore(str(tmp_path)), Deaf())


async def test_a_circle_of_redirects_ends(registry: FakeRegistry, tmp_path: Path) -> None:
    pushed = image(registry)
    [layer] = pushed.layers
    registry.blob_hook[layer] = redirect(f"/v2/app/blobs/{layer}")
    async with client(f"{registry.host}/app:1") as repository:
        with pytest.raises(RedirectRefused, match="more than 5"):
            await repository.download(Descriptor("x", layer, 1), ContentStore(str(tmp_path)), Deaf())


async def test_attack_18_foreign_layer_urls_get_no_credentials(
    registry: FakeRegistry, tls_registry: FakeRegistry, tmp_path: Path
) -> None:
    data = b"foreign"
    tls_registry.add_blob(data)
    digest = Digest.of(data)
    content = ContentStore(str(tmp_path))
    url = f"{tls_registry.url}/v2/x/blobs/{digest}"
    trust(tmp_path, tls_registry.host)
    async with client(f"{registry.host}/app:1", ALICE, certs_dirs=(str(tmp_path),)) as repository:
        with pytest.raises(BlobUnknown, match="none of its urls is https"):
            await repository.download(Descriptor("x", digest, 7, urls=("http://a.test/", "junk")), content, Deaf())
        tls_registry.login = "bearer"
        with pytest.raises(AccessDenied):
            await repository.download(Descriptor("x", digest, 7, urls=(url,)), content, Deaf())
        assert tls_registry.leaked() == []
        tls_registry.login = ""
        await repository.download(Descriptor("x", digest, 7, urls=(url,)), content, Deaf())
    assert content.has(digest)
    assert tls_registry.leaked() == []


async def test_attack_18_mirrors_get_no_credentials(
    registry: FakeRegistry, other: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror may ask; the registry itself is then asked instead."""
    pushed = registry.add_image("library/app", "1", [LAYER])
    registry.login, other.login = "basic", "bearer"
    monkeypatch.setattr(endpoints_module, "DOCKER_HUB", registry.host)
    async with client("app:1", ALICE, mirrors=(other.url,)) as repository:
        assert (await repository.resolve()).digest == pushed.digest
        await repository.manifest(Descriptor(DOCKER_MANIFEST, pushed.digest, pushed.size))
    assert other.leaked() == []
    assert len(other.asked("/manifests/", "HEAD")) == 1, "a mirror that failed is not asked again"
    assert registry.leaked()


# --- what cannot be reached


async def test_trap_15_mirrors_fail_over(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = registry.add_image("library/app", "1", [LAYER])
    monkeypatch.setattr(endpoints_module, "DOCKER_HUB", "127.0.0.1:1")
    dead = "http://127.0.0.1:1"
    async with client("app:1", mirrors=(dead, registry.url)) as repository:
        assert (await repository.resolve()).digest == pushed.digest


async def test_trap_15_a_mirror_that_lies_is_left_for_the_registry(
    registry: FakeRegistry, other: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed = registry.add_image("library/app", "1", [LAYER])
    other.blobs = dict.fromkeys(registry.blobs, b"z" * len(registry.blobs[pushed.layers[0]]))
    other.manifests = dict(registry.manifests)
    monkeypatch.setattr(endpoints_module, "DOCKER_HUB", registry.host)
    content = ContentStore(str(tmp_path))
    async with client("app:1", mirrors=(other.url,)) as repository:
        await repository.resolve()
        size = len(registry.blobs[pushed.layers[0]])
        await repository.download(Descriptor("x", pushed.layers[0], size), content, Deaf())
    assert content.has(pushed.layers[0])


async def test_trap_15_unreachable_names_the_hosts_and_what_can_be_set(
    names: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client("busybox", mirrors=("https://mirror.invalid",)) as repository:
        with pytest.raises(RegistryUnreachable) as caught:
            await repository.resolve()
    said = caught.value.wire
    assert 'Get "https://registry-1.docker.io/v2/library/busybox/manifests/latest"' in said
    assert "dial tcp: lookup registry-1.docker.io: name or service not known" in said
    assert "mirror.invalid and registry-1.docker.io could not be reached" in said
    for setting in ('"registry-mirrors"', '"proxies"', "/etc/pier/daemon.json"):
        assert setting in said


async def test_trap_15_refused_connection_and_dead_proxy(names: None) -> None:
    async with client("r.test:1/app") as repository:
        with pytest.raises(
            RegistryUnreachable, match=r"dial tcp r\.test:1: connect: .*refused.*r\.test:1 could not be"
        ):
            await repository.resolve()
    proxies = ProxyConfig(https="http://user:pw@127.0.0.1:1")
    async with client("r.test/app", proxies=proxies) as repository:
        with pytest.raises(RegistryUnreachable, match=r"through the proxy http://127\.0\.0\.1:1") as caught:
            await repository.resolve()
    assert "pw" not in caught.value.wire


async def test_trap_15_requests_go_through_the_proxy(registry: FakeRegistry, names: None) -> None:
    """An http proxy is sent the whole URL; this registry plays the proxy."""
    pushed = image(registry)
    proxies = ProxyConfig(http=registry.url)
    async with client("far.test:5000/app:1", insecure=("far.test:5000",), proxies=proxies) as repository:
        assert (await repository.resolve()).digest == pushed.digest
    assert registry.seen[-1].headers["Host"] == "far.test:5000"


async def test_trap_16_certificate_message_names_subject_issuer_and_folder(
    tls_registry: FakeRegistry, names: None
) -> None:
    host = f"registry.test:{tls_registry.port}"
    async with client(f"{host}/app:1") as repository:
        with pytest.raises(CertificateRefused) as caught:
            await repository.resolve()
    said = caught.value.wire
    assert "x509: certificate signed by unknown authority" in said
    assert "subject is O=Pier tests,CN=registry.test" in said
    assert "issuer O=Pier tests,CN=Pier test CA" in said
    assert f"/etc/pier/certs.d/{host}/ca.crt" in said
    assert f'add "{host}" to "insecure-registries"' in said


async def test_trap_16_certificate_for_another_name(tls_registry: FakeRegistry, names: None, tmp_path: Path) -> None:
    host = f"wrong.test:{tls_registry.port}"
    trust(tmp_path, host)
    async with client(f"{host}/app:1", certs_dirs=(str(tmp_path),)) as repository:
        with pytest.raises(CertificateRefused, match=r"x509: certificate is not valid for wrong\.test"):
            await repository.resolve()


async def test_trap_16_a_ca_in_certs_d_is_trusted_for_that_registry_alone(
    tls_registry: FakeRegistry, names: None, tmp_path: Path
) -> None:
    pushed = image(tls_registry)
    host = f"registry.test:{tls_registry.port}"
    trust(tmp_path, "elsewhere.test")
    async with client(f"{host}/app:1", certs_dirs=(str(tmp_path),)) as repository:
        with pytest.raises(CertificateRefused):
            await repository.resolve()
    trust(tmp_path, host)
    async with client(f"{host}/app:1", certs_dirs=(str(tmp_path),)) as repository:
        assert (await repository.resolve()).digest == pushed.digest
    async with client(f"{host}/app:1", insecure=(host,)) as repository:
        assert (await repository.resolve()).digest == pushed.digest


async def test_trap_16_a_broken_file_in_certs_d_is_named(
    tls_registry: FakeRegistry, names: None, tmp_path: Path
) -> None:
    host = f"registry.test:{tls_registry.port}"
    trust(tmp_path, host).write_text("no certificate")
    async with client(f"{host}/app:1", certs_dirs=(str(tmp_path),)) as repository:
        with pytest.raises(BadCertificateFile, match=r"ca\.crt: .*PEM is wanted"):
            await repository.resolve()


def trust(certs_dir: Path, host: str) -> Path:
    (certs_dir / host).mkdir(exist_ok=True)
    return Path(
        str((certs_dir / host / "ca.crt").write_bytes((TLS / "ca.crt").read_bytes()) and certs_dir / host / "ca.crt")
    )


async def test_trap_17_plain_http_says_how_to_mark_the_registry_insecure(registry: FakeRegistry, names: None) -> None:
    host = f"registry.test:{registry.port}"
    async with client(f"{host}/app:1", ALICE) as repository:
        with pytest.raises(PlainHttpAnswer) as caught:
            await repository.resolve()
    said = caught.value.wire
    assert f'Get "https://{host}/v2/app/manifests/1": http: server gave HTTP response to HTTPS client' in said
    assert f'add "{host}" to "insecure-registries" in /etc/pier/daemon.json' in said
    assert registry.leaked() == []


async def test_trap_17_marked_insecure_it_is_spoken_to(registry: FakeRegistry, names: None) -> None:
    pushed = image(registry)
    host = f"registry.test:{registry.port}"
    async with client(f"{host}/app:1", insecure=(host,)) as repository:
        assert (await repository.resolve()).digest == pushed.digest
