"""A policy file that could let through more than was meant is refused as a whole, with one line that says why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.environment import check_fixed_name, check_slot_name
from tests.policy.policies import load, problem, rule, slot, write

ANY = "type = 'pattern', pattern = '[a-z]*'"
WORD = slot(ANY)


def test_the_worked_example_of_the_documentation(tmp_path: Path) -> None:
    """What docs/policy.md shows is what is read: its example loads, and its tests pass."""
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    logs = tmp_path / "app"
    logs.mkdir()
    (logs / "web.log").touch()
    example = example.replace("/var/log/app", str(logs)).replace('"loguser"', '"nobody"').replace('"deploy"', '"root"')
    allowlist = load(tmp_path, example)
    assert allowlist.tests >= 3
    assert "run_as" in allowlist.requirements


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "FILE has no [[rule]], so nothing could be run"),
        ("rule = []", "FILE has no [[rule]], so nothing could be run"),
        ("rule = 5", "FILE: rule: Input should be a list"),
        ("[[rule]", "FILE: Expected ']]' at the end of an array declaration (at line 1, column 7)"),
        ("default = 'allow'\n" + rule(more=WORD), "FILE: unknown key 'default'; known are trusted_owners, rule"),
        (rule(more="timout = 5\n" + WORD), "FILE: rule 'echo': unknown key 'timout'; known are name, arguments,"),
        (
            rule(more=slot("type = 'int', min = 1, mx = 2")),
            "FILE: rule 'echo': slots.word: unknown key 'mx'; known are",
        ),
        (rule(more=slot("type = 'int', min = 1")), "FILE: rule 'echo': slots.word: max is missing"),
        (
            rule(more=slot("type = 'any'")),
            "FILE: rule 'echo': slots.word: type must be one of int, enum, pattern, path",
        ),
        (rule(more=slot("min = 1")), "FILE: rule 'echo': slots.word: type must be one of int, enum, pattern, path"),
        (
            rule(more=slot("type = 'pattern', pattern = '^a'")),
            "FILE: rule 'echo': slots.word.pattern: pattern '^a' has ^",
        ),
        (rule(more="limits = { ram = 5 }"), "FILE: rule 'echo': limits: unknown key 'ram'; known are memory, cpu,"),
        (rule(more="cgroup = { cpus = 0 }"), "FILE: rule 'echo': cgroup.cpus: Input should be greater than 0"),
        (rule(more="waiting_timeout = '0s'"), "FILE: rule 'echo': waiting_timeout: 0 s is not a time to wait"),
        (rule(more="waiting_timeout = true"), "FILE: rule 'echo': waiting_timeout: is true or false, where"),
        (rule(more="timeout = '5 minutes'"), "FILE: rule 'echo': timeout: '5 minutes' is no duration; write for"),
        (rule(more="timeout = true"), "FILE: rule 'echo': timeout: is true or false, where a number belongs"),
        (rule(more="output = 'much'"), "FILE: rule 'echo': output: 'much' is no size; write for example 64M"),
        (rule(more="rate = '10/min'"), "FILE: rule 'echo': rate: '10/min' is no rate; write for example 10/s"),
        (rule(more="rate = [0, 0]"), "FILE: rule 'echo': rate: [0, 0] is no rate; write for example 10/s"),
        (rule(more="run_as = { user = true }"), "FILE: rule 'echo': run_as.user.str: Input should be a valid string"),
        (rule(more="umask = 77"), "FILE: rule 'echo': umask: 77 is no umask; write for example \"0077\""),
        (rule(more="max_running = 0"), "FILE: rule 'echo': max_running: Input should be greater than 0"),
        (rule(more="working_directory = 'tmp'"), "FILE: rule 'echo': working_directory: 'tmp' is no absolute path"),
        (rule(more="stdin = 'yes'"), "FILE: rule 'echo': stdin: Input should be 'none', 'bytes' or 'open'"),
        (
            rule(more="drop_capabilities = 'no'"),
            "FILE: rule 'echo': drop_capabilities: Input should be a valid boolean",
        ),
        (rule(more="shell = 'ls'"), "FILE: rule 'echo': give exactly one of arguments and shell"),
        (rule(more="roles = ['*']"), "FILE: rule 'echo': roles.0: '*' names nobody: each caller or role is named"),
        (rule(name="Echo", more=WORD), "FILE: rule 'Echo': name: 'Echo' is no rule's name: [a-z0-9]"),
        (rule(more=WORD) * 2, "FILE: two rules have the name 'echo'"),
        pytest.param("rule = " + "[" * 20_000, "FILE: something in it is nested too deeply", id="lists in lists"),
        pytest.param(
            rule(more="rate" + ".a" * 3000 + " = 1"), "FILE: something in it is nested", id="tables in tables"
        ),
        ('[[rule]]\narguments = ["/bin/ls"]\ncallers = ["alice"]', "FILE: rule 1: name is missing"),
        ('[[rule]]\nname = "ls"\ncallers = ["alice"]', "FILE: rule 'ls': give exactly one of arguments and shell"),
        ('[[rule]]\nname = "ls"\narguments = ["/bin/ls"]', "FILE: rule 'ls': nobody may use it: name callers, roles"),
        (
            'trusted_owners = ["nobody-knows"]\n' + rule(more=WORD),
            "FILE: trusted_owners: there is no user 'nobody-knows'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    """The line names the file, the rule and the key, and where it helps what would be right."""
    assert problem(tmp_path, text).startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("[]", "arguments: List should have at least 1 item, not 0"),
        ('["echo", "{word}"]', "'echo' is no absolute path in its plain form, such as /usr/bin/tail"),
        ('["/usr/bin/../bin/echo", "{word}"]', "'/usr/bin/../bin/echo' is no absolute path in its plain form"),
        ('["{word}"]', "arguments must start with the program's path, which no slot fills"),
        ('["/bin/{word}"]', "arguments must start with the program's path, which no slot fills"),
        ('["/bin/echo", "{word}{word}"]', "'{word}{word}' has two slots; one element takes one"),
        ('["/bin/echo", "{word}", "{word}"]', "slot 'word' is used twice; give each place a slot of its own"),
        ('["/bin/echo", "{Word}"]', "'{Word}' has a single {: a slot is {name}, a brace is {{ or }}"),
        ('["/bin/echo", "a}"]', "'a}' has a single }: a slot is {name}, a brace is {{ or }}"),
        ('["/bin/echo", "{other}"]', "slot {other} is not declared; add it to [rule.slots]"),
        ('["/bin/echo"]', "slots.word is in none of the arguments; a slot is written {word}"),
        ('["/bin/echo", "a\\u0000", "{word}"]', "arguments.1: has a NUL character"),
    ],
)
def test_a_skeleton_that_cannot_be_meant(tmp_path: Path, arguments: str, said: str) -> None:
    """Each slot is declared, used once, and fills a part of one argument, never of the program."""
    assert problem(tmp_path, rule(arguments, WORD)).startswith(f"FILE: rule 'echo': {said}")


def make_programs(directory: Path, *names: str) -> None:
    for name in names:
        shutil.copy("/bin/echo", directory / name)


@pytest.mark.parametrize(
    "arguments",
    [
        '["{bin}/npx", "{word}"]',
        '["{bin}/python3", "-c", "{word}"]',
        '["{bin}/python3.11", "script.py", "{word}"]',
        '["{bin}/find", "{word}"]',
        '["{bin}/tar", "{word}"]',
        '["{bin}/env", "{word}"]',
        '["{bin}/php8.2", "{word}"]',
        '["{bin}/lua5.4", "{word}"]',
        '["{bin}/gcc-12", "{word}"]',
        '["{bin}/harmless", "{word}"]',
        '["/bin/sh", "{word}"]',
        '["/usr/bin/awk", "--name={word}"]',
    ],
)
def test_t_az_16_programs_that_run_programs(tmp_path: Path, arguments: str) -> None:
    """T-AZ-16: a caller's word for an interpreter or loader needs a stated reason, whatever links to the program."""
    make_programs(tmp_path, "npx", "python3", "python3.11", "find", "tar", "env", "php8.2", "lua5.4", "gcc-12")
    (tmp_path / "harmless").symlink_to("find")
    arguments = arguments.replace("{bin}", str(tmp_path))
    owners = f"trusted_owners = [{os.geteuid()}]\n"
    said = problem(tmp_path, owners + rule(arguments, WORD))
    assert "can run other programs, and callers give it {word}" in said
    assert 'say why not with loader_ok = "…"' in said
    assert "the reason why" in problem(tmp_path, owners + rule(arguments, WORD + '\nloader_ok = " "'))
    reason = '\nloader_ok = "the script checks its words"'
    assert len(load(tmp_path, owners + rule(arguments, WORD + reason)).rules) == 1


