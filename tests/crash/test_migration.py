"""A state directory of an older rexec is brought up to date; one of a newer rexec is refused, and not touched.

`index-N.sql` is what a server of schema N left, as SQLite dumps it: one execution that ended, one that was deleted, one
that ran. Its ends are kept until the year 2100; nothing else in it was changed.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from rexec.v1 import execution_pb2 as pb

from rexec_server.core.about import ABOUT, SPOOL_VERSION
from rexec_server.core.boot import boot_id
from rexec_server.core.schema import SCHEMA
from rexec_server.core.spool import Channel, StartRecord
from tests.core.test_log import write_log
from tests.rpc.calls import ended, output, poll, request
from tests.runner.harness import Runner
from tests.servers import Server, runner_command
from tests.waiting import eventually

VERSIONS = [1, 2]
SCRIPT = "echo out; echo err >&2; exit 3"
OTHER_BOOT = "4fa81355-0a55-4f6a-938a-10f8de3a91b7"


def state_of(version: int, path: Path, boot: str = OTHER_BOOT) -> Path:
    """A state directory as a server of that schema left it; its spool has no file that says what it is."""
    (path / "spool").mkdir(parents=True)
    with closing(sqlite3.connect(path / "index.sqlite")) as index:
        index.execute("PRAGMA journal_mode=WAL")
        index.executescript((Path(__file__).parent / f"index-{version}.sql").read_text())
        names = dict(index.execute("SELECT exec_id, name FROM execution"))
        (record,) = index.execute("SELECT exit FROM execution WHERE exec_id = 'ended'").fetchone()
    for name in ("ended", "running"):
        directory = path / "spool" / names[name]
        directory.mkdir()
        (directory / "lock").touch()
        supervision = {"deadline": None, "kill_grace": 5.0, "drain_timeout": 0.2, "unattended_timeout": None}
        supervision |= {"leftovers": 1, "output_bytes": 67108864, "overflow": 1}
        (directory / "start").write_bytes(StartRecord(2, 1, 3, 1, boot, 1, supervision).to_bytes())
    (path / "spool" / names["ended"] / "exit").write_bytes(record)
    (path / "spool" / names["running"] / "exit.tmp").write_bytes(bytes(4096))
    write_log(path / "spool" / names["ended"], [(Channel.STDOUT, b"out\n"), (Channel.STDERR, b"err\n")], set())
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_state_directory_is_brought_up_to_date(
    version: int, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Ends, output, ids that are used and requests that come again are as they were; what ran is LOST."""
    state_of(version, tmp_path / "old")
    server = start_server(name="old")
    again = request("sh", "-c", SCRIPT, exec_id="ended")
    if version == 1:  # its requests had another digest: a retry cannot be told from another request, and never runs
        with pytest.raises(grpc.RpcError, match="ALREADY_EXISTS"):
            server.stub.Exec(again, timeout=60)
    else:
        assert server.stub.Exec(again, timeout=60).already_existed
    execution = poll(server, "ended").execution
    assert (execution.exit_code, execution.state) == (3, pb.STATE_FAILED)
    assert output(server, "ended") == b"out\nerr\n"
    assert ended(server, "running", within=60).state == pb.STATE_LOST
    with pytest.raises(grpc.RpcError, match="deleted"):
        server.stub.Exec(request("true", exec_id="forgotten"), timeout=60)
    assert server.stub.Exec(request("true", exec_id="new", wait=30), timeout=60).execution.state == pb.STATE_SUCCEEDED
    server.terminate()
    with closing(sqlite3.connect(tmp_path / "old" / "index.sqlite")) as index:
        assert index.execute("PRAGMA user_version").fetchone() == (len(SCHEMA),)
        assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    about = eventually(lambda: json.loads((tmp_path / "old" / "spool" / ABOUT).read_bytes()), within=60)
    assert about == {"version": SPOOL_VERSION, "boot_id": boot_id()}
    server.start()
    assert poll(server, "ended").execution.exit_code == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_brought_up_to_date_is_like_what_is_new(
    version: int, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Both have the same tables with the same columns and the same indexes."""
    state_of(version, tmp_path / "old")
    shapes = []
    for name in ("old", "new"):
        start_server(name=name).terminate()
        with closing(sqlite3.connect(tmp_path / name / "index.sqlite")) as index:
            tables = [row[0] for row in index.execute("SELECT name FROM sqlite_master ORDER BY name")]
            shapes.append({table: index.execute(f"PRAGMA table_xinfo({table})").fetchall() for table in tables})
    assert shapes[0] == shapes[1]


def test_an_upgrade_that_was_cut_off_is_made_again(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Each step is one commit with its number: a torn one never was, and the next start takes it."""
    state = state_of(1, tmp_path / "old")
    with closing(sqlite3.connect(state / "index.sqlite", isolation_level=None)) as index:
        index.execute("PRAGMA wal_autocheckpoint=0")
        index.executescript(f"BEGIN; {SCHEMA[1]} PRAGMA user_version=2; COMMIT;")
        log = (state / "index.sqlite-wal").read_bytes()
        main = (state / "index.sqlite").read_bytes()
    (state / "index.sqlite").write_bytes(main)
    (state / "index.sqlite-wal").write_bytes(log[: len(log) - 100])
    server = start_server(name="old")
    assert poll(server, "ended").execution.exit_code == 3


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(path)): (file.read_bytes() if file.is_file() else b"", file.stat().st_mtime_ns)
        for file in sorted(path.rglob("*"))
    }


