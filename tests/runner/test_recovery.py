"""What a new runner makes of the spool that it finds, whatever state that is in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from rexec_server.core.about import ABOUT
from rexec_server.core.boot import boot_id
from rexec_server.core.launch import StdinMode
from rexec_server.core.spool import EXIT, EXIT_DRAFT, LOCK, START, ExitRecord, Reason, StartRecord
from tests.runner.harness import Run, Runner, runs
from tests.servers import runner_command
from tests.waiting import eventually


def place(runner: Runner, name: str, **files: bytes) -> Run:
    """An execution's directory as somebody left it, found by the next runner."""
    directory = runner.state_dir / "spool" / name
    directory.mkdir()
    for file, data in {LOCK: b"", **files}.items():
        (directory / file.replace("_", ".")).write_bytes(data)
    return runner.existing(name)


def last_seen_in(runner: Runner, boot_id: str) -> None:
    """As if the runner before had been of another boot of the machine."""
    (runner.state_dir / "spool" / ABOUT).write_text(json.dumps({"version": 1, "boot_id": boot_id}))


@pytest.mark.parametrize("damage", [b"{", b"\0" * 300, b"[]", b"{}", b'{"pid": 1}', b"\xff\xfe", b"null"])
def test_a_damaged_start_record_is_lost(runner: Runner, damage: bytes) -> None:
    """Who it was cannot be known, so its end cannot either; the others are as before."""
    good = runner.run("sleep", "300")
    bad = place(runner, "bad", start=damage)
    runner.restart()
    record = bad.wait()
    assert record.reason == Reason.LOST
    assert record.lost
    good.end(grace=0)
    assert good.wait().reason == Reason.CANCELLED


def test_an_empty_start_record_is_a_command_that_never_ran(runner: Runner) -> None:
    """The exec waits for the record, so an empty one proves that there was none."""
    run = place(runner, "empty", start=b"")
    runner.restart()
    assert (run.wait().reason, run.wait().exit_code) == (Reason.START_FAILED, None)


def test_no_start_record_proves_nothing(runner: Runner) -> None:
    """It is made with the directory: one that is missing was removed, and may have had a command."""
    run = place(runner, "missing")
    runner.restart()
    assert (run.wait().reason, run.wait().lost) == (Reason.LOST, "its start record is missing")


def test_an_execution_of_a_dead_boot_is_lost(runner: Runner) -> None:
    """After a restart of the machine no pid means anything: whoever has it now is left alone."""
    bystander = runner.run("sleep", "300")
    start = StartRecord.from_bytes((bystander.directory / START).read_bytes())
    old = start._replace(boot_id="00000000-0000-0000-0000-000000000000")
    run = place(runner, "old", start=old.to_bytes())
    (run.directory / f"{0:020d}.log").write_bytes(b"before")
    (run.directory / f"{0:020d}.index").write_bytes(
        b"\0" * 8 + b"".join(n.to_bytes(8, "little") for n in (0, 1, 1, 4, 2, 2))
    )
    runner.restart()
    record = run.wait()
    assert (record.reason, record.lost) == (Reason.LOST, "the machine was restarted")
    assert (record.stdout_bytes, record.stderr_bytes) == (4, 2)
    assert runs(bystander.pid)


def test_a_record_that_only_lacked_its_name_is_true(runner: Runner) -> None:
    """A writer killed between the last byte of the record and its rename has said all."""
    start = (runner.run("sleep", "300").directory / START).read_bytes()
    ended = ExitRecord(Reason.EXITED, 1, 0, 0, output_complete=True, exit_code=42).to_bytes()
    run = place(runner, "named", start=start.replace(b'"pid": ', b'"pid": 9'), exit_tmp=ended.ljust(4096, b"\0"))
    runner.restart()
    assert run.wait().exit_code == 42
    assert (run.directory / EXIT).read_bytes() == ended
    assert EXIT_DRAFT not in run.files


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 300])
def test_an_end_is_believed_whatever_became_of_the_start_record(runner: Runner, damage: bytes) -> None:
    """The end was synced and may have been told; the start record beside it never was."""
    ended = ExitRecord(Reason.EXITED, 1, 0, 0, output_complete=True, exit_code=42).to_bytes()
    run = place(runner, "ended", start=damage, exit_tmp=ended.ljust(4096, b"\0"))
    last_seen_in(runner, "another boot")
    runner.restart()
    assert run.wait().exit_code == 42


