"""The volume service: makes, shows, mounts and removes volumes. One per daemon, on the event loop's thread.

Who uses a volume is known by the containers' records; `users` is handed in by whoever has them. A container that is
being made, and has no record yet, holds what it is about to use by a `Claim`.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.events import EventBus
from pier.kernel.paths import closing
from pier.model.disk_usage import VolumesUsage
from pier.model.filters import Filters
from pier.model.volume import Volume, VolumesPruneResponse, VolumeUsageData
from pier.state import Delete, Put, Store
from pier.storage.ids import IdMap
from pier.storage.project_quota import QuotaUnavailable
from pier.volumes import fill, options
from pier.volumes.folders import Folders
from pier.volumes.record import ANONYMOUS, DRIVER, KIND, NoSuchVolume, Record, check_name, decode, make_name
from pier.volumes.use import VolumeUse

log = logging.getLogger("pier.volumes")

LIST_FILTERS = ("dangling", "driver", "label", "name")
PRUNE_FILTERS = ("all", "label", "label!")


class NoSuchDriver(NotFound):
    """create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found"""

    remedy = "the driver is `local`"


class VolumeInUse(Conflict):
    """remove {name}: volume is in use - [{ids}]"""


class NoQuota(InvalidParameter):
    """create {name}: quota size requested but no quota support"""

    remedy = "here: {reason}; for one volume alone: `--opt type=tmpfs --opt device=tmpfs --opt o=size=…`"


class BadAll(InvalidParameter):
    """invalid filter 'all': strconv.ParseBool: parsing "{text}": invalid syntax"""


class Wanted(NamedTuple):
    """A volume that a container asks for; without a name it gets one of its own."""

    name: str = ""
    driver: str = ""
    options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None


@dataclass
class Claim:
    """The volumes of a container that is being made: nobody can remove them until it is settled or given up."""

    names: list[str]
    """In the order in which they were asked for."""
    changes: list[Put] = field(default_factory=list)
    """Records to be written together with the container's."""


Users = Callable[[], Mapping[str, Sequence[str]]]


