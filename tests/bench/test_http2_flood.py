"""The header flood of the benchmarks says what a server did with it, and floods no other machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from bench.http2_flood import CONTINUATION, HEADERS, PREFACE, SETTINGS, Flood, frame


class Listening:
    """Takes one connection, counts its frames, and closes it after so many."""

    def __init__(self, most: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._most = most
        self.kinds: list[int] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as file:
            connection.sendall(frame(SETTINGS, 0, 0))
            assert file.read(len(PREFACE)) == PREFACE
            while len(self.kinds) < self._most and len(head := file.read(9)) == 9:
                file.read(int.from_bytes(head[:3]))
                self.kinds.append(head[3])

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    server = Listening(request.param)
    yield server
    server.close()


@pytest.mark.parametrize("listening", [3], indirect=True)
def test_a_server_that_hangs_up(listening: Listening) -> None:
    """A connection that the server closes counts as closed, whatever was still to be sent."""
    result = Flood(listening.address, frames=50, seconds=60).run()
    assert (result.disconnected, result.connections) == (1, 1)
    assert listening.kinds == [SETTINGS, HEADERS, HEADERS]


@pytest.mark.parametrize("listening", [100], indirect=True)
def test_a_server_that_takes_everything(listening: Listening) -> None:
    """It ends by itself, after the frames that it was told to send; a long block is continued in further frames."""
    result = Flood(listening.address, frames=2, references=40_000, settle="first", linger=False).run()
    assert (result.frames, result.disconnected, result.errors) == (2, 0, [])
    listening.close()
    assert listening.kinds == [SETTINGS, SETTINGS, *[HEADERS, CONTINUATION, CONTINUATION] * 2]


def test_only_this_machine() -> None:
    """Another machine's address is refused before anything is sent."""
    with pytest.raises(ValueError, match="is not this machine"):
        Flood(("192.0.2.1", 50051)).run()
