"""The laws of the house: who may import whom, who may fork, how long a file may be, what may not be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 450
PACKAGES = ("rexec_server", "rexec_client")
MAY_FORK = ROOT / "rexec_server" / "runner"

# A fork in a process with live gRPC calls kills children before exec, and these make subprocess fork.
FORKING_KEYWORDS = {"preexec_fn", "user", "group", "extra_groups"}
SPAWNING_CALLS = {
    "Popen",
    "run",
    "call",
    "check_call",
    "check_output",
    "create_subprocess_exec",
    "create_subprocess_shell",
}
FORKING_CALLS = {"fork", "forkpty"}
FORKING_MODULES = {"multiprocessing", "pty"}
FORKING_NAMES = {"ProcessPoolExecutor"}

NOT_TO_BE_COMMITTED = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}"),
    "an access token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}|xox[abpr]-[A-Za-z0-9-]{10,})\b"),
    "a path of somebody's machine": re.compile(r"(?<![\w.}/-])/(?:work/(?:main|shared)|root/\.|home/[a-z]\w*)(?:/|\b)"),
    "a package's download address": re.compile(r'"resolved": *"'),
}


def sources() -> list[Path]:
    """Return the Python files of both packages."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def committed() -> list[Path]:
    """Return the files that are committed, or would be by `git add .`."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True)
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    names = listed.stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def test_the_import_law_holds() -> None:
    """No folder imports what the design forbids it, the standard library only where that is the law."""
    law = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert law.returncode == 0, law.stdout + law.stderr


def test_no_file_is_too_long_to_read_at_once() -> None:
    """A file is one noun, and a noun fits in 450 lines."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def forks(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything in a module that forks, or makes subprocess fork."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=keywords):
                if name in FORKING_CALLS | FORKING_NAMES:
                    yield node.lineno, name
                if name in SPAWNING_CALLS:
                    yield from ((node.lineno, word.arg) for word in keywords if word.arg in FORKING_KEYWORDS)
            case ast.Import(names=names):
                yield from ((node.lineno, a.name) for a in names if a.name.partition(".")[0] in FORKING_MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in FORKING_MODULES:
                yield node.lineno, module
            case ast.Dict(keys=keys):
                words = [key.value for key in keys if isinstance(key, ast.Constant)]
                yield from ((node.lineno, word) for word in words if word == "preexec_fn")


def test_row_1_only_the_runner_forks() -> None:
    """Failure 1: a fork beside live gRPC calls loses children, so nothing outside the runner may fork."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sources()
        if MAY_FORK not in path.parents
        for line, what in forks(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "os.fork()",
        "fork()",
        "os.forkpty()",
        "import multiprocessing",
        "import multiprocessing.pool",
        "from multiprocessing import Process",
        "import pty",
        "subprocess.Popen(['true'], preexec_fn=f)",
        "subprocess.run(['true'], user=0)",
        "Popen(['true'], group=0)",
        "asyncio.create_subprocess_exec('true', extra_groups=[])",
        "Popen(['true'], **{'preexec_fn': f})",
        "concurrent.futures.ProcessPoolExecutor()",
    ],
)
def test_row_1_each_way_to_fork_is_found(source: str) -> None:
    """Failure 1: the check above would see this way to fork."""
    assert list(forks(ast.parse(source)))


@pytest.mark.parametrize("source", ["subprocess.Popen(['true'], start_new_session=True)", "find(user=1)"])
def test_row_1_what_does_not_fork_is_allowed(source: str) -> None:
    """Failure 1: a plain spawn uses vfork, and a keyword of another call means nothing."""
    assert list(forks(ast.parse(source))) == []


@pytest.mark.parametrize("what", NOT_TO_BE_COMMITTED)
def test_nothing_private_is_committed(what: str) -> None:
    """No file carries a secret, or a trace of the machine on which it was written."""
    this_file = Path(__file__).resolve()
    found = []
    for path in committed():
        text = path.read_bytes().decode(errors="replace") if path != this_file else ""
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in NOT_TO_BE_COMMITTED[what].finditer(text)]
    assert found == []
