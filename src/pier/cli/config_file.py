"""The client's `config.json`, Docker's own: read as it is, written back with everything in it that is not ours."""

from __future__ import annotations

import os

from pier.cli.errors import Failure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options

MAX_BYTES = 4 << 20


def config_path(options: Options) -> str:
    """`--config`, DOCKER_CONFIG or `~/.docker`, and the file in it."""
    folder = options["config"] or os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(folder, "config.json")


def read_config(path: str) -> dict[str, Any]:
    """What the file holds; empty without one. Failure for a file that is no JSON object."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Failure(f"loading config file: {path}: {reason(error)}") from None
    from pier.cli.jsontext import loads  # noqa: PLC0415 - only with a configuration file

    try:
        config = loads(data) if data.strip() else {}
        if len(data) > MAX_BYTES or not isinstance(config, dict):
            raise ValueError("a JSON object is wanted")
    except ValueError as error:
        raise Failure(f"loading config file: {path}: {error}") from None
    return config


def write_config(path: str, config: dict[str, Any]) -> None:
    """Replace the file whole, readable by its owner alone; a symbolic link stays one."""
    from pier.cli.jsontext import pretty  # noqa: PLC0415 - only where something is kept

    path = os.path.realpath(path)
    beside = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, pretty(config, "\t").encode("utf-8", "surrogateescape"))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(beside, path)
    except OSError as error:
        raise Failure(f"saving config file: {path}: {reason(error)}") from None
