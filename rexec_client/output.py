"""Output as callers see it: chunks, and the gaps between them."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rexec.v1 import execution_pb2 as wire


class Channel(enum.IntEnum):
    """Where a byte of output came from. The numbers are those of the wire."""

    STDOUT = 1
    STDERR = 2


def channel_numbers(channels: Iterable[Channel]) -> list[wire.Channel.ValueType]:
    """Channels as the wire has them."""
    return [cast("wire.Channel.ValueType", channel.value) for channel in channels]


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of output, cut for transport only: it may end anywhere, within a line or a character.

    Attributes:
        channel: which channel.
        offset: position of its first byte in the execution's one log, which both channels share.
        data: exactly what the command wrote.
        time: when rexec read it from the command, UTC with time zone; None when the server did not say.
    """

    channel: Channel
    offset: int
    data: bytes
    time: datetime | None = None

    @property
    def end(self) -> int:
        """Offset after its last byte: where to go on reading."""
        return self.offset + len(self.data)

    def since(self, offset: int) -> OutputChunk:
        """The part of it from `offset` on."""
        return replace(self, offset=offset, data=self.data[offset - self.offset :]) if offset > self.offset else self


def output_chunk(chunk: wire.OutputChunk) -> OutputChunk:
    """The wire's chunk, for callers."""
    time = chunk.read_time.ToDatetime(UTC) if chunk.HasField("read_time") else None
    return OutputChunk(Channel(chunk.channel), chunk.offset, chunk.data, time)


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of the log that is no longer kept.

    Attributes:
        start: first missing offset.
        end: offset after the last missing one.
    """

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes are missing."""
        return self.end - self.start
