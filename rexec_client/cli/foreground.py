"""An execution as if it ran here: output to where it belongs, input from where it comes, Ctrl-C to the command."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from rexec_client.cli.exit_status import FAILED, NOBODY_READS, exit_status, missing_output, remark
from rexec_client.cli.source import ReadAhead, Source
from rexec_client.cli.telling import hush_stdout, tell
from rexec_client.errors import PreconditionError, RexecError, StdinClosedError
from rexec_client.output import Gap, OutputChunk

if TYPE_CHECKING:
    from rexec_client import AsyncExecutionHandle, AsyncOutputStream
    from rexec_client.cli.presentation import Presentation

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Foreground:
    """Shows one execution until it ends or the person leaves it."""

    def __init__(
        self,
        handle: AsyncExecutionHandle,
        stream: AsyncOutputStream[OutputChunk | Gap],
        presentation: Presentation,
        *,
        owns: bool,
        gaps: bool,
    ) -> None:
        """Show `stream`.

        Args:
            owns: signals and a broken pipe are for the command, as for one that runs here; else only for the show.
            gaps: missing output is accepted.
        """
        self._handle = handle
        self._stream = stream
        self._presentation = presentation
        self._owns = owns
        self._gaps = gaps
        self._missing = 0
        self._helpers: set[asyncio.Task[None]] = set()
        self._signals_seen = 0
        self._left_by = 0

    async def watch(self, source: Source | None, come_back: Callable[[int, bool], str]) -> int:
        """Show the output, forward the input, and return the exit status.

        `come_back` makes the words for leaving before the end, from the offset that was reached, and True when the
        command waits for its reader from now on.
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
            return await self._leave(come_back)
        except BrokenPipeError:
            return await self._nobody_reads()
        except OSError as error:
            parting = come_back(self._stream.next_offset, bool(self._stream.holder))
            tell(f"output cannot be written: {error.strerror}. {parting}")
            return FAILED
        finally:
            await self._stop()
        if text := remark(self._stream.execution):
            tell(text)
        if self._missing and not self._gaps:
            tell(missing_output(self._missing, self._stream.execution))
            return FAILED
        return exit_status(self._stream.execution)

    async def _show(self) -> None:
        async with self._stream as stream:
            async for piece in stream:
                if isinstance(piece, Gap):
                    self._missing += piece.size
                await self._presentation.show(piece)
        await self._presentation.end(self._stream.execution, self._missing)

    async def _forward(self, source: Source) -> None:
        """Input to the command, as fast as it reads."""
        ahead = ReadAhead(source)
        self._help(ahead.fill())
        try:
            while data := await ahead.take():
                await self._handle.write(data)
            await self._handle.close_stdin()
        except RexecError as error:
            if isinstance(error, StdinClosedError) and not error.command_waits:
                return  # it ended, or does not read: as with a pipe, the rest is lost
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
            await self._release()
        return NOBODY_READS

    async def _leave(self, come_back: Callable[[int, bool], str]) -> int:
        """Leave before the end, as the person asks: what was their own command goes on without them."""
        waits = not await self._release() if self._owns else bool(self._stream.holder)
        if self._missing and not self._gaps:
            tell(missing_output(self._missing, self._stream.execution))
        tell(come_back(self._stream.next_offset, waits))
        return 128 + self._left_by

    async def _release(self) -> bool:
        """Return True when the command does not wait for this reader any more, or never did."""
        try:
            await self._stream.release()
        except RexecError:
            return False
        return True

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
