"""What surrounds the command: environment, directory, input and limits are the rule's, or less."""

from __future__ import annotations

import grp
import math
import pwd
from pathlib import Path
from typing import Any

import pytest

from rexec_server.core.errors import InvalidRequest
from rexec_server.core.launch import Confinement, Leftovers, Limits, Overflow, StdinMode
from rexec_server.policy.allowlist import Allowlist
from tests.policy.policies import ALICE, ask, denied, load, rule

FULL = """
run_as = { user = "nobody", groups = ["daemon", "adm"] }
working_directory = "/var"
environment = { LANG = "C", PATH = "/opt/bin", http_proxy = "none" }
stdin = "bytes"
timeout = "30s"
output = "1M"
waiting_timeout = "10m"
max_running = 2
umask = "0027"
limits = { memory = "512M", cpu = "1500ms", processes = 64, open_files = 256, file = "1G" }
cgroup = { memory = "256M", processes = 32, cpus = 0.5 }
environment_slots.TOKEN = { type = "pattern", pattern = '[!-~]{1,20}', secret = true, required = true }
environment_slots.LEVEL = { type = "int", min = 0, max = 3 }
"""
TOKEN = {"TOKEN": "s3cret"}


@pytest.fixture
def full(tmp_path: Path) -> Allowlist:
    """One rule that says everything."""
    return load(tmp_path, rule('["/bin/echo"]', FULL))


@pytest.fixture
def bare(tmp_path: Path) -> Allowlist:
    """One rule that says nothing but what it runs."""
    return load(tmp_path, rule('["/bin/echo"]'))


def invalid(allowlist: Allowlist, **fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        allowlist.decide(ALICE, ask("echo", **fields))
    return caught.value.message


def test_a_rule_that_says_everything(full: Allowlist) -> None:
    """All that a rule declares is in the grant."""
    grant = full.decide(ALICE, ask("echo", environment_variables=TOKEN))
    nobody = pwd.getpwnam("nobody")
    groups = tuple(sorted(grp.getgrnam(name).gr_gid for name in ("daemon", "adm")))
    assert grant.confinement == Confinement(
        user=nobody.pw_uid, group=nobody.pw_gid, groups=groups, no_new_privileges=True, drop_capabilities=True,
        memory_bytes=256 * 1024**2, processes=32, cpus=0.5,
    )  # fmt: skip
    assert grant.limits == Limits(512 * 1024**2, 2, 64, 256, 1024**3)
    assert (grant.timeout, grant.output_bytes, grant.umask) == (30.0, 1024**2, 0o027)
    assert (grant.working_directory, grant.max_running, grant.waiting_timeout) == ("/var", 2, 600.0)
    assert full.requirements == {"run_as", "cgroup.memory", "cgroup.pids", "cgroup.cpu"}
    assert full.as_runner == ()


def test_t_az_20_the_environment_is_built(full: Allowlist) -> None:
    """T-AZ-20: the base, what the rule fixes, and what the caller may fill; nothing is inherited."""
    grant = full.decide(ALICE, ask("echo", environment_variables={**TOKEN, "LEVEL": "2"}))
    assert grant.environment == {
        "PATH": "/opt/bin", "LANG": "C", "HOME": pwd.getpwnam("nobody").pw_dir, "http_proxy": "none",
        "TOKEN": "s3cret", "LEVEL": "2",
    }  # fmt: skip


def test_a_rule_that_says_nothing(bare: Allowlist) -> None:
    """The defaults are the careful ones."""
    grant = bare.decide(ALICE, ask("echo"))
    assert grant.environment == {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"}
    assert grant.confinement == Confinement(no_new_privileges=True, drop_capabilities=True)
    assert (grant.working_directory, grant.umask, grant.limits) == ("/", 0o077, Limits())
    assert (grant.timeout, grant.output_bytes, grant.max_running) == (None, 0, None)
    assert bare.requirements == frozenset()
    assert bare.as_runner == ("echo",)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "needs the environment variable 'TOKEN'"),
        ({"LEVEL": "1"}, "needs the environment variable 'TOKEN'"),
        ({**TOKEN, "LD_PRELOAD": "/tmp/x.so"}, "takes no environment variable 'LD_PRELOAD'"),
        ({**TOKEN, "PATH": "/tmp"}, "takes no environment variable 'PATH'"),
        ({**TOKEN, "token": "x"}, "takes no environment variable 'token'"),
        ({**TOKEN, "LEVEL": "4"}, "'LEVEL' of rule 'echo' cannot have this value"),
        ({"TOKEN": "a b"}, "'TOKEN' of rule 'echo' cannot have this value"),
        ({"TOKEN": "a\n"}, "'TOKEN' of rule 'echo' cannot have this value"),
        ({"TOKEN": "-rf"}, "'TOKEN' of rule 'echo' cannot have this value"),
        ({"TOKEN": ""}, "'TOKEN' of rule 'echo' cannot have this value"),
    ],
)
def test_t_az_12_variables_are_exactly_the_declared_ones(full: Allowlist, variables: dict[str, str], said: str) -> None:
    """T-AZ-12: missing, extra, reserved and wrong variables are refused; a value is never told again."""
    message = denied(full, ask("echo", environment_variables=variables))
    assert message.startswith("not permitted: ")
    assert said in message


def test_a_rule_without_slots_takes_no_variables(bare: Allowlist) -> None:
    """Nobody may set a variable that the rule does not know."""
    assert "takes no environment variable 'X'" in denied(bare, ask("echo", environment_variables={"X": "1"}))


