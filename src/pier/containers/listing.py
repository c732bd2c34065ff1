"""The list of containers (`docker ps`): one line of text a container, and Docker's filters."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence

from pier.containers import links, networking, validate
from pier.containers.health import status_of
from pier.containers.inspect import mount_points, sizes
from pier.containers.record import Record, State
from pier.containers.world import Container, World
from pier.errors import InvalidParameter
from pier.model.container import ContainerSummary, HealthSummary, HostConfigSummary, PortSummary
from pier.model.filters import Filters
from pier.model.network import NetworkSettingsSummary, PortMap

NS = 1_000_000_000
HOUR = 3600
DAY = 24 * HOUR
ACCEPTED = (
    "ancestor",
    "annotation",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
)
STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


_AGES: tuple[tuple[float, str, int], ...] = (
    (1, "Less than a second", 1),
    (2, "1 second", 1),
    (60, "{} seconds", 1),
    (120, "About a minute", 60),
    (3600, "{} minutes", 60),
    (1.5 * HOUR, "About an hour", HOUR),
    (47.5 * HOUR, "{} hours", HOUR),
    (14 * DAY - HOUR / 2, "{} days", DAY),
    (60 * DAY - HOUR / 2, "{} weeks", 7 * DAY),
    (2 * 365 * DAY - HOUR / 2, "{} months", 30 * DAY),
    (math.inf, "{} years", 365 * DAY),
)
"""(seconds below which the words are right, the words, seconds in their unit)."""


def human_duration(seconds: float) -> str:
    """An age as Docker writes it: `Less than a second`, `About a minute`, `3 weeks`. Rounded down, but from an hour on
    to the nearest hour first."""
    for below, words, unit in _AGES:
        if seconds < below:
            return words.format(int(seconds if unit < HOUR else seconds + HOUR / 2) // unit)
    raise AssertionError("an age is a number")


_HEALTH_WORDS = {"starting": "health: starting"}


def status_text(state: State, now_ns: int) -> str:
    """`Up 2 minutes`, `Exited (0) 3 seconds ago`, …"""
    match state.status:
        case "running" | "paused":
            up = human_duration((now_ns - state.started_at_ns) / NS)
            if state.status == "paused":
                return f"Up {up} (Paused)"
            health = f" ({_HEALTH_WORDS.get(state.health.status, state.health.status)})" if state.health else ""
            return f"Up {up}{health}"
        case "restarting" | "exited":
            if state.status == "exited" and not state.finished_at_ns:
                return ""
            ended = human_duration((now_ns - state.finished_at_ns) / NS)
            return f"{state.status.capitalize()} ({state.exit_code}) {ended} ago"
        case "removing":
            return "Removal In Progress"
        case _:
            return state.status.capitalize()


def command_text(path: str, args: Sequence[str]) -> str:
    """The command line, arguments with spaces quoted as Docker does."""
    return " ".join([path, *(f"'{arg}'" if " " in arg else arg for arg in args)])


def port_summaries(ports: PortMap) -> list[PortSummary]:
    """The ports as the list shows them: one entry a binding, or one for what is only exposed."""
    found = []
    for port in sorted(ports):
        digits, _, protocol = port.partition("/")
        number = int(digits)
        bindings = ports[port]
        if not bindings:
            found.append(PortSummary(private_port=number, type=protocol))
        for binding in bindings or ():
            public = int(binding.host_port) if binding.host_port.isdigit() else 0
            found.append(PortSummary(ip=binding.host_ip, private_port=number, public_port=public, type=protocol))
    return found


async def list_containers(
    world: World, *, all: bool, limit: int, size: bool, filters: Filters
) -> list[ContainerSummary]:
    """Newest first. Raises UnknownFilter, InvalidFilterValue, NoSuchContainer (`before`, `since`)."""
    filters.validate(ACCEPTED)
    matches = await build_matcher(world, filters)
    # These filters speak of containers that do not run, so asking for one asks for them.
    every = all or limit > 0 or "status" in filters or "exited" in filters
    newest = sorted(world.containers.values(), key=lambda container: container.record.created_ns, reverse=True)
    chosen = [container for container in newest if (every or container.running) and matches(container)]
    shown = chosen[:limit] if limit > 0 else chosen
    now_ns = time.time_ns()
    found = [summary(world, container, now_ns) for container in shown]
    by_links = links.further_names(world)
    for container, line in zip(shown, found, strict=True):
        line.names += by_links.get(container.id, ())
    if size:
        counted = await asyncio.to_thread(lambda: [sizes(world, container.record) for container in shown])
        for line, (written, lower) in zip(found, counted, strict=True):
            line.size_rw, line.size_root_fs = written, written + lower
    return found


def summary(world: World, container: Container, now_ns: int) -> ContainerSummary:
    """One container's line."""
    record = container.record
    sandbox = world.networks.sandbox(record.id)
    return ContainerSummary(
        id=record.id,
        names=[f"/{record.name}"],
        image=record.config.image,
        image_id=record.image_id,
        image_manifest_descriptor=record.image_manifest,
        command=command_text(record.path, record.args),
        created=record.created_ns // NS,
        ports=port_summaries(sandbox.ports) if sandbox else [],
        labels=record.config.labels or {},
        state=record.state.status,
        status=status_text(record.state, now_ns),
        host_config=HostConfigSummary(
            network_mode=record.host_config.network_mode, annotations=record.host_config.annotations
        ),
        network_settings=NetworkSettingsSummary(networks=networking.shown(world, record)),
        mounts=mount_points(record),
        health=_health_summary(record.state),
    )


