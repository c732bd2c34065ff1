"""Requests that are answered at once: routing, negotiation, bodies, errors."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from pier.api.call import MAX_JSON_BYTES
from pier.errors import InvalidParameter, NotFound


async def test_ping_has_the_headers_clients_negotiate_by(client: Any) -> None:
    answer = await client.request("GET", "/_ping")
    assert (answer.status, answer.body) == (200, b"OK")
    wanted = {
        "api-version": "1.55",
        "docker-experimental": "false",
        "ostype": "linux",
        "builder-version": "2",
        "swarm": "inactive",
        "cache-control": "no-cache, no-store, must-revalidate",
        "pragma": "no-cache",
    }
    assert wanted.items() <= answer.headers.items()
    assert answer.headers["server"].startswith("Pier/")


async def test_ping_by_head_has_no_body(client: Any) -> None:
    answer = await client.request("HEAD", "/_ping")
    assert answer.status == 200
    assert answer.headers["api-version"] == "1.55"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (
            "/v1.99/info",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.55",
        ),
        (
            "/v1.23/info",
            400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/nope", 404, "page not found"),
        ("/v1.51/nope", 404, "page not found"),
        ("/vx/info", 404, "page not found"),
        ("/", 404, "page not found"),
        ("//", 404, "page not found"),
        ("/v1.51/containers//json", 404, "page not found"),
        ("/v1.51/containers/../json", 404, "No such container: .."),
        ("/containers/nope/json", 404, "No such container: nope"),
        ("/exec/abc/json", 404, "No such exec instance: abc"),
        ("/containers/json?limit=x", 400, 'invalid value for "limit": strconv.Atoi: parsing "x": invalid syntax'),
        ("/containers/json?filters=x", 400, "invalid filter"),
        ('/containers/json?filters={"foo":["x"]}'.replace('"', "%22"), 400, "invalid filter 'foo'"),
        ("/containers/web/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("/plugins/foo/json", 404, 'plugin "foo" not found'),
    ],
)
async def test_refusals_are_worded_as_docker_words_them(client: Any, path: str, status: int, message: str) -> None:
    answer = await client.request("GET", path)
    assert (answer.status, answer.json) == (status, {"message": message})
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc", "%2e%2e", "a%00b", "%0aadmin", "..", "a%20b", "%ff", "-rf", "a%2fb", "x" * 300]
)
@pytest.mark.parametrize(
    "template",
    [
        "GET /containers/{}/json",
        "POST /containers/{}/start",
        "DELETE /containers/{}",
        "POST /containers/{}/exec",
        "GET /exec/{}/json",
        "GET /volumes/{}",
        "GET /networks/{}",
        "DELETE /containers/web/checkpoints/{}",
        "GET /secrets/{}",
    ],
)
async def test_attack_17_no_parameter_is_a_path(client: Any, template: str, name: str) -> None:
    method, path = template.format(name).split(" ", 1)
    answer = await client.request(method, path)
    assert answer.status in (400, 404)
    assert all(char.isprintable() for char in answer.json["message"])
    assert client.engine.containers.calls == []


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "a/../b", "a%00b", "%0a", "/etc/passwd", "a//b", "-x"])
async def test_attack_17_no_image_name_is_a_path(client: Any, name: str) -> None:
    answer = await client.request("GET", f"/images/{name}/json")
    assert answer.status in (400, 404)


async def test_image_names_hold_slashes_colons_and_digests(client: Any) -> None:
    name = "localhost:5000/a/b@sha256:" + 64 * "a"
    assert (await client.request("GET", f"/images/{name}/json")).json["Id"] == name
    assert (await client.request("GET", "/images/library%2Falpine/json")).json["Id"] == "library/alpine"


async def test_swarm_is_refused_as_outside_a_swarm(client: Any) -> None:
    answer = await client.request("GET", "/v1.51/nodes")
    assert answer.status == 503
    assert answer.json["message"].startswith('This node is not a swarm manager. Use "docker swarm init"')


async def test_what_is_missing_names_itself(client: Any) -> None:
    answer = await client.request("POST", "/v1.51/plugins/create")
    assert answer.status == 501
    assert answer.json["message"] == "PluginCreate (POST /plugins/create) is not implemented by Pier yet"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b'{"HostConfig":{"Memory":"x"}}', "application/json", 400, "$.HostConfig.Memory"),
        (b'{"HostConfig":{"Memory":9223372036854775808}}', "application/json", 400, "64-bit"),
        (b'{"HostConfig":3}', "application/json", 400, "$.HostConfig"),
        (b'{"Cmd":[1]}', "application/json", 400, "$.Cmd[0]"),
        (b"[]", "application/json", 400, "Expected `object`"),
        (b"nope", "application/json", 400, "malformed"),
        (b"{}{}", "application/json", 400, "invalid JSON"),
        (b"[" * 200_000, "application/json", 400, "nested too deeply"),
        (b'{"a":' * 100_000, "application/json", 400, "nested too deeply"),
        (b"", "application/json", 400, "got EOF"),
        (b'{"Image":"a\\u0000b"}', "application/json", 400, "NUL character"),
        (b'{"Image":"a","Labels":{"\\u0000":""}}', "application/json", 400, "NUL character"),
        (b"{}", "text/plain", 400, "unsupported Content-Type header (text/plain): must be 'application/json'"),
    ],
)
async def test_a_bad_body_is_the_clients_error(
    client: Any, body: bytes, content_type: str, status: int, words: str
) -> None:
    answer = await client.request("POST", "/containers/create", body=body, headers={"Content-Type": content_type})
    assert answer.status == status
    assert words in answer.json["message"]
    assert client.engine.containers.calls == []


async def test_a_body_too_large_is_refused_before_it_is_read(client: Any) -> None:
    connection = await client.connect()
    connection.send_request(
        "POST",
        "/containers/create",
        headers={"Content-Type": "application/json", "Content-Length": str(MAX_JSON_BYTES + 1)},
    )
    status, _ = await connection.head()
    assert status == 413


async def test_a_chunked_body_too_large_is_refused(client: Any) -> None:
    connection = await client.connect()
    connection.send_request(
        "POST",
        "/containers/create",
        headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"},
    )
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    for _ in range(5):
        connection.send(chunk)
    status, _ = await connection.head()
    assert status == 413


async def test_a_compressed_body_is_not_inflated(client: Any) -> None:
    answer = await client.request(
        "POST", "/images/load", body=b"\x1f\x8b not gzip at all", headers={"Content-Encoding": "gzip"}
    )
    assert answer.status == 200
    assert client.engine.images.archives.loaded == b"\x1f\x8b not gzip at all"


async def test_a_request_reaches_the_service_as_a_struct(client: Any) -> None:
    answer = await client.request(
        "POST",
        "/v1.51/containers/create?name=x",
        json_body={"Image": "busybox", "Cmd": "ls", "Tty": None, "HostConfig": {"Memory": 5, "Binds": None}},
    )
    assert answer.status == 201
    assert answer.json == {"Id": "f" * 64, "Warnings": []}
    (_, body), *_ = client.engine.containers.calls
    assert (body.cmd, body.tty, body.host_config.memory, body.host_config.binds) == (["ls"], False, 5, None)


async def test_an_unexpected_error_tells_the_log_and_not_the_client(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "pier.api"):
        answer = await client.request("GET", "/info")
    assert answer.status == 500
    assert "secret" not in answer.json["message"]
    incident = answer.json["message"].split("(id ")[1].rstrip(")")
    assert incident in caplog.text
    assert "secret of the daemon" in caplog.text
    assert "Traceback" in caplog.text


async def test_not_modified_has_no_body(client: Any) -> None:
    answer = await client.request("POST", "/containers/web/start")
    assert (answer.status, answer.body) == (304, b"")


async def test_kill_without_a_signal_is_sigkill(client: Any) -> None:
    assert (await client.request("POST", "/containers/web/kill")).status == 204
    assert client.engine.containers.calls == [("kill", "SIGKILL")]


async def test_stop_tells_no_timeout_from_zero(client: Any) -> None:
    await client.request("POST", "/containers/web/stop")
    await client.request("POST", "/containers/web/stop?t=0&signal=INT")
    assert client.engine.containers.calls == [("stop", ("", None)), ("stop", ("INT", 0))]


async def test_one_connection_carries_many_requests(client: Any) -> None:
    connection = await client.connect()
    for _ in range(3):
        connection.send_request("GET", "/_ping")
        assert (await connection.answer()).body == b"OK"


async def test_an_operation_runs_to_its_end_without_its_client(client: Any) -> None:
    containers = client.engine.containers
    containers.slow = asyncio.Event()
    connection = await client.connect()
    connection.send_request("POST", "/containers/web/start")
    await asyncio.sleep(0.05)
    connection.close()
    await asyncio.sleep(0.05)
    containers.slow.set()
    await asyncio.sleep(0.05)
    assert containers.finished_slow


async def test_a_daemon_that_stops_ends_streams_and_finishes_operations(client: Any) -> None:
    containers = client.engine.containers
    containers.slow, containers.log_goes_on = asyncio.Event(), True
    logs, start = await client.connect(), await client.connect()
    logs.send_request("GET", "/containers/web/logs?stdout=1&follow=1")
    await logs.head()
    start.send_request("POST", "/containers/web/start")
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(client.server.close())
    async with asyncio.timeout(0.9):
        await logs.read_all()
        assert not containers.finished_slow
        containers.slow.set()
        assert (await start.answer()).status == 304
        await stopping


async def test_events_repeat_the_actor_for_old_clients_only(client: Any) -> None:
    old = json.loads((await client.request("GET", "/v1.51/events")).body)
    new = json.loads((await client.request("GET", "/v1.52/events")).body)
    assert (old["status"], old["id"], old["from"]) == ("start", "abc", "busybox")
    assert {"status", "id", "from"}.isdisjoint(new)
    assert new["timeNano"] == 1_000_000_000


async def test_events_as_a_json_sequence(client: Any) -> None:
    answer = await client.request("GET", "/events", headers={"Accept": "application/json-seq"})
    assert answer.headers["content-type"] == "application/json-seq"
    assert answer.body.startswith(b"\x1e{")


async def test_a_pull_that_fails_at_once_is_an_error(client: Any) -> None:
    client.engine.images.failure = InvalidParameter(message="no such registry")
    answer = await client.request("POST", "/images/create?fromImage=a")
    assert (answer.status, answer.json) == (400, {"message": "no such registry"})


async def test_a_load_that_fails_later_says_so_in_its_last_line(client: Any) -> None:
    client.engine.images.archives.failure = InvalidParameter(message="unexpected EOF")
    answer = await client.request("POST", "/images/load", body=b"abc")
    assert answer.status == 200
    *_, last = answer.body.splitlines()
    assert json.loads(last) == {"errorDetail": {"message": "unexpected EOF"}, "error": "unexpected EOF"}


async def test_images_create_needs_a_source(client: Any) -> None:
    assert (await client.request("POST", "/images/create")).status == 400


@pytest.mark.parametrize("header", ["!!!", "e30x" * 20_000, "bm90IGpzb24="])
async def test_bad_credentials_are_refused(client: Any, header: str) -> None:
    answer = await client.request("POST", "/images/create?fromImage=a", headers={"X-Registry-Auth": header})
    assert answer.status == 400


async def test_wait_flushes_its_head_before_the_end(client: Any) -> None:
    connection = await client.connect()
    connection.send_request("POST", "/containers/web/wait?condition=next-exit")
    status, _ = await connection.head()
    assert status == 200
    assert client.engine.containers.calls == [("wait", "next-exit")]
    client.engine.containers.ended.set()
    assert b'{"StatusCode":7}' in await asyncio.wait_for(connection.reader.readuntil(b"\r\n0\r\n"), 5)


@pytest.mark.parametrize(
    ("path", "status"), [("/containers/nope/wait", 404), ("/containers/web/wait?condition=x", 400)]
)
async def test_wait_refuses_before_its_head(client: Any, path: str, status: int) -> None:
    assert (await client.request("POST", path)).status == status


async def test_logs_flush_their_head_and_end_with_their_client(client: Any) -> None:
    containers = client.engine.containers
    containers.log_goes_on = True
    connection = await client.connect()
    connection.send_request("GET", "/v1.51/containers/web/logs?stdout=1&follow=1")
    status, headers = await connection.head()
    assert (status, headers["content-type"]) == (200, "application/vnd.docker.multiplexed-stream")
    connection.close()
    async with asyncio.timeout(5):
        while not containers.log_closed:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("version", "tty", "kind"),
    [("1.41", False, "raw"), ("1.42", False, "multiplexed"), ("1.51", True, "raw")],
)
async def test_logs_name_their_framing(client: Any, version: str, tty: bool, kind: str) -> None:
    client.engine.containers.tty = tty
    client.engine.containers.log = [b"a", b"b"]
    answer = await client.request("GET", f"/v{version}/containers/web/logs?stdout=1")
    assert answer.headers["content-type"] == f"application/vnd.docker.{kind}-stream"
    assert answer.body == b"ab"


# --- archives


@pytest.mark.parametrize(
    ("path", "refs", "platform"),
    [
        ("/images/get?names=a&names=b%3A1", ["a", "b:1"], ""),
        ("/images/r.example%3A5000/x/a%3A1/get", ["r.example:5000/x/a:1"], ""),
        ("/images/r.example:5000/x/a:1/get", ["r.example:5000/x/a:1"], ""),
        ('/images/a/get?platform={"os":"linux","architecture":"arm64"}', ["a"], "linux/arm64"),
        ("/images/get", [], ""),
    ],
)
async def test_what_save_is_asked_for(client: Any, path: str, refs: list[str], platform: str) -> None:
    answer = await client.request("GET", path.replace('"', "%22").replace("{", "%7B").replace("}", "%7D"))
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/x-tar", b"of the archive")
    assert client.engine.images.archives.asked == {"refs": refs, "platform": platform}


async def test_a_save_that_fails_before_its_first_byte_is_an_error(client: Any) -> None:
    client.engine.images.archives.failure = NotFound(message="No such image: a:latest")
    answer = await client.request("GET", "/images/a/get")
    assert (answer.status, answer.json) == (404, {"message": "No such image: a:latest"})
    assert (await client.request("GET", "/images/a/get?platform=linux/amd64")).status == 400


async def test_what_load_and_import_are_asked_for(client: Any) -> None:
    platform = "%7B%22os%22:%22linux%22,%22architecture%22:%22arm%22,%22variant%22:%22v7%22%7D"
    await client.request("POST", f"/images/load?quiet=0&platform={platform}&tag=a&tag=b:1", body=b"x")
    archives = client.engine.images.archives
    assert archives.asked == {"quiet": False, "platform": "linux/arm/v7", "tags": ["a", "b:1"]}
    query = "fromSrc=http://h/x.tar&repo=a&tag=1&message=m&changes=CMD%20a&changes=ENV%20b&platform=linux/arm64"
    await client.request("POST", f"/images/create?{query}")
    assert archives.asked == {
        "origin": "http://h/x.tar",
        "repo": "a",
        "tag": "1",
        "message": "m",
        "changes": ["CMD a", "ENV b"],
        "platform": "linux/arm64",
    }


async def test_an_exec_is_made_ahead_when_its_client_has_been_told(client: Any) -> None:
    answer = await client.request("POST", "/containers/web/exec", json_body={"Cmd": ["true"]})
    assert (answer.status, answer.json) == (201, {"Id": "e" * 64})
    calls = client.engine.containers.calls
    while ("exec_prepare", "e" * 64) not in calls:
        await asyncio.sleep(0)
    assert (await client.request("GET", f"/exec/{'e' * 64}/json")).status == 200
