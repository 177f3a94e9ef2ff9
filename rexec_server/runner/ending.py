"""The notes and the final record of how an execution ended, in a file that had its room from the start."""

from __future__ import annotations

import errno
import json
import logging
import os
from typing import Any, NamedTuple

from rexec_server.core.durable import sync_directory
from rexec_server.core.spool import (
    EXIT,
    EXIT_DRAFT,
    EXIT_RECORD_BYTES,
    ExitRecord,
    NotRegular,
    Reason,
    StartError,
    open_regular,
)

_log = logging.getLogger("rexec.runner")


class Ending(NamedTuple):
    """That rexec has begun to end the command: why, and when what is left will be killed (CLOCK_MONOTONIC seconds)."""

    reason: Reason
    kill_at: float


class ExitDraft:
    """`exit.tmp`, which becomes `exit`. A successor of its writer reads the notes there."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        try:
            self.fd = open_regular(EXIT_DRAFT, os.O_RDWR | os.O_CREAT, directory)
        except NotRegular:  # damage, which must not keep an end from being recorded
            os.rename(EXIT_DRAFT, f"{EXIT_DRAFT}.damaged", src_dir_fd=directory, dst_dir_fd=directory)
            self.fd = open_regular(EXIT_DRAFT, os.O_RDWR | os.O_CREAT, directory)

    @classmethod
    def reserve(cls, directory: int) -> None:
        """Takes the room for the record; OSError when there is none."""
        draft = cls(directory)
        try:
            os.posix_fallocate(draft.fd, 0, EXIT_RECORD_BYTES)
        finally:
            os.close(draft.fd)

    def note_ending(self, ending: Ending) -> None:
        self._add("ending", ending)

    def note_signal(self, number: int) -> None:
        """That rexec is about to send the command a signal: if it dies of that, it is rexec's doing."""
        self._add("signals", sorted({*self.signals(), number}))

    def ending(self) -> Ending | None:
        fields = self._note().get("ending")
        return Ending(Reason(fields[0]), fields[1]) if fields else None

    def signals(self) -> set[int]:
        """Those that rexec has sent the command."""
        return set(self._note().get("signals", ()))

    def start_error(self) -> StartError | None:
        fields = self._note().get("start_error")
        return StartError(*fields) if fields else None

    def finish(self, record: ExitRecord) -> None:
        """Makes the record true: on disk first, so that whoever sees it by its final name may tell it."""
        data = record.to_bytes()
        self._write(data)
        self._publish(len(data))

    def complete_interrupted(self) -> bool:
        """Whether a dead writer had the final record written; then only its name was missing."""
        data = os.pread(self.fd, EXIT_RECORD_BYTES, 0)
        try:
            ExitRecord.from_bytes(data)
        except ValueError:
            return False
        self._publish(data.index(b"\n") + 1)
        return True

    def _publish(self, size: int) -> None:
        """Syncs the record and the names that lead to it, then renames it, in this order.

        A power cut may undo the rename; then the record is whole under its first name, and the next runner renames it.
        """
        os.ftruncate(self.fd, size)
        os.fdatasync(self.fd)
        try:
            self._rename()
        except FileNotFoundError:  # the draft has been removed, or all of the directory
            self._replace(os.pread(self.fd, size, 0))
        os.close(self.fd)

    def _rename(self) -> None:
        os.fsync(self._directory)
        sync_directory("..", self._directory)
        try:
            os.rename(EXIT_DRAFT, EXIT, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except IsADirectoryError:  # damage, which must not keep an end from being recorded
            os.rename(EXIT, f"{EXIT}.damaged", src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.rename(EXIT_DRAFT, EXIT, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _replace(self, data: bytes) -> None:
        """Publishes the record in another file. Without a directory there is no place for it."""
        try:
            draft = open_regular(EXIT_DRAFT, os.O_WRONLY | os.O_CREAT, self._directory)
        except FileNotFoundError:
            return _log.warning("the directory of an execution is gone; its end cannot be recorded there")
        try:
            if os.write(draft, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(draft)
        finally:
            os.close(draft)
        self._rename()

    def _write(self, data: bytes) -> None:
        os.pwrite(self.fd, data + b"\0" * (EXIT_RECORD_BYTES - len(data)), 0)

    def _add(self, name: str, value: object) -> None:
        self._write(json.dumps(self._note() | {name: value}).encode() + b"\n")

    def _note(self) -> dict[str, Any]:
        line = os.pread(self.fd, EXIT_RECORD_BYTES, 0).split(b"\n")[0].strip(b"\0")
        try:
            note = json.loads(line) if line else {}
        except ValueError:
            return {}  # torn by a power cut; nothing of that boot still runs
        return note if isinstance(note, dict) else {}


def finish_unseen(execution: str, draft: ExitDraft, record: ExitRecord) -> None:
    """Records an end that nobody has seen, and says so: people may want to know why."""
    what = "LOST" if record.lost else "was never started"
    _log.warning("an execution %s", what, extra={"execution": execution, "why": record.lost})
    draft.finish(record)
