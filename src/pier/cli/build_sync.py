"""A build context of which only what has changed is sent: `POST /build`, upgraded (`builder/sync.py` at the daemon).

The folder is listed in one pass, with bytes for names: five thousand files are some tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import stat

from pier.cli.build_context import LARGE_BYTES, Context
from pier.cli.errors import ApiError, Failure, reason
from pier.cli.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pier.builder.patterns import PatternMatcher
    from pier.cli.main import Context as Call

IGNORE = ".dockerignore"
SWITCHING = 101
MISSING = "Cannot locate specified Dockerfile"
"""What a daemon says that has taken the request for one without files: the Dockerfile is on the stream."""
CHUNK_BYTES = 1 << 18
_RUNNABLE = 0o111


class NotUtf8(Exception):
    """A name that the listing cannot have: the context goes as an archive."""


class Listing:
    """What a folder has, in the order in which the daemon is told of it."""

    __slots__ = ("_links", "fields", "folder", "matcher", "paths")

    def __init__(self, folder: str, matcher: PatternMatcher | None) -> None:
        """Raises OSError, NotUtf8."""
        self.folder = os.fsencode(folder)
        self.matcher = matcher
        self.paths: list[bytes] = []
        self.fields: list[bytes] = []
        self._links: dict[tuple[int, int], bytes] = {}
        self._add(self.folder, b"", ())

    @property
    def text(self) -> bytes:
        """Raises NotUtf8."""
        whole = b"\0".join(self.fields) + b"\0" if self.fields else b""
        try:
            whole.decode()
        except UnicodeDecodeError:
            raise NotUtf8 from None
        return whole

    def _add(self, folder: bytes, at: bytes, above: tuple[tuple[bytes, os.stat_result], ...]) -> bool:
        """Take what is in a folder; `above` is the folders that are left out unless something in them is taken back.

        Returns whether anything was.
        """
        with os.scandir(folder) as found:
            entries = sorted(found, key=_name)
        matcher, fields, paths, before = self.matcher, self.fields, self.paths, len(self.paths)
        for entry in entries:
            path, left_out = at + entry.name, False
            if matcher is not None:
                text = os.fsdecode(path)
                left_out = matcher.matches(text)
            info = entry.stat(follow_symlinks=False)
            mode = info.st_mode
            if left_out:
                if stat.S_ISDIR(mode) and matcher is not None and matcher.may_take_back_below(text):
                    above = () if self._add(entry.path, path + b"/", (*above, (path, info))) else above
                continue
            if stat.S_ISSOCK(mode):
                continue
            for name, folder_info in above:
                paths.append(name)
                fields += (name, b"%o 0 %d" % (folder_info.st_mode, folder_info.st_mtime_ns), b"")
            above = ()
            paths.append(path)
            if stat.S_ISDIR(mode):
                fields += (path, b"%o 0 %d" % (mode, info.st_mtime_ns), b"")
                self._add(entry.path, path + b"/", ())
            elif info.st_nlink == 1 and stat.S_ISREG(mode) and not mode & _RUNNABLE:
                fields += (path, b"%o %d %d" % (mode, info.st_size, info.st_mtime_ns), b"")
            else:
                fields += self._odd(entry.path, path, info)
        return len(paths) > before

    def _odd(self, place: bytes, path: bytes, info: os.stat_result) -> tuple[bytes, bytes, bytes]:
        """What is more than a plain file: programs may have capabilities, files several names."""
        mode, link, more = info.st_mode, b"", b""
        if stat.S_ISREG(mode):
            first = self._links.setdefault((info.st_dev, info.st_ino), path) if info.st_nlink > 1 else path
            link = b"" if first == path else first
            try:
                capability = os.getxattr(place, b"security.capability", follow_symlinks=False)
                more = b" 0 0 " + capability.hex().encode()
            except OSError:
                pass
        elif stat.S_ISLNK(mode):
            link = os.readlink(place)
        elif not stat.S_ISFIFO(mode):
            more = b" %d %d" % (os.major(info.st_rdev), os.minor(info.st_rdev))
        return path, b"%o %d %d%b" % (mode, info.st_size, info.st_mtime_ns, more), link


def _name(entry: os.DirEntry[bytes]) -> bytes:
    return entry.name


def build(
    cx: Call, context: Context, query: dict[str, Any], head: dict[str, Any], headers: tuple[str, ...]
) -> Iterator[bytes]:
    """Begin a build; what it tells, in pieces, the files being sent first. Failure for what cannot be read."""
    try:
        dockerfile, ignore_name, ignore, matcher = definition(context)
        listing = Listing(context.folder, matcher)
    except OSError as error:
        raise Failure(f"{_where(error, context.folder)}: {reason(error)}") from None
    text = listing.text
    head = {
        **head,
        "folder": f"{os.uname().nodename}:{context.folder}",
        "dockerfile": _base64(dockerfile),
        "ignore": None if ignore is None else _base64(ignore),
        "ignore_name": ignore_name,
    }
    query = {**query, "dockerfile": context.called}
    sock, early = _upgraded(cx, query, headers)
    sock.sendall(b"%b\n%d\n%b" % (dumps(head).encode("utf-8", "surrogateescape"), len(text), text))
    context.files = len(listing.paths)
    return _told(sock, early, context, listing)


def lend(cx: Call, build_id: str, name: str, folder: str) -> Any:
    """Lend a further folder to a build, without what its .dockerignore leaves out.

    Returns the connection, which holds it until it is closed. Failure for what cannot be read.
    """
    context = Context(folder, "")
    try:
        ignore_name, ignore = IGNORE, None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            ignore = _content(f"{folder}/{IGNORE}")
        listing = Listing(folder, None if ignore is None else _matcher(ignore_name, ignore))
        text = listing.text
    except NotUtf8:
        raise Failure(f"build context {name}: a name below {folder} is not UTF-8") from None
    except OSError as error:
        raise Failure(f"{_where(error, folder)}: {reason(error)}") from None
    head = {"folder": f"{os.uname().nodename}:{folder}", "dockerfile": ""}
    query = {"buildid": build_id, "name": name}
    response = cx.client.request("POST", "/build/context", query=query, upgrade=True)
    sock, early = response.upgraded()
    sock.sendall(b"%b\n%d\n%b" % (dumps(head).encode("utf-8", "surrogateescape"), len(text), text))
    told = _told(sock, early, context, listing)
    answer = b""
    while not answer.endswith(b"\n"):
        if not (piece := next(told, b"")):
            break
        answer += piece
    message = loads(answer) if answer else {}
    if "lent" not in message:
        detail = message.get("errorDetail") or {}
        raise Failure(detail.get("message") or f"the daemon has not taken the build context {name}")
    return sock


def _upgraded(cx: Call, query: dict[str, Any], headers: tuple[str, ...]) -> tuple[Any, bytes]:
    """The connection as a stream, and what has come of it. ApiError, Failure."""
    try:
        response = cx.client.request("POST", "/build", query=query, headers=headers, upgrade=True)
    except ApiError as error:
        if MISSING not in error.text:
            raise
    else:
        if response.status == SWITCHING:
            return response.upgraded()
    raise Failure("this daemon is another than Pier's: `docker build` builds there")


def _told(sock: Any, early: bytes, context: Context, listing: Listing) -> Iterator[bytes]:
    pieces = _received(sock, early)
    text = b""
    while b"\n" not in text:
        if not (piece := next(pieces, b"")):
            break
        text += piece
    first, _, rest = text.partition(b"\n")
    wanted = loads(first) if first else None
    if isinstance(wanted, list):
        _send(sock, context, listing, wanted)
        text = rest
    if text:
        yield text
    yield from pieces
    sock.close()


def definition(context: Context) -> tuple[bytes, str, bytes | None, PatternMatcher | None]:
    """(the Dockerfile, the ignore file's name, what it says, what that leaves out); None: there is no ignore file.

    Failure for one that is wrong, OSError for what cannot be read.
    """
    text = context.outside
    if text is None:
        try:
            text = _content(f"{context.folder}/{context.dockerfile}")
        except (FileNotFoundError, NotADirectoryError):
            raise Failure(f"Cannot locate specified Dockerfile: {context.dockerfile}") from None
    for name in (f"{context.dockerfile}{IGNORE}", IGNORE):
        try:
            ignore = _content(f"{context.folder}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return text, name, ignore, _matcher(name, ignore)
    return text, "", None, None


def _matcher(name: str, ignore: bytes) -> PatternMatcher:
    from pier.builder.dockerfile.ignore import read_ignore_file  # noqa: PLC0415 - only where there is such a file
    from pier.builder.patterns import PatternMatcher  # noqa: PLC0415
    from pier.errors import PierError  # noqa: PLC0415

    try:
        return PatternMatcher(read_ignore_file(ignore, name))
    except PierError as error:
        raise Failure(error.message) from None


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _send(sock: Any, context: Context, listing: Listing, wanted: list[int]) -> None:
    """Send the content of files, until the daemon wants no more and says why."""
    for number in wanted:
        place = listing.folder + b"/" + listing.paths[number]
        size = 0
        try:
            for piece in _pieces(place):
                sock.sendall(len(piece).to_bytes(4, "big") + piece)
                size += len(piece)
            sock.sendall(bytes(4))
        except (BrokenPipeError, ConnectionResetError):
            return
        except OSError as error:
            raise Failure(f"{os.fsdecode(place)}: {reason(error)}") from None
        context.sent_bytes += size
        if size > LARGE_BYTES:
            context.large.append((size, os.fsdecode(listing.paths[number])))


def _pieces(place: bytes) -> Iterator[bytes]:
    fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while data := os.read(fd, CHUNK_BYTES):
            yield data
    finally:
        os.close(fd)


def _received(sock: Any, early: bytes) -> Iterator[bytes]:
    """What the daemon says until it closes."""
    data = early
    while True:
        if data:
            yield data
        try:
            data = sock.recv(1 << 16)
        except ConnectionResetError:
            return
        if not data:
            return


def _base64(data: bytes) -> str:
    import binascii  # noqa: PLC0415 - a module of C's, loaded with the first build

    return binascii.b2a_base64(data, newline=False).decode()


def _where(error: OSError, folder: str) -> str:
    name = error.filename
    return os.fsdecode(name) if name else folder
