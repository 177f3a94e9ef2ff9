"""rexec's own server, as a program, with its defaults but for how many may run; and what calls it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc
from rexec.v1.execution_pb2 import Execution

from bench.lab import end
from bench.verify import Wrong
from rexec_client import Client

_LISTENS = re.compile(r"listens on (\S+?)[.,](?:\s|$)")
_GATEWAY = re.compile(r"The page and JSON are at (\S+?):?$")
# As a client in any language would make it: no options but that loopback needs no proxy.
CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


class RexecServer:
    """`rexec-server --dev`: everything is kept and synced as in production; without TLS and rules."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.state_dir = directory / "state"
        self.target = self.gateway = ""
        self._log = directory / "log"
        self._flags = flags
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runner_pid(self) -> int:
        return int((self.state_dir / "runner.pid").read_text())

    @property
    def gateway_port(self) -> int:
        return int(self.gateway.rpartition(":")[2])

    def start(self) -> None:
        """Starts it and waits until it says that it listens, and where."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "rexec_server", "--dev", "--state-dir", str(self.state_dir),
                    "--listen", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--max-running", "2000",
                    "--keep-bytes", "100G", "--keep-count", "1000000", *self._flags,
                ],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_listens(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := _LISTENS.search(line):
                self.target = match[1]
            if match := _GATEWAY.search(line.strip()):
                self.gateway = match[1]
            if self.target and (self.gateway or "--no-gateway" in self._flags):
                return
        raise Wrong(f"the server did not start: {self._log.read_text()[-300:]}")

    def stop(self) -> None:
        """The server; its runner, and what runs, go on."""
        end(self._process)

    def close(self) -> None:
        self.stop()
        try:
            runner = psutil.Process(self.runner_pid)
        except (OSError, psutil.NoSuchProcess):
            return  # there is none, where nothing was ever run
        ours = [*runner.children(recursive=True), runner]
        for process in ours:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass  # it went by itself
        psutil.wait_procs(ours, timeout=20)


@contextmanager
def client(server: RexecServer) -> Iterator[Client]:
    with Client(server.target) as opened:
        yield opened


@contextmanager
def stub(server: RexecServer) -> Iterator[api_grpc.ExecutionServiceStub]:
    with grpc.insecure_channel(server.target, options=CHANNEL_OPTIONS) as channel:
        yield api_grpc.ExecutionServiceStub(channel)


def run_raw(stub: api_grpc.ExecutionServiceStub, arguments: Sequence[str]) -> tuple[int, bytes]:
    """Runs a command that is over soon with one call: the exit code, and the output."""
    request = api.ExecRequest(arguments=arguments)
    request.wait.FromSeconds(10)
    reply = stub.Exec(request, timeout=30)
    if not reply.eof:
        raise Wrong("it had not ended after 10 s")
    return exit_code(reply.execution), b"".join(chunk.data for chunk in reply.chunks)


def exit_code(execution: Execution) -> int:
    """Wrong when it was not an exit code that ended it."""
    if execution.WhichOneof("exit_status") != "exit_code":
        raise Wrong(f"it did not exit: {execution}")
    return execution.exit_code


def cli(target: str, *arguments: str) -> list[str]:
    """The `rexec` command beside this interpreter."""
    return [str(Path(sys.executable).parent / "rexec"), "--target", target, *arguments]
