"""Push: from a name in the store to its registry (Engine API, POST /images/{name}/push).

Order of deeds: find what the name means, see that the registry has every blob (there already, mounted from another of
its repositories, or sent, side by side), then the manifests from the inside out, the tag last. What is sent is what the
store holds, bit for bit: an image that was pulled keeps its digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

from pier.distribution import Credentials, Registries, Repository
from pier.distribution.blocking import in_thread
from pier.distribution.errors import ManifestUnknown, RegistryError
from pier.errors import InvalidParameter, NotFound
from pier.events.bus import EventBus
from pier.images import progress
from pier.images.progress import Message
from pier.images.push_plan import Part, Plan, host_image, make_plan
from pier.images.telling import TICK_S, Say, single_error, telling
from pier.oci import Descriptor, Digest, Manifest, Platform, Reference, decode_manifest
from pier.oci.manifest import MAX_MANIFEST_BYTES
from pier.storage.content import ContentStore, VerifiedReader

MAX_UPLOADS: Final = 5
"""`max-concurrent-uploads`, Docker's default."""
PREPARING: Final = "Preparing"
WAITING: Final = "Waiting"
PUSHING: Final = "Pushing"

Mounts = Callable[[Digest, str], tuple[str, ...]]
"""Blob and registry -> paths of its repositories that are known to have the blob."""


class NoSuchTag(NotFound):
    """tag does not exist: {name}"""


class NothingToPush(NotFound):
    """An image does not exist locally with the tag: {name}"""


class DigestPush(InvalidParameter):
    """cannot push a digest reference"""

    remedy = "give it a tag: `docker tag {name} NAME:TAG`, and push that"


class Pusher:
    """Pushes images out of one store; all pushes of the daemon share its slots."""

    def __init__(
        self,
        registries: Registries,
        content: ContentStore,
        events: EventBus,
        *,
        mounts: Mounts = lambda _blob, _registry: (),
        max_uploads: int = MAX_UPLOADS,
    ) -> None:
        self.content = content
        self.events = events
        self.mounts = mounts
        self.slots = asyncio.Semaphore(max(1, max_uploads))
        self._registries = registries

    def limit(self, uploads: int) -> None:
        """How many blobs may be on their way at once, from the next one on."""
        self.slots = asyncio.Semaphore(max(1, uploads))

    async def push(
        self, reference: str, *, platform: str = "", auth: Mapping[str, str] | None = None
    ) -> AsyncIterator[Message]:
        """Push a tag, or without one all tags of the repository, telling the progress as Docker does.

        Raises PierError: before the first message for a name that cannot be pushed, later for what goes wrong then.
        """
        name = Reference.parse(reference, default_tag=None)
        if name.digest is not None:
            raise DigestPush(name=name.familiar)
        wanted = Platform.parse(platform) if platform else None
        repository = self._registries.repository(name, Credentials.from_auth_config(auth), push=True)

        def run(say: Say) -> Coroutine[None, None, None]:
            return _Push(self, repository, wanted, say).run()

        async with aclosing(telling(run, name=f"push {name}")) as messages:
            async for message in messages:
                yield message

    async def push_artifact(self, name: Reference, root: Descriptor, *, auth: Mapping[str, str] | None = None) -> None:
        """Send a manifest that no name here points at, or an index of blobs, as a tag. Raises PierError."""
        repository = self._registries.repository(name, Credentials.from_auth_config(auth), push=True)
        raw = await in_thread(self.content.read, root.digest, limit_bytes=MAX_MANIFEST_BYTES)
        document = decode_manifest(raw, media_type=root.media_type, what=f"manifest {root.digest}")
        blobs = [document.config, *document.layers] if isinstance(document, Manifest) else document.manifests
        parts = [Part(blob) for blob in blobs]
        await single_error(_Push(self, repository, None, _unheard)._send_all(parts))
        await repository.put_manifest(root, raw, str(name.tag))

    async def push_root(
        self,
        name: Reference,
        root: Descriptor,
        *,
        by_digest: bool = False,
        insecure: bool = False,
        auth: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Message]:
        """Send a manifest or an index, to which no name here need point, as a tag or, `by_digest`, as itself alone.

        `insecure`: the registry may be spoken to in the clear. Told as `push` does; call it while a lease keeps the
        blobs. Raises PierError.
        """
        credentials = Credentials.from_auth_config(auth)
        repository = self._registries.repository(name, credentials, push=True, insecure=insecure)

        def run(say: Say) -> Coroutine[None, None, None]:
            return _Push(self, repository, None, say).send_root(root, str(root.digest if by_digest else name.tag))

        async with aclosing(telling(run, name=f"push {name}")) as messages:
            async for message in messages:
                yield message


