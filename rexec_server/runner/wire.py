"""The protocol between server, runner and shims: JSON objects in frames on a unix socket.

A frame is its length as four bytes, big-endian, then UTF-8 JSON. A peer that breaks this is disconnected. Where
the JSON has `payload`, so many bytes follow it as they are: only to a supervisor whose `info` has that feature.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any

from rexec_server.runner.loop import READ, WRITE, Loop

HEADER = struct.Struct("!I")
# A request carries at most a gRPC message's arguments, environment and first input, base64 included.
MAX_FRAME = 64 * 1024 * 1024

MAX_PAYLOAD = 8 * 1024 * 1024
PAYLOAD = "payload"

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    body = json.dumps(message).encode()
    return HEADER.pack(len(body)) + body


def listen(directory: int, name: str) -> socket.socket:
    """Listens on a socket in an open directory, replacing what a dead predecessor left there."""
    remove_socket(directory, name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # Who may write to it may connect: a server of another user is in our group. From the first moment on it has the
    # mode that it shall have; there is no other thread that could make a file meanwhile.
    umask = os.umask(0o117)
    try:
        # A socket's path is limited to 107 bytes; through the directory's descriptor it is always short.
        listener.bind(f"/proc/self/fd/{directory}/{name}")
    finally:
        os.umask(umask)
    listener.listen(128)
    return listener


def is_socket(directory: int, name: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def remove_socket(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass  # there was none, or the whole directory was removed


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end (SO_PEERCRED, unix(7))."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", credentials)[1])


class Connection:
    """One peer: calls back for each message, buffers what cannot be sent yet."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_message: Callable[[Connection, Message], None],
        on_close: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_message = on_message
        self._on_close = on_close
        self._received = bytearray()
        self._unsent = bytearray()
        self._payload: Payload | None = None
        self._paused = False
        self.open = True
        sock.setblocking(False)
        self._watch()

    def send(self, message: Message) -> None:
        if self.open:
            self._unsent += encode(message)
            self._flush()

    def close(self) -> None:
        if self.open:
            self.open = False
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._on_close(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def pause(self, paused: bool) -> None:
        """While paused it takes no further message, and what its peer sends waits in the socket."""
        self._paused = paused
        if self.open:
            self._watch()

    @property
    def quiet(self) -> bool:
        """Whether no message is half received or half sent."""
        return not self._received and not self._unsent and self._payload is None

    def _watch(self) -> None:
        reading = not self._paused or self._received
        events = (READ if reading else 0) | (WRITE if self._unsent else 0)
        if events:
            self._loop.watch(self._socket.fileno(), events, self._ready)
        else:
            self._loop.unwatch(self._socket.fileno())

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & ~WRITE:
            self._receive()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        self._watch()

    def _receive(self) -> None:
        if self._payload:
            return self._receive_payload(self._payload)
        try:
            data = self._socket.recv(min(64 * 1024, self._missing()) if self._paused else 64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self.close()
        self._received += data
        self._try_to_dispatch()

    def _receive_payload(self, payload: Payload) -> None:
        try:
            taken = self._socket.recv_into(payload.missing)
        except BlockingIOError:
            return
        except OSError:
            taken = 0
        if not taken:
            return self.close()
        payload.filled += taken
        if not payload.missing:
            self._try_to_dispatch()

    def _try_to_dispatch(self) -> None:
        try:
            self._dispatch()
        except (ValueError, KeyError, TypeError):  # not JSON, too long, or nothing that we know: not our server
            return self.close()
        if self._paused and self.open:
            self._watch()

    def _missing(self) -> int:
        """Bytes up to the end of the message that has begun, or of its header."""
        if len(self._received) < HEADER.size:
            return HEADER.size - len(self._received)
        (length,) = HEADER.unpack_from(self._received)
        return max(1, HEADER.size + int(length) - len(self._received))

    def _dispatch(self) -> None:
        self._hand_over_payload()
        while self.open and self._payload is None and len(self._received) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._received)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes; at most {MAX_FRAME} are taken")
            if len(self._received) < HEADER.size + length:
                return
            body = bytes(self._received[HEADER.size : HEADER.size + length])
            del self._received[: HEADER.size + length]
            message = json.loads(body)
            if PAYLOAD in message:
                self._payload = Payload(message)
                del self._received[: self._payload.take(self._received)]
                self._hand_over_payload()
            else:
                self._on_message(self, message)

    def _hand_over_payload(self) -> None:
        payload = self._payload
        if payload and not payload.missing:
            self._payload = None
            self._on_message(self, payload.message | {PAYLOAD: payload.data})


class Payload:
    """The bytes that follow a message, as they come in."""

    def __init__(self, message: Message) -> None:
        size = message[PAYLOAD]
        if not 0 <= size <= MAX_PAYLOAD:
            raise ValueError(f"a payload of {size} bytes; at most {MAX_PAYLOAD} are taken")
        self.message = message
        self.data = bytearray(size)
        self.filled = 0

    @property
    def missing(self) -> memoryview:
        return memoryview(self.data)[self.filled :]

    def take(self, received: bytearray) -> int:
        """Takes what has come already of it; returns how much that is."""
        size = min(len(received), len(self.data))
        self.data[:size] = received[:size]
        self.filled = size
        return size
