"""The output that one stream, or one answer, could not give, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from rexec.v1 import execution_service_pb2 as api


@dataclass
class Gaps:
    """Counts what a stream leaves out because it is no longer kept."""

    missing: int = 0

    def count(self, message: api.FollowResponse) -> int:
        """Return how many bytes are missing at this message: of a gap, its size; at the end, all that were before."""
        match message.WhichOneof("event"):
            case "gap":
                size = message.gap.end_offset - message.gap.start_offset
                self.missing += size
                return size
            case "end":
                return self.missing
        return 0


def missing_in(reply: api.ExecResponse) -> int:
    """Return how many bytes are missing in the output of an Exec that waited, which is given from the start."""
    if not any(chunk.HasField("text") for chunk in reply.chunks):
        return reply.next_offset - sum(len(chunk.data) for chunk in reply.chunks)
    if reply.eof:  # a text says nothing about how many bytes it was
        return sum(total.bytes_dropped for total in reply.execution.totals)
    return reply.chunks[0].offset