async def _unheard(_: Message) -> None:
    pass


class _Push:
    """One run of a push."""

    def __init__(self, shared: Pusher, repository: Repository, wanted: Platform | None, say: Say) -> None:
        self._shared = shared
        self._repository = repository
        self._reference = repository.reference
        self._wanted = wanted
        self._say = say
        self._there: set[Digest] = set()
        """Blobs that this push has seen to already, for an earlier tag."""

    async def run(self) -> None:
        content, reference = self._shared.content, self._reference
        with content.keep():
            tags = await in_thread(content.tags)
            await self._check_platform(tags.get(str(reference)))
            await self._say(progress.status(f"The push refers to repository [{reference.familiar_name}]"))
            for tag, descriptor in chosen_tags(reference, tags):
                await self._push_tag(reference.with_tag(tag), descriptor)

    async def _check_platform(self, descriptor: Descriptor | None) -> None:
        """A platform that is not here is refused before the first message. Raises NoSuchPlatform."""
        if descriptor is not None and self._wanted is not None:
            await in_thread(make_plan, self._shared.content, descriptor, self._reference.familiar, self._wanted)

    async def _push_tag(self, name: Reference, descriptor: Descriptor) -> None:
        plan, note = await self._plan(name, descriptor)
        before = await self._present(name)
        await self._send_all(plan.parts)
        for child, data in plan.children:
            await self._repository.put_manifest(child, data, child.digest)
        await self._repository.put_manifest(plan.top, plan.top_bytes, str(name.tag))
        top = plan.top
        if top.digest == descriptor.digest:  # one platform of an index does not become an image of its own
            await in_thread(self._shared.content.set_tag, str(name.with_digest(top.digest)), descriptor)
        if before not in (None, top.digest):
            await self._say(progress.status(f"{name.tag}: updated: {before} -> {top.digest}"))
        await self._say(progress.status(f"{name.tag}: digest: {top.digest} size: {top.size}"))
        aux = {"Tag": name.tag, "Digest": str(top.digest), "Size": top.size, "Previous": str(before or "")}
        await self._say({"progressDetail": {}, "aux": aux})
        if note is not None:
            await self._say({"progressDetail": {}, "aux": note})
        self._shared.events.publish("image", "push", name.familiar, {"name": name.familiar_name})

    async def send_root(self, root: Descriptor, target: str) -> None:
        """A manifest or an index with all that is below it."""
        plan = await in_thread(make_plan, self._shared.content, root, self._reference.familiar)
        await self._send_all(plan.parts)
        for child, data in plan.children:
            await self._repository.put_manifest(child, data, child.digest)
        await self._repository.put_manifest(plan.top, plan.top_bytes, target)

    async def _plan(self, name: Reference, descriptor: Descriptor) -> tuple[Plan, Message | None]:
        """What to send; and what to tell where that is one platform instead of the index it belongs to."""
        plan = await in_thread(make_plan, self._shared.content, descriptor, name.familiar, self._wanted)
        if not plan.missing:
            return plan, None
        there = [await self._repository.has_manifest(entry.digest) for entry in plan.missing]
        if all(there):
            return plan, None
        single = await in_thread(host_image, self._shared.content, plan, name.familiar)
        note = {
            "manifestPushedInsteadOfIndex": True,
            "originalIndex": described(plan.top),
            "selectedManifest": described(single.top),
        }
        return single, note

    async def _present(self, name: Reference) -> Digest | None:
        """What the tag means in the registry now; None where it means nothing or nobody may know."""
        try:
            return await self._repository.tag_digest(str(name.tag))
        except (ManifestUnknown, RegistryError):
            return None

    # --- blobs

    async def _send_all(self, parts: list[Part]) -> None:
        """Side by side; the layers are told of, the top one first."""
        fresh = [part for part in parts if part.descriptor.digest not in self._there]
        again = [part for part in parts if part.descriptor.digest in self._there]
        for part in reversed(parts):
            if part.id:
                await self._say(progress.layer(PREPARING, part.id))
        for part in again:
            if part.id:
                await self._say(progress.layer("Layer already exists", part.id))
        async with asyncio.TaskGroup() as group:
            for part in reversed(fresh):
                group.create_task(self._send(part))
        self._there.update(part.descriptor.digest for part in fresh)

    async def _send(self, part: Part) -> None:
        if part.foreign:
            return await self._say(progress.layer("Skipped foreign layer", part.id))
        sending = _Sending(self._shared, self._repository, part)
        task = asyncio.create_task(sending.run(), name=f"upload {part.descriptor.digest.short}")
        try:
            await asyncio.sleep(0)  # lets it begin, so that only those that must wait say so
            last = (PREPARING, 0)
            while not task.done():
                now = sending.stage, sending.offset
                if now != last and part.id and sending.stage != PREPARING:
                    await self._say(_telling(sending))
                last = now
                await asyncio.wait({task}, timeout=TICK_S)
            verdict = await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if part.id:
            how, _, repository = verdict.partition(" ")
            if how == "uploaded" and last != (PUSHING, part.descriptor.size):
                await self._say(progress.advance(PUSHING, part.id, part.descriptor.size, part.descriptor.size))
            words = {"exists": "Layer already exists", "mounted": f"Mounted from {repository}"}.get(how, "Pushed")
            await self._say(progress.layer(words, part.id))
        return None


