"""Output: any bytes, any amount, under a cap that holds, without ever being a concern of the command."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import psutil
import pytest

from rexec_server.core.launch import Overflow
from rexec_server.core.log import Chunk, Missing
from rexec_server.core.spool import Channel, Reason
from tests.runner.harness import CAP, Run, Runner
from tests.waiting import eventually

# What a spool may hold besides the capped bytes, in blocks of 4 KiB: start, exit and lock; and for each of its eight
# segments the part of a block at its end, and the first block of its index, which is free.
RECORDS = (3 + 8 * 2) * 4096


class SlowReader:
    """Follows a log in small steps, and counts what it saw and what it missed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.offset = self.data = self.gap = 0

    def step(self) -> bool:
        """Reads a little; True at the end of an ended log."""
        record = self.run.exit
        end = record.stdout_bytes + record.stderr_bytes if record else None
        reading = self.run.reader.read(self.offset, 100_000, end=end)
        for item in reading.items:
            if isinstance(item, Chunk):
                assert item.offset == self.offset
                self.data += len(item.data)
                self.offset += len(item.data)
            else:
                assert isinstance(item, Missing)
                assert item.start == self.offset
                self.gap += item.end - item.start
                self.offset = item.end
        assert reading.next_offset == self.offset
        return end is not None and self.offset == end


def test_row_08_a_slow_reader_misses_exactly_what_it_is_told(runner: Runner) -> None:
    """Failure 8: a throttled reader under a fast writer: what it got and the gaps make up the whole."""
    run = runner.sh("head -c 300M /dev/zero; echo end >&2")
    reader = SlowReader(run)
    eventually(reader.step, within=60)
    record = run.wait()
    assert record.exit_code == 0
    assert reader.data + reader.gap == record.stdout_bytes + record.stderr_bytes == 300 * 1024 * 1024 + 4
    assert reader.gap > 0


def assert_cap_holds(run: Run, cap: int, within: float) -> None:
    """Looks at the disk all the time."""
    highest = 0

    def ended() -> bool:
        nonlocal highest
        highest = max(highest, run.disk_bytes())
        return run.exit is not None

    eventually(ended, within)
    assert highest <= cap + RECORDS


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("size", "cap"),
    [
        (2 << 30, 8 << 20),
        pytest.param(
            10 << 30,
            64 << 20,
            marks=pytest.mark.skipif(os.environ.get("REXEC_LONG") != "1", reason="runs long; set REXEC_LONG=1"),
        ),
    ],
    ids=["2G", "10G"],
)
def test_row_09_the_cap_holds_at_every_moment(runner: Runner, size: int, cap: int) -> None:
    """Failure 9: the one who writes enforces the cap; what was dropped is exact, for each channel."""
    run = runner.sh(f"echo begin >&2; head -c {size} /dev/zero; printf end >&2; exit 3", output_bytes=cap)
    shim = psutil.Process(run.shim_pid)
    before = shim.memory_info().rss
    assert_cap_holds(run, cap, within=500)
    record = run.wait()
    assert (record.exit_code, record.stdout_bytes, record.stderr_bytes) == (3, size, 9)
    extent = run.reader.extent(record)
    kept = {channel: len(run.output(channel)) for channel in Channel}
    assert extent.produced == (size, 9)
    assert extent.dropped == (size - kept[Channel.STDOUT], 9 - kept[Channel.STDERR])
    assert cap * 3 // 4 < kept[Channel.STDOUT] <= cap
    assert run.output(Channel.STDERR).endswith(b"end")
    assert before < 64 << 20


def test_row_09_the_cap_holds_for_the_index_too(runner: Runner) -> None:
    """Failure 9: bytes that change channel each time need more room for their index than for themselves."""
    script = "import os\nfor _ in range(60000): os.write(1, b'a'); os.write(2, b'b')"
    run = runner.python(script, output_bytes=256 * 1024)
    assert_cap_holds(run, 256 * 1024, within=40)
    record = run.wait()
    assert (record.stdout_bytes, record.stderr_bytes) == (60000, 60000)
    extent = run.reader.extent(record)
    assert extent.produced == (60000, 60000)
    kept = (len(run.output(Channel.STDOUT)), len(run.output(Channel.STDERR)))
    assert extent.dropped == (60000 - kept[0], 60000 - kept[1])


def test_row_10_a_command_cannot_truncate_its_log(runner: Runner) -> None:
    """Failure 10: /dev/stdout is a FIFO, which has nothing to truncate."""
    run = runner.sh("seq 1 1000; echo x > /dev/stdout; echo y >> /dev/stdout; echo z > /dev/stderr; echo end")
    assert run.wait().exit_code == 0
    assert run.output() == b"".join(b"%d\n" % i for i in range(1, 1001)) + b"x\ny\nend\n"
    assert run.output(Channel.STDERR) == b"z\n"


def test_row_16_a_line_without_end_costs_no_memory(runner: Runner) -> None:
    """Failure 16: there are no lines here, only bytes: 200 MB without a newline leave the shim as it was."""
    run = runner.sh("head -c 1M /dev/zero; read x; head -c 200M /dev/zero; read x", stdin_mode=3)
    shim = psutil.Process(run.shim_pid)
    eventually(lambda: run.reader.extent().end == 1 << 20)
    before = shim.memory_info().rss
    run.stdin(0, b"go\n")
    eventually(lambda: run.reader.extent().end == 201 << 20, within=60)
    assert shim.memory_info().rss - before < 2 << 20
    run.stdin(3, b"go\n")
    assert run.wait().exit_code == 0


def test_row_17_any_bytes_go_through(runner: Runner, tmp_path: Path) -> None:
    """Failure 17: random bytes come out as they went in, on both channels."""
    data = os.urandom(1 << 20)
    (tmp_path / "data").write_bytes(data)
    run = runner.sh(f"cat {tmp_path}/data; cat {tmp_path}/data >&2")
    run.wait()
    assert hashlib.sha256(run.output()).digest() == hashlib.sha256(data).digest()
    assert run.output(Channel.STDERR) == data


def test_terminate_keeps_the_beginning_and_ends_the_command(any_runner: Runner) -> None:
    """TERMINATE: exactly the first bytes are kept, the rest is counted, and the reason says so."""
    run = any_runner.run("yes", output_bytes=100_000, overflow=Overflow.TERMINATE)
    record = run.wait()
    assert record.reason == Reason.OUTPUT_LIMIT
    assert run.output() == b"y\n" * 50_000
    extent = run.reader.extent(record)
    assert extent.dropped == (record.stdout_bytes - 100_000, 0)


def test_a_command_that_just_fits_is_not_terminated(runner: Runner) -> None:
    """The limit is what may be kept, so as much as that is no overflow."""
    record = runner.sh("head -c 100000 /dev/zero", output_bytes=100_000, overflow=Overflow.TERMINATE).wait()
    assert (record.reason, record.stdout_bytes) == (Reason.EXITED, 100_000)


def test_row_20_small_pipes_are_no_trouble(runner: Runner) -> None:
    """Failure 20: beyond a user's quota a pipe holds a page; nothing here counts on more."""
    script = (
        "import fcntl, os\n"
        "for fd in (1, 2): fcntl.fcntl(fd, 1031, 4096)\n"
        "for i in range(200): os.write(1, b'a' * 10000); os.write(2, b'b' * 10000)"
    )
    run = runner.run(sys.executable, "-c", script)
    assert run.wait().exit_code == 0
    assert (run.output(), run.output(Channel.STDERR)) == (b"a" * 2_000_000, b"b" * 2_000_000)
    assert CAP > 4_000_000
