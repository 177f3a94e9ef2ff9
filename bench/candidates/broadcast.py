"""Writes each line of standard input to all who are connected: `python -m bench.candidates.broadcast PORT`.

What a server of one process can do at most for many followers: no HTTP/2, no log, no offsets.
"""

from __future__ import annotations

import asyncio
import sys
import time

from bench.files import raise_limit


async def main() -> None:
    raise_limit()
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writers.add(writer)
        await reader.read()
        writers.discard(writer)
        writer.close()

    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with await asyncio.start_server(connected, "127.0.0.1", int(sys.argv[1]), backlog=1024):
        while await lines.readline():
            stamp = f"{time.monotonic_ns()}\n".encode()
            for writer in writers:
                writer.write(stamp)


if __name__ == "__main__":
    asyncio.run(main())
