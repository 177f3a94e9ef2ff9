"""Servers whose state no load could make in time: a log of a million pieces, many labels, many that are live.

Each has one execution that was run for real; index and spool are changed while neither server nor runner runs.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from array import array
from pathlib import Path

from rexec.v1 import execution_service_pb2 as api

from bench.candidates.rexec import RexecServer, stub
from bench.files import raise_limit
from bench.filled import fill, wait_until_gone
from bench.lab import end
from bench.loads.caller import METADATA
from bench.loads.lists import LABELS
from bench.verify import Wrong
from rexec_server.core import spool
from rexec_server.core.execution import Extent, State
from rexec_server.runner.linux import start_ticks

_FLAGS = ("--no-gateway", "--max-running", "20000")


class MadeServer(RexecServer):
    """It runs one command, stops, is changed, and starts again."""

    def __init__(self, directory: Path, request: api.ExecRequest) -> None:
        super().__init__(directory, *_FLAGS)
        with stub(self) as opened:
            execution = opened.Exec(request, metadata=METADATA, timeout=60).execution
        self.exec_id = execution.exec_id
        self.stop()
        pid = self.runner_pid
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
        if not execution.end_time.seconds:  # what runs would hold the lock, and be in the way
            os.killpg(execution.pid, signal.SIGKILL)
            _await_shim(self.spool / self.name)

    @property
    def spool(self) -> Path:
        return self.state_dir / spool.SPOOL

    @property
    def name(self) -> str:
        """The name of the one execution in the spool."""
        (name,) = (path.name for path in self.spool.iterdir() if len(path.name) == 32)
        return name

    def change(self, sql: str, *values: object) -> None:
        """Changes the index."""
        with sqlite3.connect(self.state_dir / "index.sqlite") as index:
            index.execute(sql, values)
        index.close()


class LabelledServer(MadeServer):
    """Many ended executions, all with the same 32 labels."""

    def __init__(self, directory: Path, count: int) -> None:
        request = api.ExecRequest(arguments=["true"], labels=LABELS)
        request.wait.FromSeconds(30)
        super().__init__(directory, request)
        fill(self.state_dir, count)
        self.start()


class PiecesServer(MadeServer):
    """An ended execution whose log has so many pieces, of one byte each, of the two channels in turn."""

    def __init__(self, directory: Path, count: int) -> None:
        request = api.ExecRequest(arguments=["printf", "x"])
        request.wait.FromSeconds(30)
        super().__init__(directory, request)
        place = self.spool / self.name
        record = spool.ExitRecord.from_bytes((place / spool.EXIT).read_bytes())
        record = record._replace(stdout_bytes=count - count // 2, stderr_bytes=count // 2)
        (place / spool.segment_name(0)).write_bytes((b"o\n" * count)[:count])
        pieces = array("Q")
        for offset in range(count):
            pieces.extend((offset, record.end_time, offset % 2 + 1))
        (place / spool.index_name(0)).write_bytes(spool.Segment(0).to_bytes() + pieces.tobytes())
        (place / spool.EXIT).write_bytes(record.to_bytes())
        extent = Extent(0, count, (record.stdout_bytes, record.stderr_bytes), (0, 0))
        self.change(
            f"UPDATE execution SET exit=?, extent=json(?), kept_bytes={count}", record.to_bytes(), json.dumps(extent)
        )
        self.start()
        with stub(self) as opened:
            reply = opened.Poll(api.PollRequest(exec_id=self.exec_id, tail_bytes=1), metadata=METADATA, timeout=60)
        if reply.execution.log_end_offset != count:
            raise Wrong(f"the log has {reply.execution.log_end_offset} bytes, not {count}")


class LiveServer(MadeServer):
    """So many executions that seem to run: their locks are held by a program, which is all that lives of them."""

    def __init__(self, directory: Path, count: int) -> None:
        raise_limit()
        super().__init__(directory, api.ExecRequest(arguments=["sleep", "3600"]))
        place = self.spool / self.name
        started = spool.StartRecord.from_bytes((place / spool.START).read_bytes())
        for file in place.iterdir():
            if not file.is_file() or file.name in (spool.EXIT, spool.LOCK):  # a lock is a file's, and not a name's
                file.unlink()
        self.change(
            "UPDATE execution SET state=?, pid=?, start_time=?, exit=NULL", State.RUNNING, 1, started.start_time
        )
        fill(self.state_dir, count)
        self._holder = subprocess.Popen(
            [sys.executable, "-m", "bench.loads", "held-locks", str(self.spool)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ticks = start_ticks(self._holder.pid)
        assert ticks is not None
        alive = started._replace(
            pid=self._holder.pid, pid_start=ticks, shim_pid=self._holder.pid, shim_start=ticks
        ).to_bytes()
        for directory in self.spool.iterdir():
            if directory.is_dir():
                (directory / spool.START).write_bytes(alive)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise Wrong("the locks are not held")
        self.start()

    def close(self) -> None:
        """End the runner first: it would take over all of them."""
        super().close()
        end(self._holder)


def _await_shim(directory: Path) -> None:
    """Wait until the end of an execution is on record."""
    deadline = time.monotonic() + 30
    while not (directory / spool.EXIT).exists():
        if time.monotonic() > deadline:
            raise Wrong("the command's end is not on record")
        time.sleep(0.01)