@pytest.mark.parametrize("damage", [b"", b"\0" * 400, b'{"reason": 1, "end_ti', b"null", b"[]", b'{"reason": 1}\n'])
def test_a_damaged_exit_record_is_lost(runner: Runner, damage: bytes) -> None:
    """What cannot be read says nothing: the end is LOST, the record whole again, and the runner answers."""
    run = place(runner, "bad", exit=damage)
    last_seen_in(runner, "another boot")
    runner.restart()
    assert run.wait().reason == Reason.LOST
    assert runner.run("true").wait().exit_code == 0


@pytest.mark.parametrize(
    "index", [None, b"", b"\0" * 8, b"\0" * 80, b"\xff" * 80], ids=["gone", "empty", "head", "zeros", "noise"]
)
def test_a_damaged_log_stops_nobody_else(runner: Runner, index: bytes | None) -> None:
    """An execution whose log nobody can go on writing is LOST and ended; the runner starts, and others go on."""
    good = runner.run("sleep", "300")
    bad = runner.sh("echo one; exec sleep 300")
    eventually(lambda: bad.output() == b"one\n")
    runner.kill()
    bad.kill_shim()
    eventually(lambda: not runs(bad.shim_pid))
    path = bad.directory / f"{0:020d}.index"
    path.write_bytes(index) if index is not None else path.unlink()
    runner.begin_process()
    assert bad.wait(30).reason == Reason.LOST
    eventually(lambda: not runs(bad.pid))
    assert bad.output() == b""
    good.end(grace=0)
    assert good.wait(30).reason == Reason.CANCELLED


def test_files_that_only_look_like_a_log_are_left_alone(runner: Runner) -> None:
    """A name that is no offset is not a segment, to the runner or to a reader."""
    run = place(runner, "odd", start=b"")
    (run.directory / "notes.log").write_bytes(b"mine")
    runner.restart()
    assert run.wait().reason == Reason.START_FAILED
    assert run.output() == b""


def test_a_torn_note_is_no_note(runner: Runner) -> None:
    """Half a note in the draft is what a power cut leaves; it is not taken for anything."""
    old = json.loads((runner.run("sleep", "300").directory / START).read_bytes())
    start = json.dumps(old | {"boot_id": "another"}).encode()
    run = place(runner, "torn", start=start, exit_tmp=b'{"ending": [3, 1'.ljust(4096, b"\0"))
    runner.restart()
    assert run.wait().reason == Reason.LOST


@pytest.mark.parametrize("same_boot", [True, False])
@pytest.mark.parametrize("name", ["exit", "stdin", "lock"])
def test_a_file_that_cannot_be_read_stops_nobody_else(runner: Runner, name: str, same_boot: bool) -> None:
    """A bad sector, say, under one execution: the runner starts, and sees the others to their ends."""
    broken, good = runner.sh("read x", stdin_mode=StdinMode.OPEN), runner.run("sleep", "300")
    pid = broken.pid
    runner.kill()
    broken.kill_shim()
    os.kill(pid, signal.SIGKILL)
    (broken.directory / name).unlink(missing_ok=True)
    (broken.directory / name).mkdir()  # reading it is an error
    if not same_boot:
        (runner.state_dir / "spool" / "about").write_text('{"version": 1, "boot_id": "another"}')
    runner.begin_process()
    assert runner.run("true").wait().exit_code == 0
    good.end()
    assert good.wait().reason == Reason.CANCELLED


