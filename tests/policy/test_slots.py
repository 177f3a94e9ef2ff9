"""Slots: a caller's value is exactly of its type, or it is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from rexec_server.policy.slots import EnumSlot, IntSlot, PathSlot, PatternSlot, Slot

SLOT: TypeAdapter[Any] = TypeAdapter(Slot)
ANYTHING = PatternSlot(type="pattern", pattern="(?s).*", max_length=1_000_000)


def refused(slot: Any, value: str) -> str:
    """Why the slot does not take it."""
    with pytest.raises(ValueError, match=r"^it ") as caught:
        slot.fill(value)
    return str(caught.value)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with files, and links that lead within it, out of it, and nowhere."""
    root = tmp_path / "logs"
    (root / "old").mkdir(parents=True)
    (root / "a.log").touch()
    (root / "old" / "b.log").touch()
    (tmp_path / "secret.log").touch()
    (tmp_path / "logs-of-others").mkdir()
    (tmp_path / "logs-of-others" / "c.log").touch()
    (root / "inside.log").symlink_to("old/b.log")
    (root / "outside.log").symlink_to("../secret.log")
    (root / "others").symlink_to("../logs-of-others")
    (root / "dangling.log").symlink_to("../not-there.log")
    (root / "loop.log").symlink_to("loop.log")
    (root / "self").symlink_to(".")
    return root


@pytest.mark.parametrize(
    "value",
    [
        "\u0665",
        "5\n",
        "\n5",
        " 5",
        "5 ",
        "+5",
        "05",
        "-05",
        "-0",
        "1e3",
        "0x5",
        "5.0",
        "1_000",
        "",
        "-",
        str(2**70),
        "\uff15",
        "5\0",
    ],
)
def test_t_az_13_integers(value: str) -> None:
    """T-AZ-13: a number is taken in its one plain form, and in no other that Python would understand."""
    refused(IntSlot(type="int", min=-(2**80), max=2**80, allow_dash=True), value)


@pytest.mark.parametrize("value", ["0", "-7", "5000", "9223372036854775807"])
def test_t_az_13_plain_integers_are_taken(value: str) -> None:
    """T-AZ-13: what is a number is passed on as it is."""
    assert IntSlot(type="int", min=-(2**80), max=2**80, allow_dash=True).fill(value) == value


def test_t_az_13_integers_have_bounds() -> None:
    """T-AZ-13: the bounds belong to what is allowed, and nothing beyond."""
    slot = IntSlot(type="int", min=1, max=10)
    assert (slot.fill("1"), slot.fill("10")) == ("1", "10")
    assert refused(slot, "0") == refused(slot, "11") == "it is not 1 to 10"


