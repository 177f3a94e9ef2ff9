"""The whole of it, in its shortest form, with real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.benchmarks import run_to_end
from bench.candidates import names
from bench.candidates.rexec import client
from bench.filled import FilledServer
from bench.results import Result

ROOT = Path(__file__).parent.parent.parent


def bench(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip


def test_runs_to_the_end_are_measured_and_reported(tmp_path: Path) -> None:
    """One command starts the candidates, measures, verifies, keeps the results, and makes the page of them."""
    only = [f"--candidate={name}" for name in (names.REXEC, names.REXEC_RAW, run_to_end.LIMIT)]
    done = bench("run-to-end", "--size=shortest", "--repetitions=1", f"--results={tmp_path}", *only)
    assert done.returncode == 0, done.stderr
    assert names.REXEC_RAW in done.stdout

    result = Result.load(tmp_path / "shortest" / "run-to-end.json")
    for case in result.cases:
        by_name = {row.candidate: row for row in case.rows}
        assert by_name.keys() == {names.REXEC, names.REXEC_RAW, run_to_end.LIMIT, names.MASTER}
        # Where there is no sshd, that is said, and nobody else suffers.
        assert "apt-get install" in by_name[names.MASTER].skipped or by_name[names.MASTER].samples[0]
        for name in by_name.keys() - {names.MASTER}:
            assert not by_name[name].error
            (sample,) = by_name[name].samples
            assert sample is not None
            assert sample["p50"] > 0


def test_what_is_not_there_is_refused_in_a_line() -> None:
    """A wrong name is answered with the right ones."""
    done = bench("run-to-start")
    assert done.returncode == 2
    assert "there is no benchmark 'run-to-start'; there are run-to-end, stream" in done.stderr


def test_copies_of_an_execution_are_executions(tmp_path: Path) -> None:
    """A server that was filled lists them all, has their output, restarts, and runs more."""
    server = FilledServer(tmp_path, 120)
    try:
        server.restart()
        with client(server) as opened:
            assert {execution.exec_id for execution in opened.list()} == {f"copy-{number}" for number in range(120)}
            with opened.attach("copy-77").output() as chunks:
                assert b"".join(chunk.data for chunk in chunks) == b"one of many\n"
            assert opened.run(["true"]).returncode == 0
    finally:
        server.close()


def test_anothers_calls_are_timed_beside_a_load(tmp_path: Path) -> None:
    """Loads begin and end, on servers that were filled for them, and another caller's calls are measured meanwhile."""
    only = [f"--candidate={name}" for name in ("elements", "pieces", "live")]
    done = bench("fairness", "--size=shortest", "--repetitions=1", f"--results={tmp_path}", *only)
    assert done.returncode == 0, done.stderr
    (case,) = Result.load(tmp_path / "shortest" / "fairness.json").cases
    assert len(case.rows) == 4
    for row in case.rows:
        assert not row.error
        (sample,) = row.samples
        assert sample is not None
        assert all(sample[f"{call} p50"] > 0 for call in ("Poll", "Exec", "no-op"))
        assert sample["memory after round 2"] > 1
