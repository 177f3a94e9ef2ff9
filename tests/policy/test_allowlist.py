"""The allowlist decides: what a rule of the caller's matches is rebuilt from it, and all else is refused alike."""

from __future__ import annotations

import shlex
import statistics
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rexec_server.core.command import Command
from rexec_server.core.errors import InvalidRequest, NotAllowed, RexecError
from rexec_server.policy.allowlist import Allowlist
from rexec_server.policy.caller import Caller
from tests.policy.policies import ALICE, BOB, CI, NOBODY_ELSE, ask, denied, load, rule, slot

WORD = slot("type = 'pattern', pattern = '[ -~]*'")
RULES = """
[[rule]]
name = "tail-log"
arguments = ["/usr/bin/tail", "-n", "{lines}", "--", "{file}"]
callers = ["alice"]
roles = ["ci"]
[rule.slots]
lines = { type = "int", min = 1, max = 5000 }
file = { type = "path", root = "ROOT", pattern = '[a-z0-9._-]{1,64}\\.log' }

[[rule]]
name = "label"
arguments = ["/bin/echo", "--name={name}!", "{{x}}", "{kind}"]
callers = ["alice"]
[rule.slots]
name = { type = "pattern", pattern = '[^;]{1,20}' }
kind = { type = "enum", values = ["small", "large size"] }

[[rule]]
name = "usage"
shell = "du -sh /var/log | sort -h"
callers = ["alice"]
"""


@pytest.fixture
def allowlist(tmp_path: Path) -> Allowlist:
    """Rules for alice, of which a caller with the role ci has the first."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.log").touch()
    return load(tmp_path, RULES.replace("ROOT", str(tmp_path / "root")))


@pytest.mark.parametrize("program", ["tail", "/usr/bin/tail"])
@pytest.mark.parametrize("caller", [ALICE, CI])
def test_what_runs_is_built_from_the_rule(allowlist: Allowlist, tmp_path: Path, program: str, caller: Caller) -> None:
    """The program is the rule's, whichever name the caller gave it, and a path is the real one."""
    grant = allowlist.decide(caller, ask(program, "-n", "5", "--", "a.log"))
    assert grant.arguments == ("/usr/bin/tail", "-n", "5", "--", str(tmp_path / "root" / "a.log"))
    assert grant.rule == "tail-log"


@pytest.mark.parametrize(
    "program", ["/bin/tail", "./tail", "usr/bin/tail", "/usr/bin/../bin/tail", "/tmp/tail", "TAIL", "tail ", "tail\n"]
)
def test_no_other_program_is_taken_for_it(allowlist: Allowlist, program: str) -> None:
    """A program's name is the rule's path or the last part of it, nothing that leads there too."""
    assert denied(allowlist, ask(program, "-n", "5", "--", "a.log")) == NOBODY_ELSE


@pytest.mark.parametrize(
    "argument",
    ["/usr/bin/tail", "../x", "__class__", "sh", "tail-log", "tail-log\n", "*", "x" * 10_240, "\ud800", "usage"],
)
def test_t_az_01_unknown_commands(allowlist: Allowlist, argument: str) -> None:
    """T-AZ-01: whatever is no rule's command is refused, with one answer."""
    assert denied(allowlist, ask(argument)) == denied(allowlist, Command(shell=argument)) == NOBODY_ELSE


def test_t_az_03_unknown_and_forbidden_look_alike(allowlist: Allowlist) -> None:
    """T-AZ-03: the answer is the same in all its parts, even where a forbidden rule's values would be wrong."""
    told = []
    for command in (
        ask("no-such", "command"),
        ask("tail", "-n", "5", "--", "a.log"),
        ask("tail", "-n", "0", "--", "../x"),
        Command(shell="du -sh /var/log | sort -h"),
        Command(shell="unbalanced '"),
        ask("tail", "-n", "5", "--", "a.log", timeout=1e9, environment_variables={"X": "y"}),
    ):
        with pytest.raises(RexecError) as caught:
            allowlist.decide(BOB, command)
        told.append((type(caught.value), caught.value.reason, caught.value.message, vars(caught.value)))
    assert told == [told[0]] * len(told)
    assert told[0][:3] == (NotAllowed, "NOT_ALLOWED", NOBODY_ELSE)


def test_t_az_03_unknown_and_forbidden_take_the_same_time(allowlist: Allowlist) -> None:
    """T-AZ-03: time does not tell which commands others have, nor which of their values are right."""
    unknown, forbidden = ask("nail", "-n", "5", "--", "a.log"), ask("tail", "-n", "5", "--", "a.log")
    times: dict[Command | int, list[int]] = {0: [], 1: []}
    for _ in range(1000):
        for index, command in enumerate((unknown, forbidden)):
            started = time.thread_time_ns()
            with pytest.raises(NotAllowed):
                allowlist.decide(BOB, command)
            times[index].append(time.thread_time_ns() - started)
    medians = sorted(statistics.median(each) for each in times.values())
    assert medians[1] < 1.5 * medians[0], medians


