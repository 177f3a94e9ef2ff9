"""The audit in a file: ours alone to write, and whole line by line, through rotations, threads and full disks."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from rexec_server.core.errors import Unavailable
from rexec_server.policy.audit import Audit
from rexec_server.policy.files import PolicyError
from tests.policy.records import ORIGIN, ended, execution, lines


def test_a_file_is_ours_to_write_and_our_groups_to_read(audit: Audit, path: Path) -> None:
    """A new file has the mode 0640, whatever the umask."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_lines_are_added_to_a_file_that_is_there(path: Path) -> None:
    """What was written before stays, also a line that was cut short by a crash; it costs the next one nothing."""
    path.write_text('{"event":"accepted"}\n{"event":"fin')
    audit = Audit.open(str(path))
    audit.event("started", None)
    audit.close()
    first, torn, last = path.read_text().splitlines()
    assert (first, torn) == ('{"event":"accepted"}', '{"event":"fin')
    assert json.loads(last)["event"] == "started"


def test_rotation_goes_on_in_a_new_file(audit: Audit, path: Path) -> None:
    """After a rename and reopen() nothing is missing, and each line is in one of the two files."""
    audit.event("one", None)
    old = path.rename(path.with_suffix(".1"))
    audit.event("two", None)
    audit.reopen()
    audit.event("three", None)
    assert [line["event"] for line in lines(old)] == ["one", "two"]
    assert [line["event"] for line in lines(path)] == ["three"]


def test_a_rotation_that_fails_leaves_the_old_file_in_use(audit: Audit, path: Path) -> None:
    """Where no new file can be made, lines go on in the old one."""
    old = path.rename(path.with_suffix(".1"))
    path.mkdir()
    with pytest.raises(PolicyError, match="Is a directory"):
        audit.reopen()
    audit.event("still", None)
    assert [line["event"] for line in lines(old)] == ["still"]


def test_what_comes_after_the_end_does_no_harm(path: Path) -> None:
    """A rotation or a line that is late finds no file of somebody else's under the old descriptor."""
    audit = Audit.open(str(path))
    audit.close()
    other = path.with_suffix(".other")
    with other.open("w"):
        audit.event("late", None)
        audit.reopen()
        audit.finished("s", ended(execution()))
        with pytest.raises(Unavailable, match="Bad file descriptor"):
            audit.accepted("s", execution(), ORIGIN)
    assert other.read_text() == path.read_text() == ""


def test_threads_and_rotations_lose_no_line(audit: Audit, path: Path) -> None:
    """Starts in one thread, ends in another and rotations in a third: every line is there once, and whole."""

    def accept() -> None:
        for number in range(500):
            audit.accepted(f"s{number}", execution(), ORIGIN)
            if number % 50 == 0:
                audit.sync()

    def finish() -> None:
        for number in range(500):
            audit.finished(f"s{number}", ended(execution()))

    threads = [threading.Thread(target=work) for work in (accept, finish)]
    for thread in threads:
        thread.start()
    for number in range(10):
        path.rename(path.with_suffix(f".{number}"))
        audit.reopen()
    for thread in threads:
        thread.join()
    found = [(line["event"], line["name"]) for file in path.parent.iterdir() for line in lines(file)]
    assert sorted(found) == sorted((event, f"s{n}") for event in ("accepted", "finished") for n in range(500))


@pytest.mark.parametrize("mode", [0o622, 0o620, 0o602])
def test_a_file_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    """Lines that anybody can change prove nothing."""
    path.touch()
    path.chmod(mode)
    with pytest.raises(PolicyError, match=rf"can be written by others \(mode {mode:04o}\); chmod go-w "):
        Audit.open(str(path))


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "missing directory"])
def test_what_is_no_file_is_refused(path: Path, kind: str) -> None:
    """A link could lead anywhere, and a pipe keeps nothing; the refusal is one line and says why."""
    if kind == "link":
        path.symlink_to(path.with_suffix(".target"))
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = path / "audit"
    why = {"link": "symbolic link", "directory": "Is a dir", "fifo": "not a regular", "missing directory": "No such"}
    with pytest.raises(PolicyError, match=why[kind]) as caught:
        Audit.open(str(path))
    assert "\n" not in str(caught.value)
    assert not path.with_suffix(".target").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_file_is_refused(path: Path) -> None:
    """Whoever owns a file can change it."""
    path.touch()
    os.chown(path, 12345, -1)
    with pytest.raises(PolicyError, match="belongs to uid 12345; it must be ours or root's"):
        Audit.open(str(path))


def test_t_lg_04_a_full_disk_tears_no_other_line(tmp_path: Path) -> None:
    """T-LG-04: a start is refused; when there is room again the next line is whole, and what was owed is there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        audit = Audit.open(str(disk / "audit"))
        (disk / "ballast").write_bytes(b"\0" * 50_000)
        with pytest.raises(Unavailable, match=r"^the audit log cannot be written: No space left on device$"):
            _accept_many(audit)
        audit.finished("s", ended(execution("end")))
        (disk / "ballast").unlink()
        audit.accepted("s2", execution("after"), ORIGIN)
        audit.sync()
        audit.close()
        *_, torn, end, after = (disk / "audit").read_text().splitlines()
        assert torn.startswith('{"time":')
        with pytest.raises(json.JSONDecodeError):
            json.loads(torn)
        assert json.loads(end)["event"] == "finished"
        assert json.loads(after)["arguments"] == ["after"]
    finally:
        assert subprocess.run(["umount", str(disk)]).returncode == 0


def _accept_many(audit: Audit) -> None:
    for _ in range(1000):
        audit.accepted("s", execution("x" * 3000), ORIGIN)