class _Sending:
    """One blob on its way out, and how far it is."""

    def __init__(self, shared: Pusher, repository: Repository, part: Part) -> None:
        self._shared = shared
        self._repository = repository
        self.part = part
        self.descriptor = part.descriptor
        self.stage = WAITING
        self.offset = 0

    async def run(self) -> str:
        async with self._shared.slots:
            self.stage = PREPARING
            domain, own = self._repository.reference.domain, self._repository.reference.path
            known = self._shared.mounts(self.descriptor.digest, domain)
            elsewhere = tuple(path for path in known if path != own)
            return await self._repository.upload(self, self, mount_from=elsewhere)

    def sent(self, offset: int) -> None:
        self.stage, self.offset = PUSHING, offset

    def retrying(self, delay_s: float) -> None:
        self.stage = progress.retrying(delay_s)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_Stored]:
        blob = _Stored(self._shared.content, self.descriptor)
        try:
            yield blob
        finally:
            await in_thread(blob.close)


class _Stored:
    """A blob of the store, read forward; going back opens it anew."""

    def __init__(self, content: ContentStore, descriptor: Descriptor) -> None:
        self._content = content
        self._descriptor = descriptor
        self._reader: VerifiedReader | None = None
        self._position = 0

    async def read(self, offset: int, size: int) -> bytes:
        return await in_thread(self._read, offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        if self._reader is None or offset < self._position:
            self.close()
            self._reader, self._position = self._content.open(self._descriptor.digest, self._descriptor.size), 0
        while self._position < offset:
            skipped = self._reader.read(min(size, offset - self._position))
            if not skipped:
                return b""
            self._position += len(skipped)
        data = self._reader.read(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def chosen_tags(reference: Reference, tags: Mapping[str, Descriptor]) -> list[tuple[str, Descriptor]]:
    """What to push: the tag that is named, or all of the repository, sorted. Raises NoSuchTag, NothingToPush."""
    prefix = f"{reference.name}:"
    if reference.tag is not None:
        descriptor = tags.get(str(reference))
        if descriptor is not None:
            return [(reference.tag, descriptor)]
        if any(name.startswith((prefix, f"{reference.name}@")) for name in tags):
            raise NoSuchTag(name=reference.familiar)
        raise NothingToPush(name=reference.familiar_name)
    found = [(name.removeprefix(prefix), entry) for name, entry in tags.items() if name.startswith(prefix)]
    if not found:
        raise NothingToPush(name=reference.familiar_name)
    return sorted((tag, entry) for tag, entry in found if "@" not in tag)


def described(descriptor: Descriptor) -> Message:
    """A descriptor in a message."""
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def _telling(sending: _Sending) -> Message:
    if sending.stage == PUSHING:
        return progress.advance(PUSHING, sending.part.id, sending.offset, sending.descriptor.size)
    return progress.layer(sending.stage, sending.part.id)
