"""`rexec-server policy`: an operator sees what a file allows, before it is in force."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rexec_server.commands.policy import command
from tests.policy.policies import rule, slot, write

RULES = (
    rule(
        '["/bin/echo", "-n", "{word}"]',
        'timeout = "30s"\nlimits = { memory = "1G" }\ncgroup = { cpus = 0.5 }\nmax_running = 2\nroles = ["ci"]\n'
        'run_as = { user = "nobody", groups = ["daemon"] }\n'
        "environment_slots.TOKEN = { type = 'pattern', pattern = '[a-z]*', secret = true }\n"
        + slot("type = 'pattern', pattern = '[a-z ]*'")
        + '\n[[rule.test]]\ncaller = "alice"\narguments = ["echo", "-n", "x"]\nexpect = "allow"',
    )
    + '[[rule]]\nname = "usage"\nshell = "du -s /var | cat"\ncallers = ["bob"]\n'
)


def policy(*arguments: str, **env: str) -> Result:
    """The command, without a process of its own."""
    return CliRunner().invoke(command, arguments, env=env)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path, RULES)


def rows(text: str) -> dict[str, str]:
    """What explain shows, by name."""
    return {line[2:14].strip(): line[15:] for line in text.splitlines()[1:]}


def test_check_says_that_a_file_is_good(file: str) -> None:
    """How much there is, in one line; from the real program."""
    done = subprocess.run(
        [sys.executable, "-m", "rexec_server", "policy", "check", file], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: 2 rules, 1 test: good\n", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULES.replace("timeout", "timout"), "rule 'echo': unknown key 'timout'"),
        (RULES.replace('"x"]', '"X"]'), "rule 'echo': test 1 expects allow, but: word: it does not match"),
        (RULES + "[", "Invalid"),
        (None, "cannot read"),
    ],
)
def test_check_says_what_is_wrong(tmp_path: Path, text: str | None, said: str) -> None:
    """One line, on standard error, and exit code 78."""
    done = policy("check", str(tmp_path / "none.toml") if text is None else write(tmp_path, text))
    assert (done.exit_code, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("rexec-server: ")
    assert said in line


def test_explain_shows_exactly_what_would_run(file: str) -> None:
    """Rule, arguments, user, confinement and limits are shown; values of variables are not."""
    done = policy("explain", "--policy", file, "--caller", "x", "--role", "ci", "--env", "TOKEN=hush",
                  "--", "echo", "-n", "a b")  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("allowed by rule 'echo'\n")
    assert "hush" not in done.stdout
    shown = rows(done.stdout)
    assert json.loads(shown["arguments"]) == ["/bin/echo", "-n", "a b"]
    assert shown["as typed"] == "/bin/echo -n 'a b'"
    assert shown["user"].endswith("further groups 1")
    assert shown["variables"] == "HOME, LANG, PATH, TOKEN"
    assert (shown["timeout"], shown["umask"], shown["at once"]) == ("30 s", "0077", "2")
    assert shown["limits"] == "memory_bytes 1073741824"
    assert shown["confined by"] == "no_new_privileges, drop_capabilities, cgroup.cpus 0.5"


def test_explain_shows_a_shell_line(file: str) -> None:
    """A rule that is a line says which shell runs it; --policy may come from the environment."""
    done = policy("explain", "--caller", "bob", "--shell", "du -s /var | cat", REXEC_POLICY=file)
    assert done.exit_code == 0
    assert json.loads(rows(done.stdout)["arguments"]) == ["/bin/sh", "-c", "du -s /var | cat"]
    assert rows(done.stdout)["user"] == "the runner's"


def test_explain_says_of_each_rule_why_not(file: str) -> None:
    """What callers are not told, the operator is."""
    done = policy("explain", "--policy", file, "--caller", "alice", "--", "echo", "-n", "A")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "denied: not permitted: 'word' of rule 'echo' cannot have this value",
        "  usage: is for bob",
        "  echo: word: it does not match the pattern '[a-z ]*'",
    ]
    done = policy("explain", "--policy", file, "--caller", "bob", "--", "du")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "denied: not permitted: no rule allows it",
        "  usage: the line is not 'du -s /var | cat'",
        "  echo: is for alice, role ci",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--caller", "alice"), "give exactly one of arguments and shell"),
        (("--caller", "alice", "--shell", "a", "--", "b"), "give exactly one of arguments and shell"),
        (("--caller", "alice", "--env", "X", "--", "b"), "--env 'X': write NAME=VALUE"),
        (("--", "b"), "Missing option '--caller'"),
    ],
)
def test_explain_says_what_it_needs(file: str, arguments: tuple[str, ...], said: str) -> None:
    """A question that cannot be put is no traceback."""
    done = policy("explain", "--policy", file, *arguments)
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code in (1, 2)
    assert said in done.output
