"""From an exception to what the client reads: a status and one message, in Docker's JSON.

Only here is it decided what leaves the daemon: an error of Pier's own says what it says; anything else is a bug, gets
an id, and its traceback stays in the daemon's log.
"""

from __future__ import annotations

import errno
import logging
import secrets

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pier.errors import InvalidParameter, NotFound, PierError

log = logging.getLogger("pier.api")


class NoSpaceLeft(PierError):
    """write {path}: no space left on device"""

    remedy = "free some space where the data root is; nothing of this request was kept"


class PageNotFound(NotFound):
    """page not found"""


class BodyTooLarge(InvalidParameter):
    """the request's body is larger than {limit} bytes"""

    status = 413


class UnsupportedContentType(InvalidParameter):
    """unsupported Content-Type header ({content_type}): must be 'application/json'"""


class NulInBody(InvalidParameter):
    """a text in the request's body holds a NUL character"""

    remedy = "no path, name or variable of Linux can"


class EmptyBody(InvalidParameter):
    """invalid JSON: got EOF while reading request body"""


def status_and_message(error: Exception) -> tuple[int, str]:
    """What to tell the client. Logs what it must not be told."""
    match error:
        case PierError():
            return error.status, error.wire
        case msgspec.MsgspecError():  # the text names the field: "… - at `$.HostConfig.Memory`"
            return 400, f"invalid JSON: {error}"
        case HttpProcessingError():  # the body breaks the rules of HTTP
            return 400, "the request's body is malformed"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return 500, NoSpaceLeft(path=error.filename or "the data root").wire
        case web.HTTPException():
            return error.status, error.reason.lower()
        case _:
            incident = secrets.token_hex(4)
            log.error("internal error %s", incident, exc_info=error)
            return 500, f"internal error, see the daemon's log (id {incident})"


def error_body(message: str) -> bytes:
    """Docker's error JSON, with the newline that Go's encoder leaves."""
    return msgspec.json.encode({"message": message}) + b"\n"


def error_response(error: Exception) -> web.Response:
    """The whole answer to a request that failed before anything was sent."""
    status, message = status_and_message(error)
    return web.Response(status=status, body=error_body(message), content_type="application/json")
