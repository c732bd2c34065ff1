"""What can be wrong with content and archives, and with the place they are kept.

BadArchive            400   an archive or a compressed stream that is not what it claims to be
├── TruncatedArchive        it ends in the middle
├── HostileEntry            an entry that reaches where it must not
└── TooLarge                a limit is passed: header sizes, documents
    └── LayerTooLarge       one that the daemon's configuration sets: bytes and files of a layer
ContentMismatch       400   bytes that are not what their digest or size says
ContentNotFound       404   a blob the store does not have
DriverUnavailable     503   T1: a snapshot driver that cannot be used here
"""

from __future__ import annotations

from pier.errors import InvalidParameter, NotFound, Unavailable


class BadArchive(InvalidParameter):
    """invalid archive: {reason}"""


class TruncatedArchive(BadArchive):
    """unexpected EOF"""

    remedy = "the archive ends in the middle of {where}; copy or make it again"


class HostileEntry(BadArchive):
    """archive entry {name}: {reason}"""

    remedy = "nothing outside the image was touched; do not trust this archive"


class TooLarge(BadArchive):
    """archive too large: {reason}"""

    remedy = "the limit guards against decompression bombs"


class LayerTooLarge(TooLarge):
    """archive too large: {reason}"""

    remedy = "the limit guards against decompression bombs; it is `{key}` in daemon.json"


class ContentMismatch(InvalidParameter):
    """content {digest} failed verification: {reason}"""

    remedy = "the data was changed or cut on its way; fetch it again"


class ContentNotFound(NotFound):
    """content {digest}: not found"""


class DriverUnavailable(Unavailable):
    """{message}"""
