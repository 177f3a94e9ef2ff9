"""Programs: only what root or a trusted owner put there is run, and that is looked at before each run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.programs import Program, UnsafeProgram, loader
from tests.policy.policies import ALICE, ask, denied, load, problem, program, rule, us

NOT_SAFE = "not permitted: its program is not safe to run now"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def refused(path: Path, user: int | None = None, owners: frozenset[int] = frozenset({os.geteuid()})) -> str:
    with pytest.raises(UnsafeProgram) as caught:
        Program(str(path), owners, user).check()
    return str(caught.value)


def trusted(path: Path) -> None:
    Program(str(path), frozenset({os.geteuid()})).check()


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A program two directories below."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    return program(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o775),
        lambda path: path.chmod(0o757),
        lambda path: path.chmod(0o644),
        lambda path: path.unlink(),
        lambda path: path.parent.chmod(0o775),
        lambda path: path.parent.parent.chmod(0o777),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path, 0o755)),
        lambda path: (path.unlink(), path.symlink_to(path)),
        lambda path: (path.unlink(), path.symlink_to("gone")),
    ],
)
def test_t_az_40_a_program_that_changed(
    tmp_path: Path, nested: Path, change: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """T-AZ-40: a program that others could have changed since the load is not run, and the operator hears why."""
    allowlist = load(tmp_path, us() + rule(f'["{nested}"]'))
    assert allowlist.decide(ALICE, ask("program")).arguments == (str(nested),)
    change(nested)
    assert denied(allowlist, ask("program")) == NOT_SAFE
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("rule 'echo' is not run: its program is not safe: /")
    assert "its program is not safe to run: /" in problem(tmp_path, us() + rule(f'["{nested}"]'))


def test_t_az_40_it_is_run_again_when_it_is_safe_again(tmp_path: Path) -> None:
    """T-AZ-40: the check is of now, not of the load."""
    path = program(tmp_path)
    allowlist = load(tmp_path, us() + rule(f'["{path}"]'))
    path.chmod(0o775)
    denied(allowlist, ask("program"))
    path.chmod(0o755)
    assert allowlist.decide(ALICE, ask("program")).rule == "echo"


def test_every_directory_on_the_way_counts(tmp_path: Path) -> None:
    """A link can be turned elsewhere by who can write where it is, or where the next one is."""
    for name in ("start", "middle", "end"):
        (tmp_path / name).mkdir()
    program(tmp_path / "end")
    (tmp_path / "middle" / "link").symlink_to(tmp_path / "end")
    (tmp_path / "start" / "link").symlink_to("../middle/link/program")
    link = tmp_path / "start" / "link"
    trusted(link)
    for name in ("start", "middle", "end"):
        (tmp_path / name).chmod(0o777)
        assert refused(link) == f"{tmp_path / name} can be written by others (mode 0777)"
        (tmp_path / name).chmod(0o755)
    trusted(link)


def test_links_are_followed_only_so_far(tmp_path: Path) -> None:
    """Links that lead to each other end the look-up."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert refused(tmp_path / "one") == f"{tmp_path / 'one'} has too many symbolic links"


@root_only
def test_a_sticky_directory_of_roots_is_safe(tmp_path: Path) -> None:
    """In a directory like /tmp nobody can replace what is another's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    path = program(shared)
    shared.chmod(0o1777)
    trusted(path)
    os.chown(shared, 12345, 12345)
    assert "belongs to uid 12345, who is neither root nor in trusted_owners" in refused(path)
    assert "can be written by others" in refused(path, owners=frozenset({12345}))


@root_only
@pytest.mark.parametrize("what", ["program", ".", "link"])
def test_who_may_own_it(tmp_path: Path, what: str) -> None:
    """Root, or who is named; never as whom it is run, who could change it and so become whatever runs it next."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program(directory)
    (directory / "link").symlink_to("program")
    os.chown(directory / what, 12345, 12345, follow_symlinks=False)
    path = directory / "link"
    assert "belongs to uid 12345, who is neither root nor in trusted_owners" in refused(path)
    Program(str(path), frozenset({12345}), user=54321).check()
    assert "belongs to uid 12345, as whom it runs" in refused(path, user=12345, owners=frozenset({12345}))


@root_only
def test_root_may_run_its_own(tmp_path: Path) -> None:
    """Nothing is safe from root anyway."""
    Program(str(program(tmp_path)), frozenset(), user=0).check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root's programs are always trusted")
def test_our_own_programs_need_to_be_trusted_as_any_others(tmp_path: Path) -> None:
    """Being the server is no reason to be trusted with what is run."""
    assert "neither root nor in trusted_owners" in refused(program(tmp_path), owners=frozenset())


LOADERS = """
    taskset chrt prlimit sort choom sg runcon split install gpg ssh-keygen fakeroot valgrind perf ip iptables journalctl
    dmesg newgrp ld-linux.so.2 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1 ld-musl-x86_64.so.1 ld-linux
"""


@pytest.mark.parametrize("name", LOADERS.split())
def test_t_az_16_programs_with_an_option_that_runs_another(name: str) -> None:
    """T-AZ-16: wrappers, the dynamic linker by any of its names, and what starts a helper, a pager or a hook."""
    assert loader(f"/nowhere/{name}") == name


@pytest.mark.parametrize(
    "name",
    ["tail", "cat", "ls", "systemctl-report", "python-report", "shutdown", "finder", "ld-report"],
)
def test_other_programs_are_no_loaders(name: str) -> None:
    """A name that only begins like an interpreter's is none."""
    assert loader(f"/nowhere/{name}") is None


def test_the_allowlist_looks_at_the_shell_too(tmp_path: Path) -> None:
    """A rule that is a line depends on /bin/sh, which is checked like any program."""
    allowlist: Allowlist = load(tmp_path, '[[rule]]\nname = "x"\ncallers = ["alice"]\nshell = "echo a"')
    assert allowlist.rules[0].program == Program("/bin/sh", frozenset())
