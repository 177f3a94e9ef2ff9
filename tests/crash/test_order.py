"""The order of the writes that a power cut must not undo, seen in the calls that make them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from rexec_server.core.about import ABOUT, About
from rexec_server.core.database import Database
from rexec_server.core.durable import make_directories
from rexec_server.core.spool import EXIT, EXIT_DRAFT, ExitRecord, Reason
from rexec_server.runner.ending import ExitDraft

ENDED = ExitRecord(Reason.EXITED, 1, 0, 0, output_complete=True, exit_code=7)
WATCHED = {os.pwrite, os.write, os.fsync, os.fdatasync, os.rename, os.mkdir}


def calls(what: Callable[[], object]) -> list[str]:
    """The names of the watched system calls that it makes, in their order."""
    made: list[str] = []

    def note(_: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function in WATCHED:
            made.append(function.__name__)

    sys.setprofile(note)
    try:
        what()
    finally:
        sys.setprofile(None)
    return made


def test_an_end_has_its_final_name_when_the_record_and_all_names_are_on_disk(tmp_path: Path) -> None:
    """Whoever sees `exit` may tell it: the record, its directory, and the directory around that are synced before."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ExitDraft.reserve(directory)
        assert calls(lambda: ExitDraft(directory).finish(ENDED)) == ["pwrite", "fdatasync", "fsync", "fsync", "rename"]
    finally:
        os.close(directory)
    assert ExitRecord.from_bytes((tmp_path / EXIT).read_bytes()) == ENDED


def test_an_end_whose_rename_was_undone_is_the_same_end(tmp_path: Path) -> None:
    """The rename itself is not synced: the record is believed under its first name too."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ExitDraft(directory).finish(ENDED)
        (tmp_path / EXIT).rename(tmp_path / EXIT_DRAFT)
        assert calls(lambda: ExitDraft(directory).complete_interrupted())[-1] == "rename"
    finally:
        os.close(directory)
    assert ExitRecord.from_bytes((tmp_path / EXIT).read_bytes()) == ENDED


def test_what_a_spool_says_of_itself_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The new file is on disk before it takes the old one's name, and the name before anything relies on it."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert calls(lambda: About(boot_id="this").write(directory)) == ["write", "fsync", "rename", "fsync"]
        (tmp_path / ABOUT).write_bytes(b"\0" * 50)
        assert About.read(directory) == About()
    finally:
        os.close(directory)


def test_each_new_directory_has_its_name_synced(tmp_path: Path) -> None:
    """A state directory that was made just now is there after a power cut, and so is the way to it."""
    made = calls(lambda: make_directories(str(tmp_path / "one" / "two")))
    assert made == ["mkdir", "fsync", "mkdir", "fsync"]


def test_a_commit_of_the_index_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    """SQLite syncs its log in each commit only when it is told to; nothing else would keep a reservation."""
    database = Database(str(tmp_path / "index.sqlite"), ("CREATE TABLE one (two);",), lambda: None)
    try:
        assert (database.read("PRAGMA journal_mode"), database.read("PRAGMA synchronous")) == ("wal", 2)
    finally:
        database.close()