@pytest.mark.parametrize(
    ("text", "given"),
    [
        (rule('["/bin/sh"]', 'stdin = "open"'), "its standard input"),
        (rule('["/bin/sh"]', 'stdin = "bytes"'), "its standard input"),
        (rule('["/bin/sh", "/x.sh"]', f"environment_slots.LEVEL = {{ {ANY} }}"), "LEVEL"),
        (
            f'[[rule]]\nname = "x"\ncallers = ["alice"]\nshell = "echo $LEVEL"\nenvironment_slots.LEVEL = {{ {ANY} }}',
            "LEVEL",
        ),
    ],
)
def test_t_az_16_input_and_variables_are_words_too(tmp_path: Path, text: str, given: str) -> None:
    """T-AZ-16: an interpreter reads its input, and a shell line its variables."""
    assert f"callers give it {given}" in problem(tmp_path, text)
    load(tmp_path, text + '\nloader_ok = "it is quoted"')


def test_t_az_16_a_fixed_command_of_an_interpreter_is_fine(tmp_path: Path) -> None:
    """T-AZ-16: where the caller fills in nothing, the operator wrote the whole program."""
    load(tmp_path, rule('["/bin/sh", "-c", "echo {{}}"]'))
    load(tmp_path, '[[rule]]\nname = "x"\ncallers = ["alice"]\nshell = "echo {a,b} | cat"')


