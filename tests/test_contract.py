"""The wire contract: linted, unbroken, documented, and its generated code fresh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
BIN = Path(sys.executable).parent
# Its errors are those of every call, which the service's own comment lists.
WITHOUT_ERRORS_OF_ITS_OWN = {"GetServerInfo"}


def run(*arguments: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a tool with the venv's own tools on its path, as the generator's plugins need it."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(arguments, cwd=ROOT, env=environment, check=check, capture_output=True, text=True)


def generated(folder: Path) -> dict[str, bytes]:
    """Return the generated files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*_pb2*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_checked_in_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    """Nobody edited generated code, and nobody forgot `make protos`."""
    made = run(sys.executable, "scripts/gen_protos.py", tmp_path)
    assert made.returncode == 0, made.stderr
    fresh, checked_in = generated(tmp_path), generated(PROTOS)
    assert sorted(checked_in) == sorted(fresh)
    assert [name for name in fresh if fresh[name] != checked_in[name]] == [], "stale: make protos"


def test_buf_lint_is_clean() -> None:
    """The contract keeps the style rules, and every RPC, message, field and enum value has a comment."""
    lint = run(BIN / "buf", "lint", "protos")
    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize(
    "comment",
    [
        "// Which executions.\n",
        "  // Where to go on reading.\n",
        "  // NOT_FOUND, FAILED_PRECONDITION (already ended), INVALID_ARGUMENT (no such signal).\n",
    ],
    ids=["message", "field", "rpc"],
)
def test_buf_lint_misses_a_removed_comment(tmp_path: Path, comment: str) -> None:
    """The lint is switched on for comments: without one it fails."""
    protos = copy_of_protos(tmp_path)
    service = protos / "rexec/v1/execution_service.proto"
    text = service.read_text().replace("  // Sends a signal. Answers after it was delivered.\n", "")
    assert comment in text
    service.write_text(text.replace(comment, "", 1))
    lint = run(BIN / "buf", "lint", protos)
    assert lint.returncode != 0
    assert "comment" in lint.stdout


def test_callers_of_the_last_commit_are_not_broken(tmp_path: Path) -> None:
    """What the last commit's clients know still exists with the same number, name and type."""
    if run("git", "rev-parse", "--verify", "--quiet", "HEAD:protos").returncode != 0:
        pytest.skip("no commit with protos to compare with")
    archive = tmp_path / "old.tar"
    run("git", "archive", "--output", archive, "HEAD", "protos", check=True)
    shutil.unpack_archive(archive, tmp_path)
    breaking = run(BIN / "buf", "breaking", "protos", "--against", tmp_path / "protos")
    assert breaking.returncode == 0, breaking.stdout + breaking.stderr


def test_a_renumbered_field_counts_as_breaking(tmp_path: Path) -> None:
    """The comparison is switched on: it finds a field that changed its number."""
    protos = copy_of_protos(tmp_path)
    service = protos / "rexec/v1/execution_service.proto"
    service.write_text(service.read_text().replace("string shell = 3;", "string shell = 33;"))
    breaking = run(BIN / "buf", "breaking", protos, "--against", "protos")
    assert breaking.returncode != 0


def test_every_rpc_names_its_errors() -> None:
    """A client writer finds the status codes of each RPC in its comment, spelled as gRPC spells them."""
    silent = {name for name, comment in rpc_comments() if not status_codes(comment)}
    assert silent == WITHOUT_ERRORS_OF_ITS_OWN


def copy_of_protos(folder: Path) -> Path:
    """Copy the contract alone to where it can be damaged."""
    return Path(
        shutil.copytree(PROTOS, folder / "protos", ignore=shutil.ignore_patterns("*.py", "*.pyi", "__pycache__"))
    )


def status_codes(comment: str) -> set[str]:
    """Return the gRPC status codes that a comment names."""
    words = {word.strip("(),.;:") for word in comment.split()}
    return words & (set(grpc.StatusCode.__members__) - {"OK"})


def rpc_comments() -> Iterator[tuple[str, str]]:
    """Yield each RPC's name and leading comment, as the compiler sees them."""
    image = subprocess.run(
        [BIN / "buf", "build", "protos", "-o", "-#format=binpb"], cwd=ROOT, check=True, capture_output=True
    )
    for file in descriptor_pb2.FileDescriptorSet.FromString(image.stdout).file:
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for s, service in enumerate(file.service):
            for m, method in enumerate(service.method):
                yield method.name, comments[6, s, 2, m]  # file.service[s].method[m]
