"""The file that says which process serves a state directory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rexec_server.core import pid_file


def test_a_reader_never_sees_half_a_pid(tmp_path: Path) -> None:
    """While one process after another takes the file, whoever reads it finds a whole number."""
    path = tmp_path / "runner.pid"
    os.close(pid_file.hold(str(path)))
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2000):
        os.close(pid_file.hold(str(path)))
    stop.set()
    reader.join()
    assert {int(text) for text in seen} == {os.getpid()}


def test_a_file_of_another_length_is_replaced_whole(tmp_path: Path) -> None:
    """Whatever stood there before, afterwards there is one line with the pid."""
    path = tmp_path / "runner.pid"
    path.write_text("4194304999999999\nrest\n")
    lock = pid_file.hold(str(path))
    assert path.read_text().split() == [str(os.getpid())]
    os.close(lock)


def test_a_held_file_says_who_holds_it(tmp_path: Path) -> None:
    """The second one is refused, and told the first one's pid."""
    lock = pid_file.hold(str(tmp_path / "runner.pid"))
    with pytest.raises(pid_file.Held) as held:
        pid_file.hold(str(tmp_path / "runner.pid"))
    assert held.value.pid == str(os.getpid())
    os.close(lock)
