"""Containers as scopes of systemd's: the systemd cgroup driver. Loaded only where that driver is chosen.

systemd makes a scope's cgroup around processes that are there already, tells the end of that by the signal JobRemoved,
and removes the cgroup once it is empty. `Delegate=yes` makes what is below the scope ours. It rewrites the files of its
units whenever it likes (`systemctl daemon-reload`), so it is told the limits that it knows; the rest, and the exact
numbers, are written into the files as everywhere. org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pier.errors import Unavailable
from pier.kernel import cgroup_files
from pier.kernel.cgroup_layout import SYSTEMD_RUNS, Layout
from pier.kernel.cgroups import Cgroup, CgroupError
from pier.runtime.systemd import units
from pier.runtime.systemd.dbus import CallFailed, Connection
from pier.runtime.systemd.dbus_wire import BadMessage
from pier.runtime.systemd.units import Property, ScopeName

__all__ = ["Manager", "NoSystemd", "Scope", "SystemdRefused", "running"]

SOCKETS = (("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True))
"""Its own socket, for root alone; and the system's message bus. Path, and whether it is a bus."""

SERVICE, OBJECT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
NO_SUCH_UNIT, UNIT_EXISTS = "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitExists"

GONE_S = 5.0
"""How long a scope of the same name may take to go: of the run before this one."""


class NoSystemd(Unavailable):
    """systemd cannot be reached: {reason}"""

    remedy = (
        "the systemd cgroup driver needs systemd as init; without it use cgroupfs "
        "(no --systemd-cgroup; exec-opts native.cgroupdriver=cgroupfs in daemon.json)"
    )


class SystemdRefused(CgroupError):
    """{deed} unit {path}: systemd says: {reason}"""

    remedy = "see `systemctl status {path}` and `journalctl -b _PID=1`"


def running() -> bool:
    """Whether systemd is this machine's init, and one of its sockets is there."""
    return os.path.isdir(SYSTEMD_RUNS) and any(os.path.exists(path) for path, _ in SOCKETS)


class Manager:
    """systemd's manager object. Methods raise NoSystemd, SystemdRefused."""

    def __init__(self, sockets: Sequence[tuple[str, bool]] = SOCKETS) -> None:
        """Connect. Raises NoSystemd."""
        reason = "no socket"
        for path, bus in sockets:
            try:
                self._connection = Connection(path, bus=bus)
            except (OSError, BadMessage, CallFailed) as error:
                reason = f"{path}: {getattr(error, 'strerror', None) or error}"
                continue
            break
        else:
            raise NoSystemd(reason=reason)
        if bus:
            rule = f"type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved'"
            with self._talking("reach", "systemd"):
                self._connection.call(*_BUS, "AddMatch", "s", rule)
                self._call("Subscribe")

    def close(self) -> None:
        self._connection.close()

    def version(self) -> int:
        """systemd's version number, 0 where it is not told."""
        with self._talking("reach", "systemd"):
            answer = self._connection.call(SERVICE, OBJECT, _PROPERTIES, "Get", "ss", MANAGER, "Version")
        digits = ""
        for letter in str(answer[0].value).lstrip("v"):
            if not letter.isdigit():
                break
            digits += letter
        return int(digits or 0)

    def start_scope(self, name: ScopeName, properties: Sequence[Property]) -> None:
        """Make a transient scope; returns when its processes are in it.

        One of that name that failed is forgotten, one whose processes have ended is waited for.
        """
        with self._talking("start", name.unit):
            for _ in cgroup_files.waits(GONE_S):
                try:
                    self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", name.unit, "replace", list(properties), [])
                except CallFailed as error:
                    if error.name != UNIT_EXISTS:
                        raise
                    exists = error
                    self.reset_failed(name)
                else:
                    return
            raise exists

    def set_properties(self, name: ScopeName, properties: Sequence[Property]) -> None:
        """Change a unit until it goes; returns when systemd has written what that changes in its cgroup's files."""
        with self._talking("change", name.unit):
            self._call("SetUnitProperties", "sba(sv)", name.unit, True, list(properties))
            # systemd answers first and writes afterwards, but before it looks at the next message.
            self._connection.call(SERVICE, OBJECT, "org.freedesktop.DBus.Peer", "Ping")

    def stop(self, name: ScopeName) -> None:
        """Stop a scope and forget it; returns when it is gone. One that is not there is well too."""
        with self._talking("stop", name.unit):
            try:
                self._job("StopUnit", "ss", name.unit, "replace")
            except CallFailed as error:
                if error.name != NO_SUCH_UNIT:
                    raise
        self.reset_failed(name)

    def reset_failed(self, name: ScopeName) -> None:
        """Have a unit that failed (one whose process the kernel killed for want of memory) forgotten."""
        with contextlib.suppress(SystemdRefused), self._talking("forget", name.unit):
            self._call("ResetFailedUnit", "s", name.unit)

    def _call(self, member: str, signature: str = "", *arguments: Any) -> list[Any]:
        return self._connection.call(SERVICE, OBJECT, MANAGER, member, signature, *arguments)

    def _job(self, member: str, signature: str, unit: str, *arguments: Any) -> None:
        """Call what answers with a job, and wait for that job's end. Raises CallFailed for any but `done`."""
        self._connection.forget_signals()
        (job,) = self._call(member, signature, unit, *arguments)
        _, _, _, result = self._connection.wait_signal(MANAGER, "JobRemoved", lambda values: values[1] == job)
        if result not in ("done", "skipped"):
            self.reset_failed(ScopeName("", unit))
            raise CallFailed("", f"its job ended with {result!r}")

    @contextlib.contextmanager
    def _talking(self, deed: str, unit: str) -> Iterator[None]:
        try:
            yield
        except CallFailed as error:
            raise SystemdRefused(deed=deed, path=unit, reason=str(error)) from error
        except (OSError, BadMessage) as error:
            raise NoSystemd(reason=str(error)) from error