def test_a_secret_is_no_argument(tmp_path: Path) -> None:
    """Arguments can be seen by every user of the machine."""
    said = problem(tmp_path, rule(more=slot(ANY + ", secret = true")))
    assert "slots.word is secret" in said
    assert "take it by stdin, or in [rule.environment_slots]" in said
    assert "required is for [rule.environment_slots]" in problem(tmp_path, rule(more=slot(ANY + ", required = true")))


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_X", "PYTHONPATH", "BASH_ENV", "ENV", "IFS", "PATH", "HOME", "GIT_SSH_COMMAND", "NODE_OPTIONS",
     "PERL5LIB", "RUBYOPT", "EDITOR", "GIT_EDITOR", "PS4", "SHELLOPTS", "GCONV_PATH", "JAVA_TOOL_OPTIONS", "TMPDIR"],
)  # fmt: skip
def test_variables_that_change_programs_are_nobodys_to_set(tmp_path: Path, name: str) -> None:
    """No slot can be a variable by which a program is made to load something else."""
    said = problem(tmp_path, rule('["/bin/ls"]', f"environment_slots.{name} = {{ {ANY} }}"))
    assert said == f"FILE: rule 'echo': {name} could make programs load or run something else, so no caller may set it"


@pytest.mark.parametrize("name", ["lower", "1X", "A-B", "A" * 65, "", "Ä"])
def test_names_of_variables(name: str) -> None:
    """A slot's variable is named in capitals; one that the rule fixes may have any plain name."""
    with pytest.raises(ValueError, match="is no name of a variable"):
        check_slot_name(name)
    if name != "lower":
        with pytest.raises(ValueError, match="is no name of a variable"):
            check_fixed_name(name)


@pytest.mark.parametrize("name", ["TOKEN", "X_1", "LEVEL", "PATHS", "GITHUB", "LC_ALL"])
def test_other_variables_may_be_slots(name: str) -> None:
    """What only looks like a dangerous name is none."""
    check_slot_name(name)


def test_a_variable_has_one_source(tmp_path: Path) -> None:
    """What the rule fixes, no caller fills."""
    more = f'environment = {{ LEVEL = "1" }}\nenvironment_slots.LEVEL = {{ {ANY} }}'
    assert "environment_slots.LEVEL has a fixed value already" in problem(tmp_path, rule('["/bin/ls"]', more))
    assert "LANG has a fixed" in problem(tmp_path, rule('["/bin/ls"]', f"environment_slots.LANG = {{ {ANY} }}"))


@pytest.mark.parametrize(
    ("run_as", "said"),
    [
        ('"nobody-knows"', "there is no user 'nobody-knows' on this machine"),
        ('{ user = "nobody", group = "nobody-knows" }', "there is no group 'nobody-knows' on this machine"),
        ('{ user = "nobody", groups = ["nobody-knows"] }', "there is no group 'nobody-knows' on this machine"),
        ("0", 'run_as 0 is root; if that is meant, write run_as = "root"'),
        ('"0"', "run_as '0' is root; if that is meant, write run_as = \"root\""),
        ("54321", "uid 54321 has no entry among the users, so run_as needs its group too"),
        ("-1", "there is no user -1 on this machine"),
        (str(2**32 - 1), f"there is no user {2**32 - 1} on this machine"),
        (str(2**70), f"there is no user {2**70} on this machine"),
        ("true", "run_as: Input should be a table"),
        ('{ group = "nogroup" }', "run_as: user is missing"),
        ('{ user = "nobody", gruop = "nogroup" }', "run_as: unknown key 'gruop'; known are user, group, groups"),
    ],
)
def test_who_cannot_be_run_as(tmp_path: Path, run_as: str, said: str) -> None:
    """Users and groups are looked up when the file is read; root is only meant where it is spelt so."""
    assert problem(tmp_path, rule(more=f"run_as = {run_as}\n{WORD}")).startswith(f"FILE: rule 'echo': {said}")


