"""From chunks that end anywhere to lines, without keeping more than one of them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from rexec_client.output import Channel, OutputChunk

LONGEST_LINE = 1 << 20


class LineSplitter:
    """Cuts bytes into lines as they come.

    Lines keep their newline, as a file's do: joined they are the input again. A line longer than `longest` bytes
    comes in parts, of which only the last ends with a newline, so that memory stays bounded whatever comes.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that `data` completes."""
        *complete, rest = data.split(b"\n")
        for line in complete:
            yield from self._hold(line + b"\n")
            yield from self.flush()
        yield from self._hold(rest)

    def flush(self) -> Iterator[bytes]:
        """What is left at the end: a last line without a newline, if any."""
        if self._held:
            yield b"".join(self._parts)
            self._parts, self._held = [], 0

    def _hold(self, data: bytes) -> Iterator[bytes]:
        while self._held + len(data) > self._longest:
            room = self._longest - self._held
            self._parts.append(data[:room])
            self._held += room
            yield from self.flush()
            data = data[room:]
        if data:
            self._parts.append(data)
            self._held += len(data)


class ChannelLines:
    """Lines of both channels, each whole, in the order in which they end."""

    def __init__(self, encoding: str | None, errors: str, longest: int) -> None:
        """Lines as str in `encoding`, or as bytes when that is None."""
        self._splitters = {channel: LineSplitter(longest) for channel in Channel}
        decoder = codecs.getincrementaldecoder(encoding) if encoding else None
        self._decoders = {channel: decoder(errors) for channel in Channel} if decoder else {}

    def feed(self, chunk: OutputChunk) -> Iterator[str | bytes]:
        """The lines that this chunk completes."""
        for line in self._splitters[chunk.channel].feed(chunk.data):
            yield self._decode(chunk.channel, line, final=line.endswith(b"\n"))

    def flush(self) -> Iterator[str | bytes]:
        """At the end: last lines without a newline."""
        for channel, splitter in self._splitters.items():
            for line in splitter.flush():
                yield self._decode(channel, line, final=True)

    def _decode(self, channel: Channel, line: bytes, *, final: bool) -> str | bytes:
        # A part of an overlong line may end within a character: the decoder keeps it for the next part.
        return self._decoders[channel].decode(line, final) if self._decoders else line
