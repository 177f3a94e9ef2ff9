"""Presentation of output: the bytes themselves, or a JSON object for each piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from rexec_client.cli.sink import Sink
from rexec_client.output import Channel, OutputChunk

if TYPE_CHECKING:
    from rexec_client import Execution, Gap


class Presentation(Protocol):
    """Takes pieces as they come, and the end. Returning means that the piece is written out."""

    async def show(self, piece: OutputChunk | Gap) -> None: ...

    async def end(self, execution: Execution, missing: int) -> None: ...


class Streams:
    """Standard output to standard output, standard error to standard error, as raw bytes."""

    def __init__(self) -> None:
        self._sinks = {Channel.STDOUT: Sink(1), Channel.STDERR: Sink(2)}

    async def show(self, piece: OutputChunk | Gap) -> None:
        if isinstance(piece, OutputChunk):
            await self._sinks[piece.channel].write(piece.data)

    async def end(self, execution: Execution, missing: int) -> None:
        pass


class JsonLines:
    """A JSON object a line on standard output: chunks, gaps, and at last the ended execution."""

    def __init__(self) -> None:
        self._sink = Sink(1)

    async def show(self, piece: OutputChunk | Gap) -> None:
        from rexec_client.cli import render

        if isinstance(piece, OutputChunk):
            await self._write(render.chunk_document(piece))
        else:
            await self._write({"gap": {"start_offset": str(piece.start), "end_offset": str(piece.end)}})

    async def end(self, execution: Execution, missing: int) -> None:
        """Write the last object: `exit_code` is the command's own, null when a signal ended it or nothing is known."""
        from rexec_client.cli import render

        code = execution.exit_code if execution.HasField("exit_code") else None
        signal = execution.signal if execution.HasField("signal") else None
        document = render.document(execution)
        await self._write({"exit_code": code, "signal": signal, "missing_bytes": missing, "execution": document})

    async def _write(self, value: object) -> None:
        await self._sink.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