def test_who_can_be_run_as(tmp_path: Path) -> None:
    """By name or number; exactly the groups that are named."""
    more = 'run_as = { user = 54321, group = 54322, groups = ["daemon", 7, 7] }'
    (made,) = load(tmp_path, rule(more=f"{more}\n{WORD}")).rules
    assert made.confinement[:3] == (54321, 54322, (1, 7))
    (made,) = load(tmp_path, rule(more=f'run_as = "root"\n{WORD}')).rules
    assert made.confinement[:3] == (0, 0, ())


def test_a_limit_that_would_not_hold(tmp_path: Path) -> None:
    """The kernel lets root have any number of processes, whatever its own limit says; a cgroup holds for root too."""
    root = f'run_as = "root"\n{WORD}'
    said = problem(tmp_path, rule(more=f"{root}\nlimits.processes = 64"))
    assert said == "FILE: rule 'echo': limits.processes does not bind root; use cgroup.processes"
    load(tmp_path, rule(more=f"{root}\ncgroup.processes = 64\nlimits.open_files = 64"))
    for others in ('run_as = "nobody"\n', ""):
        load(tmp_path, rule(more=f"{others}{WORD}\nlimits.processes = 64"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root is no server's own user in this sense")
def test_the_servers_own_user_is_refused(tmp_path: Path) -> None:
    """A command that runs as the server could read the server's keys."""
    assert "is the server's own user" in problem(tmp_path, rule(more=f"run_as = {os.geteuid()}\n{WORD}"))


TEST = "\n[[rule.test]]\n"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            'caller = "alice"\narguments = ["echo", "A"]\nexpect = "allow"',
            "expects allow, but: word: it does not match",
        ),
        ('caller = "bob"\narguments = ["echo", "a"]\nexpect = "allow"', "expects allow, but: not permitted: no rule"),
        ('caller = "alice"\narguments = ["echo", "a"]\nexpect = "deny"', "expects deny, but rule 'echo' allows it"),
        ('caller = "alice"\nshell = "echo a"\nexpect = "deny"', "expects deny, but rule 'echo' allows it"),
        ('arguments = ["echo", "a"]\nexpect = "deny"', ": a test needs a caller, roles, or both"),
        ('caller = "alice"\nexpect = "deny"', ": give exactly one of arguments and shell"),
        ('caller = "alice"\nshell = "a"\nexpect = "maybe"', ": expect: Input should be 'allow' or 'deny'"),
        ('caller = "alice"\nshell = "a"', ": expect is missing"),
    ],
)
def test_t_az_41_a_failing_test_refuses_the_file(tmp_path: Path, test: str, said: str) -> None:
    """T-AZ-41: a file whose own tests fail is not taken; which test it is, is said."""
    passing = f'{TEST}caller = "alice"\narguments = ["echo", "a"]\nexpect = "allow"'
    found = problem(tmp_path, rule(more=WORD + passing + TEST + test))
    assert found.startswith(f"FILE: rule 'echo': test 2{'' if said.startswith(':') else ' '}{said}")


def test_t_az_41_tests_say_which_rule(tmp_path: Path) -> None:
    """T-AZ-41: a rule's test is about that rule: another one that allows the same first makes it fail."""
    test = f'{TEST}roles = ["ci"]\nshell = "echo a"\nexpect = "allow"'
    first = rule(more=WORD, name="first").replace("callers", 'roles = ["ci"]\ncallers')
    second = rule(more=WORD + test, name="second").replace("callers", 'roles = ["ci"]\ncallers')
    assert problem(tmp_path, first + second) == (
        "FILE: rule 'second': test 1 expects allow, but rule 'first' comes first and allows it"
    )
    assert load(tmp_path, second + first).tests == 1


def test_only_our_file_is_trusted(tmp_path: Path) -> None:
    """A policy that others can write is nobody's decision."""
    os.chmod(write(tmp_path, rule(more=WORD)), 0o620)
    assert problem(tmp_path, rule(more=WORD)).startswith("FILE can be written by others (mode 0620)")


def test_a_policy_does_not_change_once_it_is_read(tmp_path: Path) -> None:
    """What is in force is one immutable object."""
    allowlist = load(tmp_path, rule(more=WORD))
    with pytest.raises(AttributeError):
        allowlist.rules = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        allowlist.rules[0].table.callers = ("bob",)  # type: ignore[misc]
    assert isinstance(allowlist, Allowlist)