class VolumeService:
    """Names in the answers are volumes'; `owner` is the host's uid and gid of who owns a new volume's root."""

    def __init__(self, *, top: str, notes: str, store: Store, events: EventBus, id_map: IdMap | None = None) -> None:
        """`top` is the folder of the volumes, `notes` one that a reboot empties."""
        self.users: Users = dict
        self.folders = Folders(top)
        self._store = store
        self._events = events
        self._owner = id_map.root if id_map is not None else (0, 0)
        self._records: dict[str, Record] = {}
        self._unwritten: set[str] = set()
        """Made for a claim, in no database yet."""
        self._holds: Counter[str] = Counter()
        self._busy: dict[str, asyncio.Future[None]] = {}
        """Being made or removed."""
        self.use = VolumeUse(self.folders, notes, self.get, self._held)

    # --- the daemon's side

    async def start(self) -> builtins.list[str]:
        """Load the records and hold them against the folders; returns what was repaired."""
        repaired = []
        for key, data in (await self._store.load(KIND)).items():
            try:
                self._records[key] = decode(data, key)
            except msgspec.MsgspecError as error:
                log.error("the record of volume %s is damaged: %s", key, error)
                await self._store.write(Delete(KIND, key))
                repaired.append(f"volume {key}: its record was damaged and is dropped")
        adopted, sentences = await asyncio.to_thread(self.folders.begin, self._records, self._owner)
        for record in adopted:
            self._records[record.name] = record
            repaired.append(f"volume {record.name}: had no record, is known again by its folder")
        if adopted:
            await self._store.write(*(record.put() for record in adopted))
        return [*repaired, *sentences, *await asyncio.to_thread(self._finish_copies)]

    def _finish_copies(self) -> builtins.list[str]:
        finished = []
        for name in self._records:
            try:
                with closing(self.folders.open_folder(name)) as folder, closing(self.folders.open_data(name)) as root:
                    if fill.recover(folder, root):
                        finished.append(f"volume {name}: what it takes over from its image is complete now")
            except OSError as error:
                log.warning("volume %s: a copy from its image cannot be finished: %s", name, error)
        return finished

    async def close(self) -> None:
        """Let go of everything; what containers have mounted stays with them."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.use.close()
        self.folders.close()

    # --- the faces' side

    async def create(
        self,
        *,
        name: str = "",
        driver: str = "",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume; one of that name that is there already is the answer, as it is.

        Raises NameTooShort, InvalidName, NoSuchDriver, InvalidOption, MissingOption, NoQuota, OSError.
        """
        claim = await self.claim([Wanted(name, driver, driver_opts, labels)])
        try:
            if claim.changes:
                await self._store.write(*claim.changes)
        except BaseException:
            await self.give_up(claim)
            raise
        await self.settle(claim)
        return self._shown(self._records[claim.names[0]])

    async def create_filled(
        self, name: str, driver_opts: Mapping[str, str], labels: Mapping[str, str], content: Callable[[int], None]
    ) -> Volume | None:
        """Make a volume whose root `content`, which blocks, fills; None: there is one of that name.

        Raises as `create`, and what `content` raises.
        """
        check_name(name)
        await self._unoccupied(name)
        if name in self._records:
            return None
        record = await self._make(Wanted(name, "", driver_opts, labels), name, self._owner, content)
        try:
            await self._store.write(record.put())
        except BaseException:
            self._unwritten.discard(name)
            self._records.pop(name, None)
            await asyncio.to_thread(self.folders.throw_away, name)
            raise
        self._unwritten.discard(name)
        await asyncio.to_thread(self.folders.confirm, name)
        self._publish(name, "create")
        return self._shown(record)

    async def list(self, filters: Filters) -> list[Volume]:
        """Those that fit, by name. Raises UnknownFilter, InvalidFilterValue."""
        filters.validate(LIST_FILTERS)
        dangling = filters.boolean("dangling") if "dangling" in filters else None
        used = self.users() if dangling is not None else {}
        return [
            self._shown(record)
            for name, record in sorted(self._records.items())
            if filters.pattern("name", name)
            and filters.exact("driver", record.driver)
            and filters.key_values("label", record.labels or {})
            and (dangling is None or dangling != (name in used or name in self._holds))
        ]

    async def inspect(self, name: str, *, size: bool = False) -> Volume:
        """One volume; with `size` what it takes, which means looking at every file. Raises NoSuchVolume."""
        record = self.get(name)
        shown = self._shown(record)
        if size:
            shown.usage_data = (await self._measure([record]))[0]
        return shown

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume that nobody uses. Raises NoSuchVolume (not with `force`), VolumeInUse, OSError."""
        await self._unoccupied(name)
        record = self._records.get(name)
        if record is None:
            if force:
                return
            raise NoSuchVolume(name=name)
        self._check_unused(name)
        await self._remove(record)

    async def prune(self, filters: Filters, *, every: bool = False) -> VolumesPruneResponse:
        """Remove the volumes that nobody uses, of those with a name only if `every` or the filter `all` says so.

        Raises UnknownFilter, BadAll.
        """
        filters.validate(PRUNE_FILTERS)
        if "all" in filters:
            every = _parse_all(filters)
        answer = VolumesPruneResponse()
        used = self.users()
        for name, record in sorted(self._records.items()):
            labels = record.labels or {}
            fits = filters.key_values("label", labels) and filters.lacks_key_values("label!", labels)
            if name in used or not fits or not (every or record.anonymous):
                continue
            try:
                size_bytes = await asyncio.to_thread(self.folders.size_bytes, name)
                await self.remove(name)
            except (Conflict, NotFound):
                continue
            answer.volumes_deleted.append(name)
            answer.space_reclaimed += size_bytes
        self._events.publish("volume", "prune", "", {"reclaimed": str(answer.space_reclaimed)})
        return answer

    async def usage(self) -> VolumesUsage:
        """What each volume takes; those on file systems that options describe are not among them, as with Docker."""
        records = [record for _, record in sorted(self._records.items()) if not record.options]
        items = [self._shown(record) for record in records]
        for item, usage in zip(items, await self._measure(records), strict=True):
            item.usage_data = usage
        sizes = [(item.usage_data.size, item.usage_data.ref_count) for item in items if item.usage_data]
        return VolumesUsage(
            active_count=sum(count > 0 for _, count in sizes),
            total_count=len(items),
            reclaimable=sum(size for size, count in sizes if not count),
            total_size=sum(size for size, _ in sizes),
            items=items,
        )

    async def _measure(self, records: Sequence[Record]) -> builtins.list[VolumeUsageData]:
        used = self.users()
        names = [record.name for record in records]
        sizes = await asyncio.to_thread(lambda: [self.folders.size_bytes(name) for name in names])
        return [VolumeUsageData(len(used.get(name, ())), size) for name, size in zip(names, sizes, strict=True)]

    def get(self, name: str) -> Record:
        """Raises NoSuchVolume."""
        record = self._records.get(name)
        if record is None:
            raise NoSuchVolume(name=name)
        return record

    def _shown(self, record: Record) -> Volume:
        return record.shown(self.folders.data(record.name))

    # --- making and removing

    async def claim(self, wanted: Sequence[Wanted], owner: tuple[int, int] | None = None) -> Claim:
        """Make what is missing of these and hold all; to be settled or given up. Raises as `create`."""
        claim = Claim([])
        try:
            for item in wanted:
                record = await self._ensure(item, owner or self._owner)
                self._holds[record.name] += 1
                claim.names.append(record.name)
                if record.name in self._unwritten:
                    claim.changes.append(record.put())
        except BaseException:
            await asyncio.shield(self.give_up(claim))
            raise
        return claim

    async def _ensure(self, wanted: Wanted, owner: tuple[int, int]) -> Record:
        name = check_name(wanted.name) if wanted.name else make_name()
        await self._unoccupied(name)
        found = self._records.get(name)
        if wanted.driver not in ("", DRIVER):
            raise NoSuchDriver(name=name, driver=wanted.driver)
        if found is not None:
            return found
        return await self._make(wanted, name, owner)

    async def _make(
        self, wanted: Wanted, name: str, owner: tuple[int, int], content: Callable[[int], None] | None = None
    ) -> Record:
        """Its folder, and its record, which is in no database yet."""
        options.check(name, wanted.options)
        labels = dict(wanted.labels) if wanted.labels else None
        if not wanted.name:
            labels = {**(labels or {}), ANONYMOUS: ""}
        record = Record(
            name=name,
            created_ns=time.time_ns(),
            labels=labels,
            options=dict(wanted.options) if wanted.options else None,
        )
        with self._occupied(name):
            try:
                bound = options.size_bytes(name, wanted.options)
                await asyncio.to_thread(self.folders.make, record, owner, bound, content)
            except QuotaUnavailable as error:
                raise NoQuota(name=name, reason=error.fields.get("reason", "")) from error
            self._records[name] = record
            self._unwritten.add(name)
        return record

    async def settle(self, claim: Claim) -> None:
        """The container and the records are written."""
        fresh = [name for name in claim.names if name in self._unwritten]
        for name in fresh:
            self._unwritten.discard(name)
            self._publish(name, "create")
        if fresh:
            await asyncio.to_thread(self.folders.confirm, *fresh)
        self._let_go(claim)

    async def give_up(self, claim: Claim) -> None:
        """The container was not made: what was made for it alone goes."""
        self._let_go(claim)
        for name in claim.names:
            if name in self._unwritten and name not in self._holds:
                self._unwritten.discard(name)
                del self._records[name]
                await asyncio.to_thread(self.folders.throw_away, name)

    def _let_go(self, claim: Claim) -> None:
        self._holds -= Counter(claim.names)

    def _check_unused(self, name: str) -> None:
        ids = self.users().get(name, ())
        if ids or name in self._holds:
            raise VolumeInUse(name=name, ids=", ".join(ids))

    async def _remove(self, record: Record) -> None:
        async with self.removing([record.name]) as changes:
            await self._store.write(*changes)

    @contextlib.asynccontextmanager
    async def removing(self, names: Sequence[str], user: str = "") -> AsyncIterator[builtins.list[Delete]]:
        """Remove those of these volumes that nobody but a container that goes has: the changes, for the block to write.

        Where the block fails they stay. Raises OSError.
        """
        leaving: builtins.list[Record] = []
        with contextlib.ExitStack() as stack:
            for name in names:
                await self._unoccupied(name)
                others = [id for id in self.users().get(name, ()) if id != user]
                if name in self._records and not others and name not in self._holds:
                    stack.enter_context(self._occupied(name))
                    leaving.append(self._records.pop(name))
            try:
                for record in leaving:
                    await asyncio.to_thread(self.folders.mark_leaving, record.name)
                yield [record.delete() for record in leaving]
            except BaseException:
                for record in leaving:
                    self._records[record.name] = record
                    self.folders.confirm(record.name)
                raise
            for record in leaving:
                await asyncio.to_thread(self.folders.throw_away, record.name)
        for record in leaving:
            self.use.forget(record.name)
            self._publish(record.name, "destroy")

    def _publish(self, name: str, action: str) -> None:
        self._events.publish("volume", action, name, {"driver": DRIVER})

    async def _unoccupied(self, name: str) -> None:
        while (busy := self._busy.get(name)) is not None:
            await asyncio.wait([busy])

    @contextlib.contextmanager
    def _occupied(self, name: str) -> Iterator[None]:
        done = self._busy[name] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._busy[name]
            done.set_result(None)

    def mountpoint(self, name: str) -> str:
        """The folder of a volume that is one."""
        return self.folders.data(name)

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Not to be removed while the block runs. Raises NoSuchVolume."""
        self._holds[self.get(name).name] += 1
        try:
            yield
        finally:
            self._holds -= Counter([name])


def _parse_all(filters: Filters) -> bool:
    text = filters.get("all")[0]
    if text.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise BadAll(text=text[:40])
    return text.lower() in ("1", "t", "true")
