"""`docker top`: the processes of a container as `ps` on the host shows them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection

from pier.containers import processes
from pier.containers.start import NotRunning, Restarting, cgroup_of
from pier.containers.world import Container, World
from pier.errors import PierError
from pier.model.container import ContainerTopResponse

OWN_ARGUMENTS = "-ef"
"""What Pier reads itself, without a `ps`."""
PS_TIMEOUT_S = 10.0

_RENAMED_PID = re.compile(r"\s+(\S*)=\s*(PID\S*)")
"""`-o comm=PID` would pass another column off as the pids."""


class PsMissing(PierError):
    """ps: executable file not found in $PATH"""

    remedy = "install procps on the host, or ask without arguments, which needs no ps"


class PsFailed(PierError):
    """{reason}"""


class NoPidColumn(PierError):
    """Couldn't find PID field in ps output"""

    remedy = "-o pid,… adds it"


class UnexpectedPid(PierError):
    """Unexpected pid '{text}'"""


class ColumnRenamed(PierError):
    """specifying "{column}={title}" is not allowed"""


async def top(world: World, container: Container, ps_args: str) -> ContainerTopResponse:
    """The container's processes, in columns that `ps_args` ask for. Raises NotRunning, Restarting, Ps… errors."""
    state = container.record.state
    if state.status == "restarting":
        raise Restarting(id=container.id)
    if not state.running or not state.pid:
        raise NotRunning(id=container.id)
    check(ps_args)
    pids = await asyncio.to_thread(cgroup_of(world, container).pids)
    if ps_args.strip() == OWN_ARGUMENTS:
        rows = await asyncio.to_thread(processes.listing, pids)
        answer = ContainerTopResponse(titles=processes.TITLES, processes=rows or None)
    else:
        answer = parse(await run_ps(ps_args.split(), pids), set(pids))
    world.publish(container, "top")
    return answer


def check(ps_args: str) -> None:
    """Raises ColumnRenamed."""
    for column, title in _RENAMED_PID.findall(ps_args):
        if column != "pid":
            raise ColumnRenamed(column=column, title=title)


async def run_ps(arguments: list[str], pids: Collection[int]) -> str:
    """The output of the host's ps. Some of its options cannot be combined with a list of pids: then it lists all.

    Raises PsMissing, PsFailed.
    """
    chosen = "-q" + ",".join(map(str, pids))
    status, output, _ = await _ps([*arguments, chosen])
    if status == 0:
        return output
    status, output, errors = await _ps(arguments)
    if status:
        said = errors.partition("\n")[0]
        raise PsFailed(reason=f"ps: {said or f'exit status {status}'}")
    return output


async def _ps(arguments: list[str]) -> tuple[int, str, str]:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except FileNotFoundError as error:
        raise PsMissing from error
    try:
        async with asyncio.timeout(PS_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise PsFailed(reason=f"ps: no answer within {PS_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")


def parse(output: str, pids: Collection[int]) -> ContainerTopResponse:
    """The lines of ps that are of `pids`, and those of their threads. Raises NoPidColumn, UnexpectedPid. Pure."""
    lines = [_fields(line) for line in output.split("\n")]
    titles = lines[0]
    if "PID" not in titles:
        raise NoPidColumn
    column = titles.index("PID")
    rows = []
    ours = False
    for fields in lines[1:]:
        if not fields:
            continue
        text = fields[column] if column < len(fields) else ""
        if text != "-":  # a thread's line, of `-m`, belongs to the process above it
            if not text.isascii() or not text.isdigit():
                raise UnexpectedPid(text=text)
            ours = int(text) in pids
        if ours:
            rows.append([*fields[: len(titles) - 1], " ".join(fields[len(titles) - 1 :])])
    return ContainerTopResponse(titles=titles, processes=rows or None)


def _fields(line: str) -> list[str]:
    """Split at ASCII white space alone: other white space may be part of a command."""
    return [field for field in re.split(r"[ \t\n\v\f\r]+", line) if field]
