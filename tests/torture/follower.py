"""A follower that may be killed at any moment: it writes down how far it has read, and goes on there.

`python -m tests.torture.follower TARGET CALLER DIR` reads tasks from DIR/N.task, and writes DIR/N.done when it has seen
the end of one: what was wrong, one fault a line.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from rexec_client import CallError, Client, RexecError
from rexec_client.status import is_unanswered
from tests.torture.reading import Reading
from tests.torture.workload import Task

LOOK_SECONDS = 0.1
# Offset in the log, and position in each channel.
_PLACE = struct.Struct("<QQQ")


def main() -> None:
    target, caller, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    begun: set[str] = set()
    idle = threading.Event()
    with Client(target, caller=caller, retry_timeout=120, reconnect_timeout=120) as client:
        while True:
            for file in directory.glob("*.task"):
                if file.stem not in begun and not file.with_suffix(".done").exists():
                    begun.add(file.stem)
                    threading.Thread(target=_follow, args=(client, file), daemon=True).start()
            idle.wait(LOOK_SECONDS)


def _follow(client: Client, file: Path) -> None:
    task = Task.from_json(file.read_text())
    try:
        faults = _read(client, task, file.with_suffix(".place"))
    except RexecError as error:
        faults = [f"{type(error).__name__}: {error}"]
    done = file.with_suffix(".unfinished")
    done.write_text("".join(f"{fault}\n" for fault in faults))
    done.rename(file.with_suffix(".done"))


def _read(client: Client, task: Task, file: Path) -> list[str]:
    place = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        offset, *positions = _PLACE.unpack(os.pread(place, _PLACE.size, 0).ljust(_PLACE.size, b"\0"))
        reading = Reading(task, tuple(positions))
        with _stream(client, task, offset) as stream:
            for piece in stream:
                reading.take(piece)
                if reading.positions:
                    os.pwrite(place, _PLACE.pack(piece.end, *reading.positions), 0)
        reading.finish(stream.execution)
        return reading.faults
    finally:
        os.close(place)


def _stream(client: Client, task: Task, offset: int) -> Any:
    """A stream of an execution that is there: only the server may be away."""
    while True:
        try:
            return client.attach(task.exec_id).output(since=offset, gaps=True)
        except CallError as error:
            if not is_unanswered(error):
                raise
            threading.Event().wait(LOOK_SECONDS)


if __name__ == "__main__":
    main()
