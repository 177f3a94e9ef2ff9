"""An execution as if it ran here: output to where it belongs, input from where it comes, Ctrl-C to the command."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from rexec_client.cli.exit_status import FAILED, NOBODY_READS, exit_status, remark
from rexec_client.cli.sink import Sink
from rexec_client.cli.telling import hush_stdout, tell
from rexec_client.errors import PreconditionError, RexecError, StdinClosedError
from rexec_client.output import Channel, OutputChunk

if TYPE_CHECKING:
    from rexec_client import AsyncExecutionHandle, AsyncOutputStream, Gap
    from rexec_client.cli.source import Source

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Foreground:
    """Shows one execution until it ends or the person leaves it."""

    def __init__(self, handle: AsyncExecutionHandle, stream: AsyncOutputStream[OutputChunk | Gap], *, owns: bool):
        """`owns`: signals and a broken pipe are for the command, as for one that runs here; else only for the show."""
        self._handle = handle
        self._stream = stream
        self._owns = owns
        self._sinks = {Channel.STDOUT: Sink(1), Channel.STDERR: Sink(2)}
        self._helpers: set[asyncio.Task[None]] = set()
        self._signals_seen = 0
        self._left_by = 0

    async def watch(self, source: Source | None, come_back: Callable[[int], str]) -> int:
        """Show the output, forward the input, and return the exit status.

        `come_back` makes the words for whoever leaves before the end, from the offset that was reached.
        """
        self._showing = asyncio.ensure_future(self._show())
        if source is not None:
            self._help(self._forward(source))
        self._listen()
        try:
            await self._showing
        except asyncio.CancelledError:
            if not self._left_by:
                raise
            tell(come_back(self._stream.next_offset))
            return 128 + self._left_by
        except BrokenPipeError:
            return await self._nobody_reads()
        except OSError as error:
            tell(f"output cannot be written: {error.strerror}. {come_back(self._stream.next_offset)}")
            return FAILED
        finally:
            await self._stop()
        if text := remark(self._stream.execution):
            tell(text)
        return exit_status(self._stream.execution)

    async def _show(self) -> None:
        async with self._stream as stream:
            async for piece in stream:
                if isinstance(piece, OutputChunk):
                    await self._sinks[piece.channel].write(piece.data)
                else:
                    tell(f"{piece.size} bytes of output, offsets {piece.start} to {piece.end}, are no longer kept")

    async def _forward(self, source: Source) -> None:
        """Input to the command, as fast as it reads."""
        try:
            while data := await source.read():
                await self._handle.write(data)
            await self._handle.close_stdin()
        except StdinClosedError:
            pass  # it ended, or does not read: as with a pipe, the rest is nobody's
        except RexecError as error:
            self._stream.abort(error)

    async def _send(self, number: int) -> None:
        try:
            await self._handle.send_signal(number)
        except PreconditionError:
            pass  # it ended meanwhile
        except RexecError as error:
            tell(f"the signal may not have arrived: {error}")

    async def _nobody_reads(self) -> int:
        """`rexec run … | head`: the command gets what its own pipe would have given it."""
        hush_stdout()
        if self._owns:
            await self._send(signal.SIGPIPE)
        return NOBODY_READS

    def _on_signal(self, number: int) -> None:
        self._signals_seen += 1
        if self._owns and self._signals_seen == 1:
            self._help(self._send(number))
        else:
            self._left_by = number
            self._showing.cancel()

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    def _listen(self) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    async def _stop(self) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        for task in self._helpers:
            task.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
