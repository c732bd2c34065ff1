"""Log drivers, their options and defaults."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pier.containers import log_forwards
from pier.containers.log_config import check, log_file, monitor_log, size_bytes
from pier.containers.log_forwards import DriverFailed, field_name, parse_address
from pier.containers.record import Record
from pier.errors import InvalidParameter, NotImplementedYet
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig, LogConfig
from pier.runtime.request import LogFile

CONFIG = ContainerConfig(
    image="busybox:1", labels={"app": "web", "team": "a", "other": "x"}, env=["APP=1", "HOME=/", "bare"]
)


def record(driver: str, **options: str) -> Record:
    config = {key.replace("_", "-"): value for key, value in options.items()}
    return Record(
        id="id",
        name="name",
        created_ns=1,
        image_id="sha256:" + "1" * 64,
        layers=[],
        path="true",
        args=[],
        driver="overlay2",
        config=CONFIG,
        host_config=HostConfig(log_config=LogConfig(type=driver, config=config)),
    )


def made(driver: str, **options: str) -> LogFile | None:
    return log_file(record(driver, **options), "/d")


def test_trap_22_logs_rotate_unless_told_otherwise() -> None:
    assert made("json-file") == LogFile("/d/id-json.log", 100 << 20, 5, "json-file")
    assert made("local") == LogFile("/d/id-local.log", 20 << 20, 5, "local", compress=True)
    assert made("json-file", max_size="-1") == LogFile("/d/id-json.log", 0, 1, "json-file")


def test_options_win_over_defaults() -> None:
    assert made("json-file", max_size="10k") == LogFile("/d/id-json.log", 10 << 10, 1, "json-file")
    assert made("json-file", max_file="3") == LogFile("/d/id-json.log", 100 << 20, 3, "json-file")
    assert made("local", max_size="1m") == LogFile("/d/id-local.log", 1 << 20, 5, "local", compress=True)
    assert made("local", max_size="1m", max_file="2") == LogFile("/d/id-local.log", 1 << 20, 2, "local", compress=True)
    assert made("none") is None


@pytest.mark.parametrize(
    ("driver", "options", "error"),
    [
        ("foo", {}, InvalidParameter),
        ("fluentd", {}, NotImplementedYet),
        ("syslog", {"syslog-address": "ftp://x"}, InvalidParameter),
        ("syslog", {"syslog-address": "unix:///nowhere/at/all"}, InvalidParameter),
        ("syslog", {"syslog-address": "tcp+tls://x"}, NotImplementedYet),
        ("syslog", {"syslog-address": "tcp://x:port"}, InvalidParameter),
        ("syslog", {"syslog-facility": "nonsense"}, InvalidParameter),
        ("syslog", {"syslog-facility": "12"}, InvalidParameter),
        ("syslog", {"syslog-format": "rfc1"}, InvalidParameter),
        ("syslog", {"syslog-tls-key": "/x"}, NotImplementedYet),
        ("syslog", {"cache-max-size": "x"}, InvalidParameter),
        ("syslog", {"cache-disabled": "perhaps"}, InvalidParameter),
        ("journald", {"syslog-facility": "mail"}, InvalidParameter),
        ("local", {"tag": "x"}, InvalidParameter),
        ("json-file", {"tag": "{{.Nothing}}"}, InvalidParameter),
        ("json-file", {"env-regex": "("}, InvalidParameter),
        ("json-file", {"mode": "fast"}, InvalidParameter),
        ("json-file", {"max-buffer-size": "x"}, InvalidParameter),
        ("json-file", {"max-size": "0"}, InvalidParameter),
        ("json-file", {"max-size": "-1", "max-file": "2"}, InvalidParameter),
        ("local", {"max-file": "0"}, InvalidParameter),
        ("local", {"max-file": "\u00b2"}, InvalidParameter),
        ("local", {"compress": "perhaps"}, InvalidParameter),
        ("local", {"compress": "true", "max-file": "1"}, InvalidParameter),
        ("json-file", {"compress": "true", "max-size": "1m"}, InvalidParameter),
        ("json-file", {"compress": "true", "max-size": "-1"}, InvalidParameter),
        ("none", {"max-size": "1m"}, InvalidParameter),
    ],
)
def test_refused(driver: str, options: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        check(LogConfig(type=driver, config=options))


@pytest.mark.parametrize(
    ("driver", "options", "compressed"),
    [
        ("json-file", {}, False),
        ("json-file", {"compress": "true"}, True),
        ("json-file", {"compress": "true", "max_size": "1m", "max_file": "2"}, True),
        ("local", {}, True),
        ("local", {"compress": "false"}, False),
        ("local", {"max_file": "1"}, False),
        ("syslog", {}, True),
        ("journald", {"cache_compress": "0"}, False),
    ],
)
def test_compression_is_the_drivers_unless_it_is_asked_for(
    driver: str, options: dict[str, str], compressed: bool
) -> None:
    assert made(driver, **options).compress == compressed


@pytest.mark.parametrize(("text", "size"), [("10m", 10 << 20), ("1g", 1 << 30), ("512", 512), ("2kb", 2048)])
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


def test_labels_variables_and_tag_go_with_each_entry() -> None:
    kept = made("json-file", labels="app,none", env="APP", tag="{{.Name}}/{{ .ID }}")
    assert kept is not None
    assert json.loads(kept.attrs) == {"app": "web", "APP": "1", "tag": "name/id"}
    kept = made("json-file", labels_regex="^t", env_regex="^HO")
    assert kept is not None
    assert json.loads(kept.attrs) == {"team": "a", "HOME": "/"}


def test_a_log_beside_the_service() -> None:
    assert made("syslog") == LogFile("/d/id-local.log", 20 << 20, 5, "local", compress=True)
    assert made("journald", cache_max_size="1m", cache_max_file="2") == LogFile(
        "/d/id-local.log", 1 << 20, 2, "local", compress=True
    )
    assert made("syslog", cache_disabled="true") is None


def test_what_the_monitor_is_told_of_syslog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        options = {"syslog_address": f"unixgram://{tmp_path}/s", "syslog_facility": "local3", "tag": "{{.ImageName}}"}
        kept = monitor_log(record("syslog", **options), "/d")
        bare = monitor_log(record("syslog", cache_disabled="1", **options), "/d")
    assert kept is not None
    assert kept.path == "/d/id-local.log"
    assert kept.forward is not None
    assert (kept.forward["facility"], kept.forward["tag"]) == (19, "busybox:1")
    assert kept.forward["address"] == f"{tmp_path}/s"
    assert bare == LogFile("", driver="local", forward=kept.forward)


def test_a_service_that_is_not_there_fails_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").touch()
    with pytest.raises(DriverFailed, match="failed to initialize logging driver"):
        monitor_log(record("syslog", syslog_address=f"unix://{tmp_path}/s"), "/d")
    monkeypatch.setattr(log_forwards, "JOURNAL_SOCKET", str(tmp_path / "none"))
    with pytest.raises(DriverFailed, match="journald is not enabled"):
        monitor_log(record("journald"), "/d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("unixgram", "", 0)),
        ("udp://host", ("udp", "host", 514)),
        ("tcp://10.0.0.1:1514", ("tcp", "10.0.0.1", 1514)),
        ("udp://[::1]:99", ("udp", "::1", 99)),
    ],
)
def test_addresses(text: str, expected: tuple[str, str, int]) -> None:
    assert parse_address(text) == expected


def test_names_that_journald_takes() -> None:
    assert field_name("com.example-label") == "COM_EXAMPLE_LABEL"
    assert field_name("_hidden") == "HIDDEN"