_UNCHECKED = HealthSummary(status="none")


def _health_summary(state: State) -> HealthSummary:
    if state.health is None:
        return _UNCHECKED
    return HealthSummary(status=state.health.status, failing_streak=state.health.failing_streak)


async def build_matcher(world: World, filters: Filters) -> Callable[[Container], bool]:
    """One predicate for all filters: values that have to be looked up are looked up once."""
    if not any(name in filters for name in ACCEPTED):
        return lambda container: True
    _check_states(filters, "status", "state", STATUSES)
    _check_states(filters, "health", "health", ("none", "starting", "healthy", "unhealthy"))
    task = filters.boolean("is-task")
    exited = {_number("exited", value) for value in filters.get("exited")}
    before = min((_created(world, ref) for ref in filters.get("before")), default=None)
    since = max((_created(world, ref) for ref in filters.get("since")), default=None)
    ancestors = await _ancestors(world, filters.get("ancestor"))
    published = _ports("publish", filters.get("publish"))
    exposed = _ports("expose", filters.get("expose"))

    def matches(container: Container) -> bool:
        record = container.record
        state = record.state
        labels = record.config.labels or {}
        return (
            not task
            and filters.prefix("id", record.id)
            and (filters.pattern("name", record.name) or filters.pattern("name", f"/{record.name}"))
            and filters.key_values("label", labels)
            and filters.key_values("annotation", record.host_config.annotations or {})
            and filters.exact("status", state.status)
            and filters.exact("health", status_of(state))
            and filters.exact("isolation", "default")
            and (not exited or (state.exit_code in exited and state.status == "exited"))
            and (before is None or record.created_ns < before)
            and (since is None or record.created_ns > since)
            and (ancestors is None or _descends(record, ancestors))
            and (not published or _publishes(world, record, published))
            and (not exposed or bool(exposed & _exposes(record)))
            and _in_volume(record, filters.get("volume"))
            and _on_network(world, record, filters.get("network"))
        )

    return matches


def _check_states(filters: Filters, name: str, what: str, allowed: Sequence[str]) -> None:
    for value in filters.get(name):
        if value not in allowed:
            raise InvalidParameter(
                f"invalid filter '{name}={value}': invalid value for {what} ({value}): "
                f"must be one of {', '.join(allowed)}"
            )


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f"invalid filter '{name}=[{text}]'") from None


def _created(world: World, ref: str) -> int:
    return world.find(ref).record.created_ns


async def _ancestors(world: World, refs: Iterable[str]) -> tuple[set[str], set[str]] | None:
    """(image ids, top layers) that the filter names; unknown images match nothing. None: no such filter."""
    refs = list(refs)
    if not refs:
        return None
    ids, tops = set[str](), set[str]()
    for ref in refs:
        try:
            image = await world.images.get(ref)
        except Exception:  # noqa: S112 - Docker passes over images that are not there
            continue
        ids |= {str(one.id) for one in image.platforms}
        tops |= {str(one.layers[-1]) for one in image.platforms if one.layers}
    return ids, tops


def _descends(record: Record, ancestors: tuple[set[str], set[str]]) -> bool:
    """Made from one of the images, or from one that was built on it."""
    ids, tops = ancestors
    return record.image_id in ids or not tops.isdisjoint(record.layers)


def _ports(name: str, texts: Iterable[str]) -> set[str]:
    """`80`, `80/udp`, `80-90/tcp` as {`80/tcp`, …}. Raises InvalidParameter."""
    found = set()
    for text in texts:
        span, slash, protocol = text.partition("/")
        first, _, last = span.partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or len(span) > 11:
            raise InvalidParameter(f"invalid filter '{name}=[{text}]'")
        for number in range(int(first), min(int(last or first), 65535) + 1):
            found.add(f"{number}/{protocol if slash else 'tcp'}")
    return found


def _exposes(record: Record) -> set[str]:
    ports = [*(record.config.exposed_ports or {}), *(record.host_config.port_bindings or {})]
    return {"{}/{}".format(*validate.parse_port(port)) for port in ports}


def _publishes(world: World, record: Record, wanted: set[str]) -> bool:
    sandbox = world.networks.sandbox(record.id)
    if sandbox is None:
        return False
    for port, bindings in sandbox.ports.items():
        protocol = port.partition("/")[2]
        for binding in bindings or ():
            if f"{binding.host_port}/{protocol}" in wanted:
                return True
    return False


def _in_volume(record: Record, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    points = mount_points(record)
    places = {place for point in points for place in (point.source, point.destination, point.name) if place}
    return any(os.path.normpath(value) in places for value in wanted)


def _on_network(world: World, record: Record, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    ids = [asked.network_id for asked in record.networks.values() if asked.network_id]
    return any(value in record.networks or (value and id.startswith(value)) for value in wanted for id in ids or [""])
