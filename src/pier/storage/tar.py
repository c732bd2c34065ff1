"""Reading tar archives as they come: ustar, PAX (POSIX.1-2017, pax, "ustar Interchange Format") and GNU long names.

Names are bytes, exactly as the archive has them: what they may reach is the extractor's business. Nothing is believed:
check sums, numbers and PAX records are verified and every header is bounded before memory is taken for it.
`tar_header` holds the pure half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from pier.storage.errors import BadArchive, LayerTooLarge, TooLarge, TruncatedArchive
from pier.storage.stream import CHUNK, Reader, read_exactly
from pier.storage.tar_header import (
    BLOCK,
    FRAGMENTS_MAX,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    HEADER_ONLY,
    NUL_BLOCK,
    PAX_GLOBAL,
    PAX_LOCAL,
    REGULAR,
    VOLUME_HEADER,
    Entry,
    old_sparse_size,
    parse_header,
    parse_old_sparse,
    parse_pax,
    refuse_unsupported,
    with_fragments,
    with_pax,
    with_pax_sparse,
)

__all__ = ["Entry", "TarLimits", "TarReader"]

METADATA: Final = frozenset({PAX_GLOBAL, PAX_LOCAL, GNU_LONG_NAME, GNU_LONG_LINK})


DEFAULT_ENTRIES: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class TarLimits:
    """Bounds of one archive (attack 12)."""

    entries: int = DEFAULT_ENTRIES
    header_bytes: int = 1 << 20
    """One PAX or GNU extension header, and all that are in force for one entry."""


class TarReader:
    """Iterate over the entries; between two of them `read` gives the current one's content.

    Raises BadArchive and its kinds. Content left unread is skipped.
    """

    def __init__(self, stream: Reader, limits: TarLimits = TarLimits()) -> None:
        self._stream = stream
        self._limits = limits
        self._left = 0
        self._padding = 0
        self._block = NUL_BLOCK
        """The last header block."""
        self._global_pax: dict[bytes, bytes] = {}
        self.entries = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            self.entries += 1
            if self.entries > self._limits.entries:
                raise LayerTooLarge(reason=f"more than {self._limits.entries} entries", key="max-layer-files")
            yield entry

    def read(self, size: int = -1, /) -> bytes:
        """Content of the current entry; empty at its end."""
        if size < 0 or size > self._left:
            size = self._left
        if not size:
            return b""
        data = self._stream.read(size)
        if not data:
            raise TruncatedArchive(where="an entry's content")
        self._left -= len(data)
        return data

    def _next(self) -> Entry | None:
        """The next entry with its extension headers applied; None at the end of the archive."""
        pax = dict(self._global_pax)
        long_name: bytes | None = None
        long_link: bytes | None = None
        extension_bytes = 0
        while True:
            entry = self._next_header()
            if entry is None:
                if extension_bytes:
                    raise TruncatedArchive(where="its headers")
                return None
            if entry.type not in METADATA:
                break
            extension_bytes += entry.size + BLOCK
            if extension_bytes > self._limits.header_bytes:
                raise TooLarge(reason=f"an entry's headers take more than {self._limits.header_bytes} bytes")
            data = read_exactly(self._stream, entry.size, where="a header")
            self._left = 0
            if entry.type == PAX_LOCAL:
                pax |= parse_pax(data)
            elif entry.type == PAX_GLOBAL:
                self._global_pax |= parse_pax(data)
                pax |= self._global_pax
            elif entry.type == GNU_LONG_NAME:
                long_name = data.split(b"\0", 1)[0]
            else:
                long_link = data.split(b"\0", 1)[0]
        return self._complete(entry, pax, long_name, long_link)

    def _complete(
        self, entry: Entry, pax: dict[bytes, bytes], long_name: bytes | None, long_link: bytes | None
    ) -> Entry:
        if long_name is not None:
            entry = replace(entry, name=long_name)
        if long_link is not None:
            entry = replace(entry, linkname=long_link)
        if pax:
            entry = with_pax(entry, pax)
        if entry.type == GNU_SPARSE:
            entry = self._old_sparse(replace(entry, type=REGULAR))
        elif entry.type == REGULAR:
            entry = with_pax_sparse(entry, pax)
        refuse_unsupported(entry)
        if entry.type == REGULAR and entry.name.endswith(b"/"):  # as archives older than POSIX mark directories
            entry = replace(entry, type=b"5")
        if entry.type in HEADER_ONLY:
            entry = replace(entry, size=0)
        self._expect(entry.size)
        if entry.sparse is not None and entry.size and not entry.sparse.fragments:
            entry = self._map_in_front(entry)
        return entry

    def _old_sparse(self, entry: Entry) -> Entry:
        """An old GNU sparse file: the map goes on in blocks behind the header."""
        size, (numbers, more) = old_sparse_size(self._block), parse_old_sparse(self._block, extension=False)
        while more:
            if len(numbers) > 2 * FRAGMENTS_MAX:
                raise TooLarge(reason=f"{entry.shown} has a sparse map of more than {FRAGMENTS_MAX} pieces")
            block = read_exactly(self._stream, BLOCK, where="a sparse map")
            found, more = parse_old_sparse(block, extension=True)
            numbers += found
        return with_fragments(entry, size, numbers)

    def _map_in_front(self, entry: Entry) -> Entry:
        """PAX sparse format 1.0: the content begins with the map, a number a line, filled up to a whole block."""
        assert entry.sparse is not None
        text, lines, count = bytearray(), 0, -1
        while count < 0 or lines <= 2 * count:
            if self._left < BLOCK or len(text) > 40 * FRAGMENTS_MAX:
                raise BadArchive(reason=f"{entry.shown} has a malformed sparse map")
            block = read_exactly(self._stream, BLOCK, where="a sparse map")
            self._left -= BLOCK
            text += block
            lines += block.count(b"\n")
            if count < 0 and lines:
                head = bytes(text.partition(b"\n")[0])
                if not head.isdigit() or len(head) > 7 or int(head) > FRAGMENTS_MAX:
                    raise BadArchive(reason=f"{entry.shown} has a malformed sparse map")
                count = int(head)
        numbers = bytes(text).split(b"\n")[1 : 2 * count + 1]
        return with_fragments(replace(entry, size=self._left), entry.sparse.size, numbers)

    def _next_header(self) -> Entry | None:
        """The next header block, past what is left of the entry before; None at the end."""
        self._skip()
        while True:
            block = self._read_block()
            if block is None:
                return None
            if block == NUL_BLOCK:
                second = self._read_block()
                if second is None or second == NUL_BLOCK:
                    return None
                raise BadArchive(reason="a zero block in the middle")
            self._block = block
            entry = parse_header(block)
            self._expect(entry.size)
            if entry.type != VOLUME_HEADER:
                return entry
            self._skip()

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _skip(self) -> None:
        left = self._left + self._padding
        while left:
            data = self._stream.read(min(left, CHUNK))
            if not data and left <= self._padding:
                break  # umoci ends a layer with its last file's last byte, and Go's reader takes that for the end
            if not data:
                raise TruncatedArchive(where="an entry's content")
            left -= len(data)
        self._expect(0)

    def _read_block(self) -> bytes | None:
        """One block; None where the stream ends on a block's border, which some writers leave at that."""
        data = self._stream.read(BLOCK)
        if not data:
            return None
        return data if len(data) == BLOCK else data + read_exactly(self._stream, BLOCK - len(data), where="a header")
