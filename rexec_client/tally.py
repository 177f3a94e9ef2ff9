"""What of an execution's log has arrived. Pure: it is told what came and says what that means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from rexec_client.errors import IncompleteOutputError
from rexec_client.output import Channel, Gap, OutputChunk, output_chunk

if TYPE_CHECKING:
    from rexec.v1 import execution_pb2 as wire
    from rexec.v1.execution_service_pb2 import ExecResponse


class Tally:
    """Counts a log as it arrives, so that nothing is missed or given twice, whatever connections do.

    Without a channel filter every byte must follow the one before. With a filter the offsets jump, and only
    the totals at the end can tell.
    """

    def __init__(self, start: int | None = 0, channels: Collection[Channel] = ()) -> None:
        """Count from offset `start`; None: the first message says from where (a tail)."""
        self.next_offset = start
        self.missing = 0
        self._whole_log = start == 0
        self._filtered = bool(channels)
        self._channels = frozenset(channel.value for channel in channels or Channel)
        self._received: Counter[int] = Counter()

    def begin(self, next_offset: int) -> None:
        """Take the place where the stream begins, if it was left to the server."""
        if self.next_offset is None:
            self.next_offset = next_offset

    def chunks(self, chunks: Sequence[wire.OutputChunk]) -> Iterator[OutputChunk]:
        """The parts of `chunks` that are new."""
        for chunk in chunks:
            self._reach(chunk.offset)
            piece = output_chunk(chunk).since(self._position)
            if piece.data:
                self._received[piece.channel] += len(piece.data)
                self.next_offset = piece.end
                yield piece

    def gap(self, start: int, end: int) -> Iterator[Gap]:
        """The part of a gap that is new, if any."""
        self._reach(start)
        if end > self._position:
            gap = Gap(max(start, self._position), end)
            self.missing += gap.size
            self.next_offset = end
            yield gap

    def reply(self, reply: ExecResponse) -> Iterator[OutputChunk | Gap]:
        """The output in an Exec's answer. It has no gap of its own: what is older than the log begins is one."""
        for chunk in reply.chunks:
            yield from self._forgotten(min(chunk.offset, reply.execution.log_start_offset))
            yield from self.chunks([chunk])
        yield from self._forgotten(min(reply.next_offset, reply.execution.log_start_offset))
        self.passed(reply.next_offset)

    def passed(self, next_offset: int) -> None:
        """The server says that the log has been given up to here."""
        self._reach(next_offset)
        self.next_offset = max(self._position, next_offset)

    def check(self, execution: wire.Execution) -> None:
        """Compare with the ended execution's own totals.

        Raises:
            IncompleteOutputError: bytes were produced that neither came nor were reported as a gap.
        """
        if self._position != execution.log_end_offset:
            short = execution.log_end_offset - self._position
            raise IncompleteOutputError(
                short, f"output was given up to offset {self._position}, but it ends at {execution.log_end_offset}"
            )
        short = self._short_of(execution) if self._whole_log else 0
        if short:
            raise IncompleteOutputError(short, f"{short} bytes of output neither came nor were reported as a gap")

    def _short_of(self, execution: wire.Execution) -> int:
        wanted = sum(total.bytes_produced for total in execution.totals if int(total.channel) in self._channels)
        short = wanted - sum(self._received.values()) - self.missing
        # A gap does not say whose bytes are gone: with a filter it may be larger than what was wanted.
        return max(short, 0) if self._filtered else short

    @property
    def _position(self) -> int:
        return self.next_offset or 0

    def _forgotten(self, end: int) -> Iterator[Gap]:
        return self.gap(min(self._position, end), end)

    def _reach(self, offset: int) -> None:
        self.begin(offset)
        if offset > self._position and not self._filtered:
            missing = offset - self._position
            raise IncompleteOutputError(missing, f"the server left out {missing} bytes at offset {self._position}")