def test_who_has_a_rule_is_told_which_value_is_wrong(allowlist: Allowlist) -> None:
    """A caller can correct its call, but is not told the pattern or the root."""
    message = denied(allowlist, ask("tail", "-n", "0", "--", "a.log"))
    assert message == "not permitted: 'lines' of rule 'tail-log' cannot have this value"
    message = denied(allowlist, ask("tail", "-n", "5", "--", "../x"))
    assert message == "not permitted: 'file' of rule 'tail-log' cannot have this value"


@pytest.mark.parametrize(
    "arguments", [(), ("-n", "5", "--"), ("-n", "5"), ("-n",), ("-n", "", "--", "a.log"), ("-n", "5", "--", "")]
)
def test_t_az_11_missing_values(allowlist: Allowlist, arguments: tuple[str, ...]) -> None:
    """T-AZ-11: a command without one of its values is another command; an empty value is no value."""
    assert denied(allowlist, ask("tail", *arguments)).startswith("not permitted")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-n", "5", "--", "a.log", ""),
        ("-n", "5", "--", "a.log", "/etc/passwd"),
        ("-f", "-n", "5", "--", "a.log"),
        ("-n", "5", "a.log", "--"),
        ("-n5", "--", "a.log"),
    ],
)
def test_t_az_12_extra_values(allowlist: Allowlist, arguments: tuple[str, ...]) -> None:
    """T-AZ-12: more arguments, or others, are another command."""
    assert denied(allowlist, ask("tail", *arguments)) == NOBODY_ELSE


@pytest.mark.parametrize("value", ["{file}", "{name}", "{{x}}", "{}", "%s", "$name", "{0}", "a{kind}b"])
def test_t_az_18_braces_in_a_value_mean_nothing(allowlist: Allowlist, value: str) -> None:
    """T-AZ-18: values are put in once, in one pass, and are not looked at again."""
    grant = allowlist.decide(ALICE, ask("echo", f"--name={value}!", "{x}", "large size"))
    assert grant.arguments == ("/bin/echo", f"--name={value}!", "{x}", "large size")


@pytest.mark.parametrize("element", ["--name=a", "-name=a!", "--name=!", "--name!", "--name=;!", "--name=-x!", "a!"])
def test_what_stands_around_a_slot_must_be_there(allowlist: Allowlist, element: str) -> None:
    """A slot is a part of one element; the rest of that element is the rule's."""
    denied(allowlist, ask("echo", element, "{x}", "small"))


# What a mistake or an attack puts into an argument.
ODD = st.one_of(
    st.sampled_from(["", "-", "--", "..", "-n", "sh", ";", "a.log\n", "small ", "--name=;!", "--name=\n!", "{x}"]),
    st.integers(-10, 6000).map(str),
    st.text(max_size=12),
)
PRINTABLE = st.characters(categories=("L", "M", "N", "P", "S", "Zs"), exclude_characters=";").filter(str.isprintable)
VALID = st.one_of(
    st.tuples(
        st.sampled_from(["tail", "/usr/bin/tail"]), st.just("-n"), st.integers(1, 5000).map(str), st.just("--"),
        st.just("a.log"),
    ),
    st.tuples(
        st.sampled_from(["echo", "/bin/echo"]),
        st.text(PRINTABLE, min_size=1, max_size=20).filter(lambda name: name[0] != "-").map("--name={}!".format),
        st.just("{x}"), st.sampled_from(["small", "large size"]),
    ),
)  # fmt: skip


@st.composite
def nearly_valid(draw: st.DrawFn) -> list[str]:
    """The arguments of a command of alice's, with one mistake or none."""
    arguments = list(draw(VALID))
    place = draw(st.integers(0, len(arguments) - 1))
    match draw(st.sampled_from(["none", "none", "none", "replace", "insert", "delete", "append", "swap"])):
        case "replace":
            arguments[place] = draw(ODD)
        case "insert":
            arguments.insert(place + draw(st.integers(0, 1)), draw(ODD))
        case "delete":
            del arguments[place]
        case "append":
            arguments[place] += draw(st.text(max_size=3))
        case "swap":
            arguments[place], arguments[0] = arguments[0], arguments[place]
    return arguments


SKELETONS = {
    "tail-log": ("/usr/bin/tail", "-n", None, "--", None),
    "label": ("/bin/echo", None, "{x}", None),
}


def check_argv(allowlist: Allowlist, command: Command) -> bool:
    """Either refused, or as long as the rule's skeleton and with its literals. Whether it is granted."""
    try:
        grant = allowlist.decide(ALICE, command)
    except NotAllowed:
        return False
    skeleton = SKELETONS[grant.rule]
    assert len(grant.arguments) == len(skeleton)
    for element, literal in zip(grant.arguments, skeleton, strict=True):
        assert literal in (None, element)
    assert not grant.arguments[2].startswith("-")
    assert "\n" not in "".join(grant.arguments)
    return True