def test_the_directory_is_the_rules(full: Allowlist) -> None:
    """A request may name it, and no other."""
    asked = {"environment_variables": TOKEN}
    assert full.decide(ALICE, ask("echo", working_directory="/var", **asked)).working_directory == "/var"
    for directory in ("/", "/var/", "/var/log", "/etc"):
        assert denied(full, ask("echo", working_directory=directory, **asked)).endswith("runs in /var only")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timeout": 31.0}, "timeout: 31 s; rule 'echo' allows at most 30 s"),
        ({"kill_grace": 61.0}, "kill_grace: 61 s; rule 'echo' allows at most 60 s"),
        ({"drain_timeout": 61.0}, "drain_timeout: 61 s; rule 'echo' allows at most 60 s"),
        ({"output_bytes": 1024**2 + 1}, "output.max_bytes: 1048577; rule 'echo' allows at most 1048576"),
        ({"limits": Limits(processes=65)}, "limits.processes: 65; rule 'echo' allows at most 64"),
        (
            {"limits": Limits(memory_bytes=2**30)},
            "limits.memory_bytes: 1073741824; rule 'echo' allows at most 536870912",
        ),
        (
            {"overflow": Overflow.WAIT, "unattended_timeout": 601.0},
            "unattended_timeout: 601 s; rule 'echo' allows at most 600 s",
        ),
        ({"stdin_mode": StdinMode.OPEN}, "stdin_mode: rule 'echo' has stdin = 'bytes'"),
        ({"leftovers": Leftovers.KEEP}, "leftovers: rule 'echo' always ends what is left over"),
    ],
)
def test_nothing_beyond_the_rules_bounds(full: Allowlist, fields: dict[str, Any], said: str) -> None:
    """Who has the rule is told which field asks for too much, and how much there is."""
    assert invalid(full, environment_variables=TOKEN, **fields) == said


def test_less_than_the_rules_bounds(full: Allowlist) -> None:
    """What a request asks for within the bounds, it gets."""
    fields: dict[str, Any] = {
        "timeout": 2.0, "output_bytes": 100, "limits": Limits(processes=3), "stdin_mode": StdinMode.BYTES,
        "kill_grace": 60.0, "retention": 1e6, "labels": {"a": "b"}, "exclusive_group": "g", "unattended_timeout": 1e6,
    }  # fmt: skip
    grant = full.decide(ALICE, ask("echo", environment_variables=TOKEN, **fields))
    assert (grant.timeout, grant.output_bytes) == (2.0, 100)
    assert grant.limits == Limits(512 * 1024**2, 2, 3, 256, 1024**3)


def test_where_a_rule_has_no_bound(bare: Allowlist) -> None:
    """Limits may be asked for, since they only take away; input and output only within the defaults."""
    grant = bare.decide(ALICE, ask("echo", timeout=1e6, limits=Limits(cpu_seconds=5), output_bytes=2**26))
    assert (grant.timeout, grant.limits, grant.output_bytes) == (1e6, Limits(cpu_seconds=5), 2**26)
    assert invalid(bare, output_bytes=2**26 + 1).startswith("output.max_bytes: ")
    assert invalid(bare, stdin_mode=StdinMode.BYTES) == "stdin_mode: rule 'echo' has stdin = 'none'"


@pytest.mark.parametrize("field", ["kill_grace", "drain_timeout"])
def test_no_grace_gets_around_a_timeout(bare: Allowlist, field: str) -> None:
    """A rule without a timeout is held to the server's, which a long grace would come on top of."""
    assert bare.decide(ALICE, ask("echo", **{field: 60.0})).rule == "echo"
    assert invalid(bare, **{field: 60.5}) == f"{field}: 60.5 s; rule 'echo' allows at most 60 s"


@pytest.mark.parametrize(
    ("stdin", "modes"),
    [
        ("none", {StdinMode.NULL}),
        ("bytes", {StdinMode.NULL, StdinMode.BYTES}),
        ("open", {StdinMode.NULL, StdinMode.BYTES, StdinMode.OPEN}),
    ],
)
def test_input_as_the_rule_takes_it(tmp_path: Path, stdin: str, modes: set[StdinMode]) -> None:
    """A rule that takes more takes less as well."""
    allowlist = load(tmp_path, rule('["/bin/cat"]', f'stdin = "{stdin}"'))
    for mode in StdinMode:
        if mode in modes:
            assert allowlist.decide(ALICE, ask("cat", stdin_mode=mode)).rule == "echo"
        else:
            with pytest.raises(InvalidRequest):
                allowlist.decide(ALICE, ask("cat", stdin_mode=mode))


def test_leftovers_may_be_kept_where_the_rule_says_so(tmp_path: Path) -> None:
    """Only a rule can let something outlive its command."""
    allowlist = load(tmp_path, rule('["/bin/echo"]', 'leftovers = "keep"'))
    assert allowlist.decide(ALICE, ask("echo", leftovers=Leftovers.KEEP)).rule == "echo"


def test_a_rule_may_let_a_command_wait_for_ever(tmp_path: Path) -> None:
    """`never` does not end the wait, and does not bound a request's unattended_timeout."""
    allowlist = load(tmp_path, rule('["/bin/echo"]', 'waiting_timeout = "never"\n'))
    grant = allowlist.decide(ALICE, ask("echo", overflow=Overflow.WAIT, unattended_timeout=1e6))
    assert grant.waiting_timeout == math.inf
