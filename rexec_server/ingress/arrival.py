"""The beginning of an HTTP/2 connection, up to the client's acknowledgement of the server's SETTINGS.

gRPC limits the headers of a call by the settings that the client has acknowledged. Before that a client may send 16 MiB
of them in one block, each of which costs Python an object. So nothing of a stream goes to gRPC before the
acknowledgement has: it is held, and is little. Nothing here looks into a header.
"""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A client may send one window of data, 65,535 bytes, and some calls' headers before it reads the server's SETTINGS.
MOST_HELD = 96 * 1024
# RFC 9113, 4.2: until the server allows more, which gRPC does in its SETTINGS, no frame is larger.
_LARGEST_FRAME = 16_384
_HEAD = 9
_SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0x4, 0x6, 0x7, 0x8
_OF_THE_CONNECTION = frozenset({_SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE})
_ACK = 0x1


class NotHttp2(Exception):
    """The peer sends what no client of HTTP/2 sends; or more than may be held."""


class Arrival:
    """Takes a client's bytes, and gives back those that may go on to the server."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._held = bytearray()
        self.begun = False
        """The preface and the head of the client's own SETTINGS have come."""
        self.settled = False
        """The acknowledgement has gone on, and all that was held: from now on every byte may go on as it is."""

    def feed(self, data: bytes) -> bytes:
        """Raises NotHttp2."""
        self._buffer += data
        passed = bytearray()
        if not self.begun and not self._begin(passed):
            return b""
        while not self.settled and (frame := self._next()):
            self._sort(frame, passed)
        if self.settled:
            passed += self._held + self._buffer
            self._held, self._buffer = bytearray(), bytearray()
        if len(self._held) > MOST_HELD:
            raise NotHttp2(f"it sent more than {MOST_HELD} bytes before it acknowledged the SETTINGS")
        return bytes(passed)

    def _begin(self, passed: bytearray) -> bool:
        if not PREFACE.startswith(self._buffer[: len(PREFACE)]):
            raise NotHttp2("it does not begin as HTTP/2 does")
        if len(self._buffer) < len(PREFACE) + _HEAD:
            return False
        if self._buffer[len(PREFACE) + 3] != _SETTINGS:
            raise NotHttp2("its first frame is not SETTINGS")
        self.begun = True
        passed += PREFACE
        del self._buffer[: len(PREFACE)]
        return True

    def _next(self) -> bytes | None:
        """Return the next frame, once all of it is there."""
        if len(self._buffer) < _HEAD:
            return None
        length = int.from_bytes(self._buffer[:3])
        if length > _LARGEST_FRAME:
            raise NotHttp2(f"a frame of {length} bytes, before it was told that frames may be that large")
        if len(self._buffer) < _HEAD + length:
            return None
        frame = bytes(self._buffer[: _HEAD + length])
        del self._buffer[: _HEAD + length]
        return frame

    def _sort(self, frame: bytes, passed: bytearray) -> None:
        kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:9]) & 0x7FFF_FFFF
        if stream != 0 or kind not in _OF_THE_CONNECTION:
            self._held += frame
            return
        passed += frame
        self.settled = kind == _SETTINGS and bool(flags & _ACK) and len(frame) == _HEAD
