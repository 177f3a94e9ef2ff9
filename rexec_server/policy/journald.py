"""The audit in systemd's journal, by its native protocol: one datagram for each line.

See systemd.io/JOURNAL_NATIVE_PROTOCOL. A line is safe with journald once it took it; when it is on disk is journald's
to decide (SyncIntervalSec in journald.conf(5)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket

from rexec_server.policy.audit_line import AuditLine
from rexec_server.policy.files import PolicyError

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "rexec-audit"
_PRIORITY = "6"  # informational
_SEND_BUFFER = 8 * 1024 * 1024
_GONE = {errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Journald:
    """A connection to journald. Its methods raise OSError; one thread at a time may write."""

    def __init__(self, path: str = SOCKET) -> None:
        """PolicyError when nobody takes datagrams there."""
        self._path = path
        try:
            self._socket = self._connect()
        except OSError as error:
            raise PolicyError(f"cannot write the audit to journald at {path}: {error.strerror}") from error

    def write(self, line: AuditLine) -> None:
        """BlockingIOError when its queue is full."""
        data = _datagram(line)
        try:
            self._send(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # journald was started anew since. The old socket stays until there is another.
            new = self._connect()
            self._socket.close()
            self._socket = new
            self._send(data)

    def wait(self, seconds: float) -> None:
        """Returns when its queue has room, or after this long."""
        # By its number: another thread may connect anew, or close, meanwhile; then there is nothing to wait for.
        poll, fd = select.poll(), self._socket.fileno()
        if fd < 0:
            return
        poll.register(fd, select.POLLOUT)
        poll.poll(seconds * 1000)

    def sync(self) -> None:
        """Nothing: only root can ask journald for that."""

    def close(self) -> None:
        self._socket.close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            connection.setblocking(False)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        """What no datagram can hold goes as a file in memory, sealed: journald takes only such as cannot change."""
        fd = os.memfd_create(IDENTIFIER, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(self._socket, [b""], [fd])
        finally:
            os.close(fd)


def _datagram(line: AuditLine) -> bytes:
    fields = {
        "MESSAGE": line.text,
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "PRIORITY": _PRIORITY,
        "REXEC_EVENT": line.event,
        "REXEC_CALLER": line.caller,
        "REXEC_EXEC_ID": line.exec_id,
    }
    return b"".join(_field(name, value.encode(errors="replace")) for name, value in fields.items() if value)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