@pytest.mark.parametrize(
    "value",
    [
        "..",
        "../secret.log",
        "old/../../secret.log",
        "old/../a.log",
        "./a.log",
        "old//b.log",
        "a.log/",
        "/etc/passwd",
        "//etc/passwd",
        "",
        "/",
        "a.log\0",
        "a.log\0.txt",
        "a" * 300,
        "x/" * 3000 + "a.log",
        "missing.log",
        "missing/a.log",
        "a.log/b",
        "outside.log",
        "others/c.log",
        "dangling.log",
        "loop.log",
        "self",
        "~/a.log",
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_t_az_14_paths_that_lead_elsewhere(tree: Path, value: str, exists: bool) -> None:
    """T-AZ-14: a path that leaves the root, or is not plain, is refused, whether by its text or by its links."""
    slot = PathSlot(type="path", root=str(tree), exists=exists)
    if not exists and value == "missing.log":
        assert slot.fill(value) == str(tree / value)
    else:
        refused(slot, value)


@pytest.mark.parametrize("root", ["{tree}", "{tree}/self/old/.."])
def test_t_az_14_an_absolute_path_is_taken_below_the_root_as_it_is_configured(tree: Path, root: str) -> None:
    """T-AZ-14: absolute paths are compared as text first: only a plain root can be configured."""
    root = root.format(tree=tree)
    if root != str(tree):
        with pytest.raises(ValidationError, match="no absolute path in its plain form"):
            PathSlot(type="path", root=root)
        return
    slot = PathSlot(type="path", root=root)
    assert slot.fill(f"{tree}/old/b.log") == str(tree / "old" / "b.log")
    refused(slot, f"{tree}")
    refused(slot, f"{tree}/")
    refused(slot, f"{tree}-of-others/c.log")
    refused(slot, f"{tree}/../secret.log")


def test_t_az_14_what_is_passed_on_is_the_real_path(tree: Path) -> None:
    """T-AZ-14: links within the root are followed before, so that the program meets none."""
    slot = PathSlot(type="path", root=str(tree))
    assert slot.fill("inside.log") == str(tree / "old" / "b.log")
    (tree.parent / "link-to-logs").symlink_to("logs")
    assert PathSlot(type="path", root=str(tree.parent / "link-to-logs")).fill("a.log") == str(tree / "a.log")


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    "value",
    ["a/" * 2047 + "ab", "/gone/" + "a/" * 2044 + "ab", "a/" * 2044 + "ab", "é/" * 1365 + "a", "a/" * 30_000 + "a"],
    ids=["relative", "absolute", "with-its-root", "bytes", "endless"],
)
def test_t_az_14_a_path_that_is_too_long(value: str, exists: bool) -> None:
    """T-AZ-14: what no path can be is refused by its text: each of its parts would be looked up, and others wait."""
    slot = PathSlot(type="path", root="/gone", exists=exists)  # who looks, does not even find the root
    assert refused(slot, value) == "it is longer than a path can be"
    assert refused(slot, value[:100].rstrip("/")) == "it cannot be looked at: No such file or directory"


@pytest.mark.parametrize("value", ["a" * 256, "é" * 128, "old/" + "a" * 256, "a" * 256 + "/b"])
def test_t_az_14_a_name_that_is_too_long(value: str) -> None:
    """T-AZ-14: no file system has names of more than 255 bytes."""
    slot = PathSlot(type="path", root="/gone", exists=False)
    assert refused(slot, value) == "it has a name of more than 255 bytes"
    assert refused(slot, "é" * 127) == "it cannot be looked at: No such file or directory"


def test_t_az_14_the_pattern_is_for_the_part_below_the_root(tree: Path) -> None:
    """T-AZ-14: absolute or not, the same part is matched, as the caller wrote it."""
    slot = PathSlot(type="path", root=str(tree), pattern=r"[a-z]+\.log")
    assert slot.fill("a.log") == slot.fill(f"{tree}/a.log") == str(tree / "a.log")
    assert "not match the pattern" in refused(slot, "old/b.log")


def test_t_az_14_a_link_to_a_strange_name_is_refused(tree: Path) -> None:
    """T-AZ-14: what a link leads to is looked at like what the caller wrote."""
    (tree / "new\nline").touch()
    (tree / "innocent.log").symlink_to("new\nline")
    os.symlink(b"\xff.log", os.fsencode(tree / "bytes.log"))
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff.log")).touch()
    slot = PathSlot(type="path", root=str(tree))
    assert refused(slot, "innocent.log") == refused(slot, "bytes.log") == "it has a control character"


def test_a_new_file_needs_its_directory(tree: Path) -> None:
    """With exists = false the program may make the file, not what it is in."""
    slot = PathSlot(type="path", root=str(tree), exists=False)
    assert slot.fill("old/new.log") == str(tree / "old" / "new.log")
    assert refused(slot, "new/new.log") == "it needs a directory that exists"


@pytest.mark.parametrize(
    "slot",
    [
        EnumSlot(type="enum", values=("a", "b")),
        PatternSlot(type="pattern", pattern="[-a-z]*"),
        IntSlot(type="int", min=0, max=9),
    ],
)
@pytest.mark.parametrize("value", ["-", "--", "-a", "--help", "-1", "-rf"])
def test_t_az_15_no_value_is_an_option(slot: Any, value: str) -> None:
    """T-AZ-15: a value with a leading dash could be an option of the program."""
    refused(slot, value)


def test_t_az_15_no_path_is_an_option(tree: Path) -> None:
    """T-AZ-15: a file's name may start with a dash, since what is passed on is absolute."""
    (tree / "-rf").touch()
    assert PathSlot(type="path", root=str(tree)).fill("-rf") == str(tree / "-rf")


def test_t_az_15_unless_allow_dash_says_so() -> None:
    """T-AZ-15: whoever wants dashes says it, for this slot."""
    assert PatternSlot(type="pattern", pattern="[-a-z]*", allow_dash=True).fill("-rf") == "-rf"
    assert IntSlot(type="int", min=-5, max=5, allow_dash=True).fill("-5") == "-5"
    assert EnumSlot(type="enum", values=("-v",), allow_dash=True).fill("-v") == "-v"


def test_t_az_17_patterns_take_linear_time() -> None:
    """T-AZ-17: a pattern that keeps a backtracking engine busy for years is answered at once."""
    slot = PatternSlot(type="pattern", pattern="(a+)+", max_length=20_000)
    value = "a" * 10_000
    started = time.thread_time()  # not the clock: who else runs on this machine does not matter
    refused(slot, value + "!")
    assert slot.fill(value) == value
    assert time.thread_time() - started < 0.05


@pytest.mark.parametrize(
    "value", ["a\nb", "a\0", "\x1b[31m", "\x7f", "\x85", "\x9b", "\t", "\ud800", "x" * 65537, "é" * 32769]
)
def test_no_type_takes_control_characters_or_endless_values(value: str) -> None:
    """Even a pattern for everything takes no line break, no escape, no half character, and at most 64 KiB."""
    refused(ANYTHING, value)


@pytest.mark.parametrize("value", ["", "ü", "$(touch x)", "a b", "日本", "x" * 65536])
def test_everything_else_is_a_value(value: str) -> None:
    """What means something to a shell means nothing here."""
    assert ANYTHING.fill(value) == value


@pytest.mark.parametrize("value", ["xabc", "abcx", "abc\n", "ABC", "", "ab"])
def test_patterns_match_the_whole_value(value: str) -> None:
    """A pattern is anchored by itself, at both ends."""
    refused(PatternSlot(type="pattern", pattern="abc|abcd"), value)


@pytest.mark.parametrize("pattern", ["^abc", "abc$", r"\Aabc", r"abc\z", "(^a|b$)", "[a]^", r"\\^"])
def test_anchors_are_an_error(pattern: str) -> None:
    """An anchor shows that the author took the pattern for one that is searched."""
    with pytest.raises(ValidationError, match="always matches the whole value"):
        PatternSlot(type="pattern", pattern=pattern)


@pytest.mark.parametrize("pattern", ["[^/]+", r"\^\$", "[$]", "[]^]", r"[\]$]", "[[:alpha:]$]", "a.b"])
def test_what_only_looks_like_an_anchor_is_none(pattern: str) -> None:
    """In a class or escaped these characters are themselves."""
    assert PatternSlot(type="pattern", pattern=pattern).pattern == pattern


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "[z-a]", "a{1001}"])
def test_a_pattern_that_re2_refuses_is_an_error(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What cannot be matched in linear time is refused when it is read, in one line, and RE2 itself says nothing."""
    with pytest.raises(ValidationError, match="none that RE2 takes"):
        PatternSlot(type="pattern", pattern=pattern)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "int", "min": 1},
        {"type": "int", "min": 5, "max": 1},
        {"type": "int", "min": -5, "max": 1},
        {"type": "int", "min": "1", "max": "2"},
        {"type": "int", "min": True, "max": 2},
        {"type": "enum", "values": []},
        {"type": "enum", "values": ["-v"]},
        {"type": "enum", "values": ["a\nb"]},
        {"type": "enum", "values": "ab"},
        {"type": "path"},
        {"type": "path", "root": "logs"},
        {"type": "path", "root": "/var/../etc"},
        {"type": "path", "root": "//var"},
        {"type": "pattern"},
        {"type": "pattern", "pattern": "a", "max_length": 0},
        {"type": "pattern", "pattern": "a", "maxlength": 5},
        {"type": "any"},
        {},
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    """There is no type for anything, and none is guessed."""
    with pytest.raises(ValidationError):
        SLOT.validate_python(fields)
