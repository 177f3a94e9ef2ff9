"""Output as readable UTF-8, for people: split characters joined, invalid bytes replaced. Bytes are the truth."""

from __future__ import annotations

import codecs
from collections.abc import Collection
from typing import NamedTuple

from rexec_server.core.execution import CHANNELS
from rexec_server.core.log import Chunk, LogReader
from rexec_server.core.spool import Channel

_decoder = codecs.getincrementaldecoder("utf-8")
# A character has at most four bytes, so at most three of it can have come before a cut.
_LONGEST_PREFIX = 3


class TextChunk(NamedTuple):
    """A chunk whose bytes became text; its offset is that of the bytes."""

    channel: Channel
    offset: int
    time: int
    text: str


class TextView:
    """Turns chunks of some channels, from an offset on, into text; characters that were cut there are whole again."""

    def __init__(self, log: LogReader, offset: int, channels: Collection[Channel] = CHANNELS) -> None:
        self._decoders = {channel: _decoder(errors="replace") for channel in channels}
        for channel, decoder in self._decoders.items():
            decoder.decode(_incomplete_end(log.before(offset, channel, _LONGEST_PREFIX)))

    def chunk(self, chunk: Chunk) -> TextChunk:
        text = self._decoders[chunk.channel].decode(chunk.data)
        return TextChunk(chunk.channel, chunk.offset, chunk.time, text)

    def finish(self, offset: int, time: int) -> list[TextChunk]:
        """At the end of the log, and before a gap: what was never completed, replaced."""
        rest = {channel: decoder.decode(b"", final=True) for channel, decoder in self._decoders.items()}
        return [TextChunk(channel, offset, time, text) for channel, text in rest.items() if text]


def _incomplete_end(data: bytes) -> bytes:
    """The bytes at the end of `data` that begin a character and do not complete it."""
    for size in range(1, min(_LONGEST_PREFIX, len(data)) + 1):
        end = data[-size:]
        if end[0] >= 0xC0:  # the first byte of a character of several
            decoder = _decoder(errors="ignore")
            decoder.decode(end)
            return decoder.getstate()[0]
        if end[0] < 0x80:
            break
    return b""
