"""As whom commands are run: never as somebody who could read what is the server's alone."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.policy.policies import load, problem, rule


@pytest.fixture
def our_group() -> Iterator[int]:
    """The group of the user nobody, which is the server's own for the time of a test."""
    if os.geteuid() != 0:
        pytest.skip("only root chooses its group")
    before, ours = os.getegid(), pwd.getpwnam("nobody").pw_gid
    os.setegid(ours)
    yield ours
    os.setegid(before)


@pytest.mark.parametrize(
    "run_as",
    [
        '"nobody"',
        '{ user = "nobody" }',
        '{ user = "daemon", group = OURS }',
        '{ user = "daemon", groups = ["adm", OURS] }',
        '{ user = 54321, group = 54321, groups = ["OURS"] }',
        '{ user = "root", group = OURS }',
    ],
)
def test_the_servers_own_group_is_refused(tmp_path: Path, our_group: int, run_as: str) -> None:
    """The server's keys may be root's files that its group can read: no command is of that group in any way."""
    run_as = run_as.replace("OURS", str(our_group))
    said = problem(tmp_path, rule('["/bin/ls"]', f"run_as = {run_as}"))
    assert f"has the server's own group {our_group}" in said


@pytest.mark.parametrize("run_as", ['"daemon"', '{ user = "nobody", group = "daemon", groups = ["adm"] }', '"root"'])
def test_other_groups_may_be_had(tmp_path: Path, our_group: int, run_as: str) -> None:
    """A group that the rule puts another in the place of is none that the command has."""
    (made,) = load(tmp_path, rule('["/bin/ls"]', f"run_as = {run_as}")).rules
    assert our_group not in (made.confinement.group, *made.confinement.groups)


def test_the_group_of_root_protects_nothing(tmp_path: Path) -> None:
    """A server of group 0 has its keys by being root, so that group is no secret of its own."""
    if os.getegid() != 0:
        pytest.skip("we are of another group")
    (made,) = load(tmp_path, rule('["/bin/ls"]', 'run_as = { user = "nobody", group = "root" }')).rules
    assert made.confinement.group == 0
