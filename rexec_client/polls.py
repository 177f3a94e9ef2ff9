"""The answer to a Poll."""

from __future__ import annotations

from dataclasses import dataclass

from rexec.v1.execution_pb2 import Execution
from rexec.v1.execution_service_pb2 import PollResponse

from rexec_client.output import OutputChunk, output_chunk


@dataclass(frozen=True, slots=True)
class PollResult:
    """State and output at one moment.

    Attributes:
        execution: its state.
        chunks: output from where it was asked for, in order.
        next_offset: where to go on reading.
        skipped_bytes: how much of what was asked for is no longer kept.
        eof: True when it has ended and all output has been given: nothing more will come.
    """

    execution: Execution
    chunks: tuple[OutputChunk, ...]
    next_offset: int
    skipped_bytes: int
    eof: bool


def poll_result(reply: PollResponse) -> PollResult:
    """The wire's answer, for callers."""
    chunks = tuple(map(output_chunk, reply.chunks))
    return PollResult(reply.execution, chunks, reply.next_offset, reply.skipped_bytes, reply.eof)