def newer_index(state: Path) -> str:
    with closing(sqlite3.connect(state / "index.sqlite")) as index:
        index.execute("PRAGMA user_version = 99")
    return f"{state}/index.sqlite is of a newer rexec \\(version 99; this one knows {len(SCHEMA)}\\)"


def newer_spool(state: Path) -> str:
    (state / "spool" / ABOUT).write_text(json.dumps({"version": 99, "boot_id": "", "more": []}))
    return f"the spool is of a newer rexec \\(version 99; this one knows {SPOOL_VERSION}\\)"


@pytest.mark.parametrize("make_newer", [newer_index, newer_spool])
def test_a_server_refuses_what_a_newer_one_wrote(make_newer: Callable[[Path], str], tmp_path: Path) -> None:
    """One line that says what is newer; not a byte is changed, no file is made, and no runner is started."""
    state = state_of(2, tmp_path / "state")
    expected = make_newer(state)
    before = contents(state)
    command = [sys.executable, "-m", "rexec_server", "--dev", "--listen", "127.0.0.1:0", "--no-gateway"]
    done = subprocess.run([*command, "--state-dir", str(state)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (os.EX_CONFIG, "", 1)
    assert re.search(expected, done.stderr), done.stderr
    assert contents(state) == before


def test_a_runner_refuses_what_a_newer_one_wrote(tmp_path: Path) -> None:
    """It knows of the spool only; that it leaves as it is."""
    state = state_of(2, tmp_path / "state")
    expected = newer_spool(state)
    before = contents(state)
    done = subprocess.run(runner_command(state), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (os.EX_CONFIG, 1)
    assert re.search(expected, done.stderr), done.stderr
    assert contents(state) == before


@pytest.mark.parametrize("damage", [b"", b"\0" * 60, b"{", b"[]", b'{"version": null}'])
def test_a_spool_that_does_not_say_what_it_is_is_taken_as_it_comes(runner: Runner, damage: bytes) -> None:
    """A damaged file keeps no runner from starting; it is written anew."""
    about = runner.state_dir / "spool" / ABOUT
    about.write_bytes(damage)
    runner.restart()
    assert runner.run("true").wait(30).exit_code == 0
    assert eventually(lambda: json.loads(about.read_bytes())["version"], within=60) == SPOOL_VERSION


def test_an_index_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    """No traceback reaches whoever starts the server."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "index.sqlite").write_bytes(b"this is something else" * 100)
    command = [sys.executable, "-m", "rexec_server", "--dev", "--listen", "127.0.0.1:0", "--no-start-runner"]
    done = subprocess.run(
        [*command, "--no-gateway", "--state-dir", str(state)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (os.EX_CONFIG, 1)
    assert "index.sqlite cannot be used: file is not a database" in done.stderr
