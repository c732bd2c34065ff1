"""Log drivers, their options and defaults."""

from __future__ import annotations

import pytest

from pier.containers.log_config import COMPRESS_WARNING, check, log_file, size_bytes
from pier.errors import InvalidParameter, NotImplementedYet
from pier.model.host_config import LogConfig
from pier.runtime.request import LogFile


def made(driver: str, **options: str) -> LogFile | None:
    return log_file(LogConfig(type=driver, config={k.replace("_", "-"): v for k, v in options.items()}), "/d", "id")


def test_trap_22_logs_rotate_unless_told_otherwise() -> None:
    assert made("json-file") == LogFile("/d/id-json.log", 100 << 20, 5, "json-file")
    assert made("local") == LogFile("/d/id-local.log", 20 << 20, 5, "local")
    assert made("json-file", max_size="-1") == LogFile("/d/id-json.log", 0, 1, "json-file")


def test_options_win_over_defaults() -> None:
    assert made("json-file", max_size="10k") == LogFile("/d/id-json.log", 10 << 10, 1, "json-file")
    assert made("json-file", max_file="3") == LogFile("/d/id-json.log", 100 << 20, 3, "json-file")
    assert made("local", max_size="1m") == LogFile("/d/id-local.log", 1 << 20, 5, "local")
    assert made("local", max_size="1m", max_file="2") == LogFile("/d/id-local.log", 1 << 20, 2, "local")
    assert made("none") is None


@pytest.mark.parametrize(
    ("driver", "options", "error"),
    [
        ("foo", {}, InvalidParameter),
        ("syslog", {}, NotImplementedYet),
        ("local", {"tag": "x"}, InvalidParameter),
        ("json-file", {"tag": "x"}, NotImplementedYet),
        ("json-file", {"max-size": "0"}, InvalidParameter),
        ("json-file", {"max-size": "-1", "max-file": "2"}, InvalidParameter),
        ("local", {"max-file": "0"}, InvalidParameter),
        ("local", {"max-file": "\u00b2"}, InvalidParameter),
        ("local", {"compress": "perhaps"}, InvalidParameter),
        ("none", {"max-size": "1m"}, InvalidParameter),
    ],
)
def test_refused(driver: str, options: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        check(LogConfig(type=driver, config=options))


def test_compression_is_accepted_with_a_warning() -> None:
    assert check(LogConfig(type="local", config={"compress": "true"})) == [COMPRESS_WARNING]
    assert check(LogConfig(type="local", config={"compress": "false"})) == []


@pytest.mark.parametrize(("text", "size"), [("10m", 10 << 20), ("1g", 1 << 30), ("512", 512), ("2kb", 2048)])
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size
