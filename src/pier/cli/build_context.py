"""A build context on its way to the daemon: the archive of a folder without what `.dockerignore` leaves out."""

from __future__ import annotations

import os
import stat

from pier.cli.errors import Failure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pier.builder.patterns import PatternMatcher

END = bytes(1024)
"""Two blocks of zeros end an archive."""
LARGE_BYTES = 10 << 20
"""Files from here on are named in the summary (trap T23)."""


class Context:
    """A folder that is sent, and what was sent of it."""

    def __init__(self, folder: str, dockerfile: str, *, outside: bytes | None = None, called: str = "") -> None:
        """`dockerfile`: its path in the context; with `outside` its content, where it lies elsewhere under the name
        `called`."""
        self.folder = folder
        self.dockerfile = dockerfile
        self.outside = outside
        self.called = called or dockerfile
        self.sent_bytes = 0
        self.files = 0
        self.large: list[tuple[int, str]] = []

    def chunks(self) -> Iterator[bytes]:
        """The archive. Failure for what cannot be read, or an ignore file that is wrong."""
        matcher = self._matcher()
        links: dict[tuple[int, int], str] = {}
        try:
            for path, name in self._tree(self.folder, "", matcher):
                yield from self._counted(path, name, links)
            if self.outside is not None:
                yield from memory(self.dockerfile, self.outside)
        except OSError as error:
            raise Failure(f"{error.filename or self.folder}: {reason(error)}") from None
        yield END

    def definition(self) -> Iterator[tuple[str, bytes]]:
        """(name, content) of the Dockerfile and of the ignore file that counts. Failure for what cannot be read."""
        from pier.builder.dockerfile.ignore import ignore_files  # noqa: PLC0415 - only the daemon's room knows them

        try:
            if self.outside is not None:
                yield self.dockerfile, self.outside
            else:
                yield self.dockerfile, _content(os.path.join(self.folder, self.dockerfile))
            for name in ignore_files(self.dockerfile):
                if os.path.exists(path := os.path.join(self.folder, name)):
                    yield name, _content(path)
                    return
        except OSError as error:
            raise Failure(f"{error.filename or self.folder}: {reason(error)}") from None

    def _counted(self, path: str, name: str, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
        from pier.cli.copy_tar import entry_chunks  # noqa: PLC0415 - tarfile is slow to load, and seldom wanted

        size = 0
        for chunk in entry_chunks(path, name, links, owner=(0, 0)):
            size += len(chunk)
            yield chunk
        self.files += 1
        self.sent_bytes += size
        if size > LARGE_BYTES:
            self.large.append((size, name))

    def _matcher(self) -> PatternMatcher | None:
        from pier.builder.dockerfile.ignore import ignore_files, keep_for_daemon, read_ignore_file  # noqa: PLC0415
        from pier.builder.patterns import PatternMatcher  # noqa: PLC0415
        from pier.errors import PierError  # noqa: PLC0415

        for name in ignore_files(self.dockerfile):
            try:
                with open(os.path.join(self.folder, name), "rb") as file:
                    patterns = read_ignore_file(file.read(), name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise Failure(f"{name}: {reason(error)}") from None
            except PierError as error:
                raise Failure(error.message) from None
            return PatternMatcher(keep_for_daemon(patterns, self.dockerfile))
        return None

    def _tree(self, folder: str, at: str, matcher: PatternMatcher | None) -> Iterator[tuple[str, str]]:
        """(path, name) of what is sent; a folder that is left out is not looked into where nothing of it can be."""
        for name in sorted(os.listdir(folder)):
            path, inside = f"{folder}/{name}", f"{at}{name}"
            is_dir = stat.S_ISDIR(os.lstat(path).st_mode)
            left_out = matcher is not None and matcher.matches(inside)
            if not left_out:
                yield path, inside
            if is_dir and not (left_out and matcher is not None and not matcher.may_take_back_below(inside)):
                yield from self._tree(path, f"{inside}/", matcher)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def memory(name: str, data: bytes) -> Iterator[bytes]:
    """A file of an archive."""
    import tarfile  # noqa: PLC0415 - only for a Dockerfile outside its context

    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    yield data + bytes(-len(data) % tarfile.BLOCKSIZE)


def from_stdin() -> Iterator[bytes]:
    """An archive as it is; what is none is a Dockerfile without a context."""
    import tarfile  # noqa: PLC0415 - only for a Dockerfile without a context

    first = os.read(0, 1 << 16)
    packed = first[:2] in (b"\x1f\x8b", b"BZ") or first[:4] in (b"\xfd7zX", b"\x28\xb5\x2f\xfd")
    if packed or first[257:262] == b"ustar":
        yield first
        while data := os.read(0, 1 << 16):
            yield data
        return
    text = first + all_of(0, "stdin")
    entry = tarfile.TarInfo("Dockerfile")
    entry.size, entry.mode = len(text), 0o644
    yield entry.tobuf() + text + bytes(-len(text) % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)


def all_of(fd: int, what: str) -> bytes:
    """What can be read of `fd`, called `what`. Failure for what cannot."""
    try:
        with open(fd, "rb", closefd=fd != 0) as file:
            return file.read()
    except OSError as error:
        raise Failure(f"read {what}: {reason(error)}") from None
