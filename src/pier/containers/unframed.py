"""What a multiplexed stream holds, without its frames (`runtime.streams.frame` puts them on)."""

from __future__ import annotations

HEADER_BYTES = 8


class Unframed:
    """Takes the frames off a multiplexed stream (Engine API, ContainerAttach, "Stream format") that comes in pieces."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        """Bytes of the present frame that are still to come."""

    def feed(self, data: bytes) -> bytes:
        """The content in the next piece."""
        found = bytearray()
        while data:
            if not self._left:
                missing = HEADER_BYTES - len(self._header)
                self._header, data = self._header + data[:missing], data[missing:]
                if len(self._header) < HEADER_BYTES:
                    break
                self._left, self._header = int.from_bytes(self._header[4:], "big"), b""
            found += data[: self._left]
            taken = min(self._left, len(data))
            self._left, data = self._left - taken, data[taken:]
        return bytes(found)