def test_other_things_in_the_spool_are_left_alone(runner: Runner) -> None:
    """A file or a broken link in the spool keeps nobody from starting."""
    (runner.state_dir / "spool" / "README").write_text("mine")
    (runner.state_dir / "spool" / "link").symlink_to("/nonexistent")
    runner.restart()
    assert runner.run("true").wait().exit_code == 0


def test_ended_executions_stay_as_they_are(runner: Runner) -> None:
    """A new runner touches nothing of what is over, and holds nothing of it open."""
    ended = [runner.sh(f"echo {i}; exit {i}") for i in range(20)]
    eventually(lambda: all(run.exit for run in ended) and not any(runs(run.shim_pid) for run in ended), within=60)
    before = [(run.wait(), _mtimes(run.directory)) for run in ended]
    runner.restart()
    assert runner.run("true").wait().exit_code == 0
    assert [(run.wait(), _mtimes(run.directory)) for run in ended] == before


def test_a_second_runner_is_refused(runner: Runner) -> None:
    """One runner per state directory; the second says who is there."""
    second = subprocess.run(runner_command(runner.state_dir), capture_output=True, text=True, timeout=10)
    assert second.returncode == 78
    assert f"another runner (pid {runner.pid})" in second.stderr
    assert runner.ask("info")["pid"] == runner.pid


def test_a_leader_killed_with_everybody_is_not_confused_with_its_namesake(runner: Runner) -> None:
    """Row 5: a start record whose pid is another process by now leads to no signal."""
    victim = runner.run("sleep", "300")
    start = StartRecord.from_bytes((victim.directory / START).read_bytes())
    run = place(runner, "namesake", start=start._replace(pid_start=start.pid_start - 1).to_bytes())
    runner.restart()
    assert run.wait().reason == Reason.LOST
    assert runs(victim.pid)


def _mtimes(directory: Path) -> list[tuple[str, int]]:
    return sorted((entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(directory))


def test_no_start_record_from_before_a_restart_of_the_machine_is_lost(runner: Runner) -> None:
    """The record is not synced, so after a power cut its absence proves nothing."""
    cut = [place(runner, f"cut-{number}") for number in range(5)]
    last_seen_in(runner, "another boot")
    runner.restart()
    for record in [run.wait() for run in cut]:
        assert (record.reason, record.lost) == (Reason.LOST, "the machine was restarted")


def test_a_clock_that_was_wrong_makes_no_restart_of_the_machine(runner: Runner) -> None:
    """Boots are known by their names: what this boot's own files say of time is nothing."""
    run = place(runner, "claimed", start=b"")
    os.utime(run.directory, (0, 0))
    runner.restart()
    assert run.wait().reason == Reason.START_FAILED


def test_nothing_is_from_before_once_a_runner_has_been_through(runner: Runner) -> None:
    """The boot is noted when all that it found is settled: from then on an empty start record proves something."""
    place(runner, "cut")
    last_seen_in(runner, "another boot")
    runner.restart()
    eventually(lambda: boot_id() in (runner.state_dir / "spool" / ABOUT).read_text())
    run = place(runner, "claimed", start=b"")
    runner.restart()
    assert run.wait().reason == Reason.START_FAILED


def test_an_abandonment_that_was_cut_off_is_made_again(runner: Runner) -> None:
    """The directory comes with its record or not at all: half of it would say that the command never ran."""
    half = place(runner, ".gone")
    runner.restart()
    assert half.exit is None
    runner.ask("abandon", id="gone", why="the server died", older_boot=True)
    assert runner.existing("gone").wait().reason == Reason.LOST
    assert not half.directory.exists()


def test_abandoned_from_before_a_restart_of_the_machine_is_lost(runner: Runner) -> None:
    """The directory itself may be what the power cut took."""
    runner.ask("abandon", id="gone", why="the server died", older_boot=True)
    assert runner.existing("gone").wait().reason == Reason.LOST
