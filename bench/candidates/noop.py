"""A gRPC server whose one call does nothing: what the machine, grpcio and an event loop cost at this moment.

`python -m bench.candidates.noop` says on which port it listens. The call is `/bench.Noop/Call`, from and to bytes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc

from bench.lab import end
from bench.verify import Wrong

METHOD = "/bench.Noop/Call"


class NoopServer:
    """The program, as a service of the lab."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.candidates.noop"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise Wrong("the no-op server did not start")
        self.target = f"127.0.0.1:{port}"

    def close(self) -> None:
        end(self._process)


async def _call(request: bytes, context: object) -> bytes:
    return request


async def main() -> None:
    server = grpc.aio.server()
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(_call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Noop", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