@pytest.mark.parametrize("as_line", [False, True], ids=["arguments", "line"])
def test_t_az_19_any_request(allowlist: Allowlist, as_line: bool) -> None:
    """T-AZ-19: a rule is followed to the letter or the request is refused; a line, split, is like its arguments."""
    granted: list[bool] = []

    @settings(max_examples=500, deadline=None)
    @given(nearly_valid())
    def check(arguments: list[str]) -> None:
        granted.append(check_argv(allowlist, Command(shell=shlex.join(arguments)) if as_line else ask(*arguments)))

    check()
    assert sum(granted) >= len(granted) / 4


# The fixture is only read.
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD, min_size=1, max_size=6), st.text(max_size=60))
def test_t_az_19_anything(allowlist: Allowlist, arguments: list[str], line: str) -> None:
    """T-AZ-19: what is far from every rule is refused, and nothing else happens."""
    check_argv(allowlist, ask(*arguments))
    check_argv(allowlist, Command(shell=line))


@pytest.mark.parametrize(
    "line",
    ["tail -n 5 -- a.log", "  tail  -n 5 --   a.log ", "/usr/bin/tail '-n' \"5\" -- a\\.log", "tail -n '5' -- a.lo''g"],
)
def test_a_line_is_split_as_a_shell_would(allowlist: Allowlist, line: str) -> None:
    """Quotes and blanks are the shell's; no shell is involved."""
    assert allowlist.decide(ALICE, Command(shell=line)).arguments[:4] == ("/usr/bin/tail", "-n", "5", "--")


@pytest.mark.parametrize(
    "line",
    [
        "tail -n 5 -- a.log; id",
        "tail -n 5 -- a.log;id",
        "tail -n 5 -- a.log | sh",
        "tail -n 5 -- a.log &",
        "tail -n 5 -- a.log\nid",
        "tail\n-n\n5\n--\na.log",
        "tail -n 5 -- $(id).log",
        "tail -n 5 -- 'a.log",
        "tail -n 5 -- a.log \\",
        "tail -n 5 -- a.log # comment",
        "tail -n 5 -- " + " " * 33_000 + "a.log",
    ],
)
def test_a_line_that_means_more_to_a_shell_is_refused(allowlist: Allowlist, line: str) -> None:
    """What a shell would do more than start that command, is no part of any rule; nor are endless lines."""
    denied(allowlist, Command(shell=line))


@pytest.mark.parametrize(
    "line", ["du -sh /var/log | sort -h ", "du -sh /var/log|sort -h", "du  -sh /var/log | sort -h", "du -sh /var/log"]
)
def test_a_shell_rule_is_exactly_that_line(allowlist: Allowlist, line: str) -> None:
    """A rule that is a line for a shell has no slots, and matches nothing but itself."""
    granted = allowlist.decide(ALICE, Command(shell="du -sh /var/log | sort -h"))
    assert granted.arguments == ("/bin/sh", "-c", "du -sh /var/log | sort -h")
    denied(allowlist, Command(shell=line))
    denied(allowlist, ask("/bin/sh", "-c", "du -sh /var/log | sort -h"))


def test_endless_arguments_are_refused(tmp_path: Path) -> None:
    """More than 64 KiB in one value or 256 KiB in all is nobody's command."""
    elements = "".join(f', "{{w{index}}}"' for index in range(5))
    slots = "\n".join(slot("type = 'pattern', pattern = 'a*', max_length = 100_000", f"w{n}") for n in range(5))
    allowlist = load(tmp_path, rule(f'["/bin/echo"{elements}]', slots))
    allowlist.decide(ALICE, ask("echo", *["a" * 40_000] * 5))
    assert denied(allowlist, ask("echo", *["a" * 60_000] * 5)) == NOBODY_ELSE
    assert "'w0'" in denied(allowlist, ask("echo", "a" * 65_537, *"aaaa"))


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    """Rules are asked in the file's order, past those whose values do not fit and those of others."""
    others = rule('["/bin/echo", "a"]', name="others").replace("alice", "bob")
    number = rule(more=slot('type = "int", min = 1, max = 9') + '\ntimeout = "1s"', name="number")
    word = rule(more=slot('type = "enum", values = ["1", "a"]'), name="word")
    allowlist = load(tmp_path, others + number + word)
    assert [allowlist.decide(ALICE, ask("echo", value)).rule for value in ("1", "a")] == ["number", "word"]
    assert "of rule 'number'" in denied(allowlist, ask("echo", "b"))
    with pytest.raises(InvalidRequest, match="timeout: 5 s; rule 'number' allows at most 1 s"):
        allowlist.decide(ALICE, ask("echo", "1", timeout=5.0))
