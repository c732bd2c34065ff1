"""`pier build --output`, `--push`, `--load`, `--annotation`: what is asked for, in buildx's words, and its places."""

from __future__ import annotations

import os

from pier.cli.errors import Failure, reason
from pier.cli.jsontext import dumps, loads
from pier.cli.out import write
from pier.cli.words import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pier.cli.flags import Options

STDOUT = "-"
IMAGES = ("image", "oci", "docker")
PLACES = ("index", "index-descriptor", "manifest", "manifest-descriptor")
QUEUED = 8
"""Pieces that may wait to be unpacked."""


class Output:
    """One output: what the daemon is asked for, and the place here that it goes to."""

    def __init__(self, kind: str, attrs: dict[str, str], dest: str = "") -> None:
        self.kind = kind
        self.attrs = attrs
        self.dest = dest

    @property
    def is_folder(self) -> bool:
        """Is `dest` a folder that an archive is unpacked in?"""
        return self.kind == "local" or self.attrs.get("tar", "true").lower() in ("0", "f", "false")

    def as_asked(self) -> dict[str, Any]:
        """For the daemon, which sends a layout as an archive."""
        return {"type": self.kind, "attrs": {key: value for key, value in self.attrs.items() if key != "tar"}}


def outputs_of(opts: Options) -> list[Output]:
    """What the flags of a build ask for; nothing said: an image in the store. Failure in buildx's words."""
    outputs = [parse_output(text) for text in opts["output"]]
    if opts["push"]:
        images = [each for each in outputs if each.kind == "image"]
        for each in images:
            each.attrs["push"] = "true"
        outputs += [] if images else [Output("image", {"push": "true"})]
    if (opts["load"] or not outputs) and not any(each.kind == "image" for each in outputs):
        outputs.append(Output("image", {}))
    notes = annotations_of(opts["annotation"])
    for each in outputs:
        if each.kind not in IMAGES:
            continue
        each.attrs |= notes
        if opts["tag"]:
            each.attrs["name"] = ",".join(opts["tag"])
        if each.kind == "image" and "push" in each.attrs and not each.attrs.get("name"):
            raise Failure("tag is needed when pushing to registry")
        if each.kind == "docker" and "," in ",".join(opts["platform"]):
            raise Failure("docker exporter does not support exporting manifest lists, use the oci exporter instead")
    if opts["iidfile"] and any(each.kind in ("local", "tar") for each in outputs):
        raise Failure("local and tar exporters are incompatible with image ID file")
    return outputs


def parse_output(text: str) -> Output:
    """`type=…,dest=…`, or a folder, or `-`. Failure in buildx's words."""
    fields = fields_of(text)
    if fields == [text] and not text.startswith("type="):
        return Output("tar", {}, STDOUT) if text == STDOUT else Output("local", {}, text)
    attrs = {}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals:
            raise Failure(f"invalid value {field}")
        attrs[key.strip().lower()] = value
    kind = attrs.pop("type", "")
    if not kind:
        raise Failure("type is required for output")
    if kind == "registry":
        return Output("image", {**attrs, "push": "true"})
    if kind not in ("local", "tar", "oci", "docker"):
        return Output(kind, attrs)
    dest = attrs.pop("dest", None)
    output = Output(kind, attrs, STDOUT if dest is None else dest)
    if kind == "docker" and dest is None:
        return Output("image", attrs)  # as with --load
    if output.is_folder:
        if not dest or dest == STDOUT:
            raise Failure(f"dest is required for {kind} exporter")
    elif output.dest == STDOUT:
        if os.isatty(1):
            raise Failure(f"dest file is required for {kind} exporter. refusing to write to console")
    elif os.path.isdir(output.dest):
        raise Failure(f"destination file {output.dest} is a directory")
    return output


def fields_of(text: str) -> list[str]:
    """The parts between commas, as of a line of CSV."""
    if '"' not in text:
        return text.split(",")
    import csv  # noqa: PLC0415 - few outputs have a comma in a value

    return next(csv.reader([text]), [])


def annotations_of(texts: list[str]) -> dict[str, str]:
    """`[PLACE[PLATFORM],…:]KEY=VALUE` -> attributes of an output. Failure in buildx's words."""
    found = {}
    for text in filter(None, texts):
        left, equals, value = text.partition("=")
        if not equals:
            raise Failure(f"parse annotations: invalid annotation {quote(text)}, expected key=value")
        places, colon, key = left.partition(":")
        if not colon:
            found[f"annotation.{left}"] = value
            continue
        for place in places.split(","):
            name, bracket, platform = place.partition("[")
            if name not in ("", *PLACES) or (bracket and not platform.endswith("]")):
                raise Failure(f"parse annotations: unknown annotation type {quote(name)}")
            found[f"annotation{'-' if name else ''}{name}{bracket}{platform}.{key}"] = value
    return found