_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_PROPERTIES = "org.freedesktop.DBus.Properties"


class Scope(Cgroup):
    """The cgroup of a container that is a scope of systemd's."""

    __slots__ = ("_connect", "_properties", "name")

    made_around_a_process = True

    def __init__(
        self,
        layout: Layout,
        name: ScopeName,
        properties: Sequence[Property] = (),
        *,
        connect: Callable[[], Manager] = Manager,
    ) -> None:
        """`properties` are what a configuration asks for besides."""
        super().__init__(layout, name.path)
        self.name = name
        self._properties = properties
        self._connect = connect

    def create_unified(self) -> None:
        """Nothing: systemd makes it around its first process."""

    def create(self) -> None:
        """Make it around this process."""
        self.create_around(int(os.readlink("/proc/self")))  # getpid() is 1 in a pid namespace of its own

    def create_around(self, pid: int) -> None:
        properties = [*units.scope_properties(self.name, pid, self.layout), *self._properties]
        with contextlib.closing(self._connect()) as manager:
            manager.start_scope(self.name, properties)
        try:
            # What systemd does not manage is made beside it: v1's freezer and devices, and v2's hugetlb.
            super().create()
            self._adopt(pid)
        except BaseException:
            self._stop()
            raise

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """As Cgroup.apply; systemd is told first, for it writes the same files."""
        self._tell(resources)
        return super().apply(resources)

    def update(self, resources: Mapping[str, Any]) -> list[str]:
        """As Cgroup.update; systemd is told what the kernel has taken."""
        warnings = super().update(resources)
        self.apply(resources)
        return warnings

    def _tell(self, resources: Mapping[str, Any]) -> None:
        with contextlib.closing(self._connect()) as manager:
            properties = units.limits(resources, self.layout, manager.version())
            if properties:
                manager.set_properties(self.name, properties)

    def remove(self, timeout_s: float = 2.0) -> None:
        """Remove the cgroup and the unit."""
        super().remove(timeout_s)
        self._stop()

    def _stop(self) -> None:
        with contextlib.closing(self._connect()) as manager:
            manager.stop(self.name)
