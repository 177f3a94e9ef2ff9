"""Runners for tests: with the delegated cgroup and without, wherever whole trees are killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.runner.harness import Runner
from tests.runner.users import need_root


@pytest.fixture
def start_runner(tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    """Starts runners as the test wants them, and ends them with all that they started."""
    runners: list[Runner] = []

    def start(*flags: str, state_dir: Path | None = None, **options: Any) -> Runner:
        runners.append(Runner(state_dir or tmp_path / "state", *flags, **options))
        return runners[-1]

    yield start
    for runner in runners:
        runner.close()


@pytest.fixture
def runner(start_runner: Callable[..., Runner]) -> Runner:
    """A runner without a cgroup: what it kills, it finds by itself."""
    return start_runner("--no-cgroup")


@pytest.fixture(params=["cgroup", "walk"])
def any_runner(request: pytest.FixtureRequest, start_runner: Callable[..., Runner]) -> Runner:
    """A runner once with, once without a cgroup."""
    if request.param == "walk":
        return start_runner("--no-cgroup")
    runner = start_runner()
    if not runner.ask("info")["cgroup"]:
        pytest.skip("no cgroup v2 is delegated to us")
    return runner


@pytest.fixture(scope="module")
def open_dir() -> Iterator[Path]:
    """A directory that other users can get into, which pytest's own is not."""
    path = Path(mkdtemp(prefix="rexec-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def root_runner(open_dir: Path) -> Iterator[Runner]:
    """A runner that is root, as in production, for all tests of a module."""
    need_root()
    runner = Runner(open_dir / "root-state", "--no-cgroup", dev=False)
    yield runner
    runner.close()
