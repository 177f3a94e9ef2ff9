"""Ways of the candidates to bring a file into a command's standard input. Each `open` gives a feeder of all of it.

The command compares its input with the file itself, and ends with 0 only when each byte is right.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.candidates import rexec
from bench.candidates.openssh import Sshd
from bench.lab import Lab, end
from bench.verify import expect_status

# The bytes that are read and handed to the library at once.
PIECE = 32 * 1024 * 1024

Feed = Callable[[], None]
Opener = Callable[[Lab, Path], AbstractContextManager[Feed]]


def _command(path: Path) -> list[str]:
    return ["cmp", "-", str(path)]


@contextmanager
def library(lab: Lab, path: Path) -> Iterator[Feed]:
    """Feed through `start` with an open standard input, and `write`."""
    with rexec.client(lab.get(rexec.RexecServer)) as client:

        def feed() -> None:
            handle = client.start(_command(path), stdin=True)
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    handle.write(piece)
            handle.close_stdin()
            expect_status(handle.wait(60).exit_code)
            client.delete(handle.exec_id)

        yield feed


@contextmanager
def command_line(lab: Lab, path: Path) -> Iterator[Feed]:
    """Feed through `rexec run -- … < FILE`."""
    yield _program(rexec.cli(lab.get(rexec.RexecServer).target, "run", "--", *_command(path)), path)


@contextmanager
def ssh(lab: Lab, path: Path) -> Iterator[Feed]:
    yield _program(lab.get(Sshd).command(shlex.join(_command(path))), path)


@contextmanager
def ssh_gcm(lab: Lab, path: Path) -> Iterator[Feed]:
    yield _program(lab.get(Sshd).command(shlex.join(_command(path)), options=("-c", "aes128-gcm@openssh.com")), path)


@contextmanager
def pipe(_: Lab, path: Path) -> Iterator[Feed]:
    """Feed the command through a pipe of `cat`."""
    yield _program(["sh", "-c", f"cat | {shlex.join(_command(path))}"], path)


def _program(command: Sequence[str], path: Path) -> Feed:
    def feed() -> None:
        with path.open("rb") as file:
            process = subprocess.Popen(command, stdin=file)
        try:
            expect_status(process.wait(300))
        finally:
            end(process)

    return feed
