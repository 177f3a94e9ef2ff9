"""An execution's output as it appears, every byte once and in order."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from rexec.v1.execution_pb2 import Execution, Waiting
from rexec.v1.execution_service_pb2 import ExecResponse, FollowResponse

from rexec_client._async.follow import AsyncFollow
from rexec_client._async.hold import AsyncHold
from rexec_client.errors import OutputGapError
from rexec_client.output import Gap, OutputChunk
from rexec_client.tally import Tally

PieceT = TypeVar("PieceT", bound=OutputChunk | Gap)


class AsyncOutputStream(Generic[PieceT]):
    """Iterate over it for chunks; it ends when the execution has ended and all its output has come.

    It goes on by itself after a lost connection or a restart of the server, and compares what came with what the
    command wrote. Leaving it early never touches the command: `next_offset` says where to go on.

    With a `holder` of a command that waits for its readers a piece counts as used up when the next one is asked for.

    Attributes:
        execution: the newest state that the server told.
        next_offset: where to go on after the pieces that were given out.

    Raises, while iterating:
        OutputGapError: output is no longer kept, unless gaps were asked for as pieces. Iterating on goes on after it.
        IncompleteOutputError: bytes did not come and were not reported as a gap.
        CallError: the server refused, or stayed away for longer than the client's `reconnect_timeout`.
    """

    def __init__(
        self, follow: AsyncFollow, tally: Tally, execution: Execution, *, gaps: bool, hold: AsyncHold | None = None
    ) -> None:
        self.execution = execution
        self.next_offset = tally.next_offset or 0
        self._follow = follow
        self._tally = tally
        self._gaps = gaps
        self._hold = hold
        self._ended = False
        self._pieces: deque[OutputChunk | Gap] = deque()

    def take_reply(self, reply: ExecResponse) -> None:
        """Begin with the output that came with the answer to Exec."""
        self._pieces.extend(self._tally.reply(reply))
        self._follow.skip_to(reply.next_offset)
        if reply.eof:
            self._end(reply.execution)

    def __aiter__(self) -> Self:
        return self

    @property
    def holder(self) -> str:
        """The name under which the command waits for this reader; empty when it does not."""
        return self._follow.holder

    async def __anext__(self) -> PieceT:
        if self._hold is not None:
            # With nothing left to give, all that has come is used, also what was of another channel.
            self._hold.use(self.next_offset if self._pieces else self._tally.next_offset or 0)
        while not self._pieces:
            if self._ended:
                raise StopAsyncIteration
            await self._take(await self._follow.receive())
        piece = self._pieces.popleft()
        self.next_offset = piece.end
        if self._hold is not None and not self._ended:
            self._hold.give(piece.end)
        if isinstance(piece, Gap) and not self._gaps:
            raise OutputGapError(piece)
        return cast(PieceT, piece)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop following. A command that waits for its readers waits for the next one."""
        self._follow.close()
        if self._hold is not None:
            await self._hold.finish(ended=self._ended)

    async def release(self) -> None:
        """Stop following for good: a command that waited for this reader goes on, and its oldest output is dropped.

        Raises CallError: the server does not know it, and the command waits.
        """
        self._follow.close()
        if self._hold is not None and self._follow.holder:
            await self._hold.release()

    def abort(self, failure: Exception) -> None:
        """Make the iteration raise `failure`. From any thread."""
        self._follow.abort(failure)

    async def _take(self, response: FollowResponse) -> None:
        if self._hold is not None and not self._follow.holder:
            self._hold.stop()  # it may not hold
        match response.WhichOneof("event"):
            case "snapshot":
                self.execution = response.snapshot
                self._begin(response.next_offset)
                if self._hold is not None and self.execution.waiting == Waiting.WAITING_READER:
                    self._hold.hurry()
            case "output":
                self._pieces.extend(self._tally.chunks(response.output.chunks))
            case "gap":
                self._pieces.extend(self._tally.gap(response.gap.start_offset, response.gap.end_offset))
        self._tally.passed(response.next_offset)
        if response.HasField("end"):
            self._end(response.end)
            if self._hold is not None:
                await self._hold.finish(ended=True)

    def _begin(self, offset: int) -> None:
        if self._tally.next_offset is None:
            self.next_offset = offset
            if self._hold is not None:
                self._hold.begin(offset)
        self._tally.begin(offset)

    def _end(self, execution: Execution) -> None:
        self.execution = execution
        self._ended = True
        self._follow.close()
        self._tally.check(execution)
