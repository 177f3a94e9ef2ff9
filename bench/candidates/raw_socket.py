"""Writes a file to whoever connects, as fast as one loop can: `python -m bench.candidates.raw_socket PORT FILE`."""

from __future__ import annotations

import socket
import sys

PIECE = 256 * 1024


def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, open(path, "rb", buffering=0) as file:
                try:
                    while piece := file.read(PIECE):
                        connection.sendall(piece)
                except ConnectionError:
                    pass  # somebody only looked whether we are there


if __name__ == "__main__":
    main()