class Receiver:
    """Takes the outputs out of a build's stream, and leaves its lines of JSON."""

    def __init__(self, outputs: list[Output]) -> None:
        self._outputs = outputs
        self._places: dict[int, _File | _Folder] = {}

    def lines(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The stream's lines that are not of outputs. Failure for a place that cannot be written to."""
        rest = b""
        while True:
            line, newline, rest = rest.partition(b"\n")
            if not newline:
                chunk = next(chunks, None)
                if chunk is None:
                    break
                rest = line + chunk
                continue
            if not line.startswith(b'{"output":'):
                if line := line.strip():
                    yield line
                continue
            told = loads(line)["output"]
            place = self._place(told["number"])
            missing = told.get("bytes", 0)
            while missing:
                rest = rest or next(chunks, b"")
                if not rest:
                    raise Failure("the daemon has ended the build's stream within an output")
                place.take(rest[:missing])
                rest, missing = rest[missing:], max(0, missing - len(rest))
            if "bytes" not in told:
                self._places.pop(told["number"]).end()
        if line.strip():
            yield line.strip()

    def _place(self, number: int) -> _File | _Folder:
        if number not in self._places:
            output = self._outputs[number]
            self._places[number] = _Folder(output.dest) if output.is_folder else _File(output.dest)
        return self._places[number]

    def close(self) -> None:
        """Give up what has not come whole."""
        for place in self._places.values():
            place.abandon()


class _File:
    def __init__(self, dest: str) -> None:
        self._dest = dest
        if dest == STDOUT:
            self._fd = 1
            return
        try:
            self._fd = os.open(dest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Failure(f"failed to open {dest}: {reason(error)}") from None

    def take(self, data: bytes) -> None:
        write(self._fd, data)

    def end(self) -> None:
        if self._fd != 1:
            os.close(self._fd)

    def abandon(self) -> None:
        self.end()
        if self._fd != 1:
            os.unlink(self._dest)


class _Folder:
    """Unpacks an archive beside the one that reads the stream."""

    def __init__(self, dest: str) -> None:
        import queue  # noqa: PLC0415 - only for a folder
        import threading  # noqa: PLC0415

        try:
            os.makedirs(dest, exist_ok=True)
        except OSError as error:
            raise Failure(f"failed to create {dest}: {reason(error)}") from None
        self._dest = dest
        self._index = _index_of(dest)
        self._pieces: queue.Queue[bytes] = queue.Queue(QUEUED)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._unpack, daemon=True)
        self._thread.start()

    def take(self, data: bytes) -> None:
        self._pieces.put(data)

    def end(self) -> None:
        self._pieces.put(b"")
        self._thread.join()
        if self._error is not None:
            raise self._error
        _add_to_index(self._dest, self._index)

    def abandon(self) -> None:
        self._pieces.put(b"")
        self._thread.join()

    def _unpack(self) -> None:
        from pier.cli.copy_tar import ChunkFile, unpack  # noqa: PLC0415

        pieces = iter(self._pieces.get, b"")
        try:
            unpack(ChunkFile(pieces), self._dest, None)
        except Exception as error:
            self._error = error
            for _ in pieces:
                pass


def _index_of(folder: str) -> list[dict[str, Any]]:
    """What the OCI layout in a folder names; nothing where there is none."""
    try:
        with open(f"{folder}/index.json", "rb") as file:
            return list(loads(file.read()).get("manifests") or ())
    except (OSError, ValueError, AttributeError):
        return []


def _add_to_index(folder: str, before: list[dict[str, Any]]) -> None:
    """A layout keeps what it named before, but for names that have gone to the new image."""
    after = _index_of(folder) if before else []
    if not after:
        return
    named = {_name(entry) for entry in after}
    kept = [entry for entry in before if entry not in after and (not _name(entry) or _name(entry) not in named)]
    path = f"{folder}/index.json"
    with open(path, "rb") as file:
        document = loads(file.read())
    document["manifests"] = kept + after
    with open(path, "wb") as file:
        file.write(dumps(document).encode("utf-8", "surrogateescape"))


def _name(entry: dict[str, Any]) -> str:
    """An image's whole name; of what has none, such as a build cache, its tag."""
    notes = entry.get("annotations") or {}
    return str(notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name") or "")
