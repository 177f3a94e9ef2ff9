"""Real servers for tests: started, killed and restarted as programs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import grpc
import psutil
from rexec.v1 import execution_service_pb2 as api
from rexec.v1 import execution_service_pb2_grpc as api_grpc

from tests.waiting import eventually

_LISTENS = re.compile(r"listens on (\S+?)[.,](?:\s|$)")
_GATEWAY = re.compile(r"The page and JSON are at (\S+):$")


class Server:
    """One `rexec-server --dev` with a state directory of its own, and the runner it starts."""

    def __init__(
        self,
        state_dir: Path,
        *flags: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.state_dir = state_dir
        self._flags = flags
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._prefix = prefix
        self._port = 0
        self._gateway_port = 0
        self._process: subprocess.Popen[str] | None = None
        self._channel: grpc.Channel | None = None
        self.target = ""
        self.gateway = ""
        self.caller = ""  # whose calls the stub makes, where a call does not say; empty: nobody's, so `dev`'s
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runner_pid(self) -> int:
        return int((self.state_dir / "runner.pid").read_text())

    @property
    def log(self) -> str:
        return (self.state_dir.parent / f"{self.state_dir.name}.server.log").read_text()

    @property
    def stub(self) -> api_grpc.ExecutionServiceStub:
        """A stub that reaches the server after each restart too."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.target, options=[("grpc.enable_http_proxy", 0)])
        return api_grpc.ExecutionServiceStub(grpc.intercept_channel(self._channel, _Named(self.caller)))

    def start(self) -> None:
        """Starts it, on the port that it had before, and waits until it says that it listens."""
        log = self.state_dir.parent / f"{self.state_dir.name}.server.log"
        listen = () if "--listen" in self._flags else ("--listen", f"127.0.0.1:{self._port}")
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [
                    *self._prefix, sys.executable, "-m", "rexec_server",
                    "--dev", *listen, "--state-dir", str(self.state_dir),
                    *self._gateway_flags(),
                ],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=self._env,
                cwd=self._cwd,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = _LISTENS.search(line)
        assert match, f"the server did not start: {line!r}\n{self.log}"
        self.target = match[1]
        if not self.target.startswith("unix:"):
            self._port = int(self.target.rpartition(":")[2])
        if "--gateway" in self._flags:
            self._find_gateway(self._process.stdout)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill_runner(self) -> None:
        """kill -9 of the runner; the server starts another when it needs one."""
        pid = self.runner_pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not _runs(pid))

    def shim_pid(self, exec_id: str) -> int:
        """The process that supervises an execution: the leader's parent."""
        execution = self.stub.Poll(api.PollRequest(exec_id=exec_id)).execution
        return psutil.Process(execution.pid).ppid()

    def spool_of(self, pid: int) -> Path:
        """The spool directory of the execution whose command has this pid."""
        for start in (self.state_dir / "spool").glob("*/start"):
            if f'"pid": {pid},' in start.read_text():
                return start.parent
        raise AssertionError(f"no execution has pid {pid}")

    def close(self) -> None:
        """Ends the server, the runner, the shims and whatever they left."""
        if self._channel is not None:
            self._channel.close()
        supervised = self._supervised()
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGTERM)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        supervised += self._supervised()
        for process in supervised:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Until they are zombies: init, who has got them by now, may take its time to reap.
        eventually(lambda: not any(_runs(process.pid) for process in supervised))

    def _gateway_flags(self) -> Sequence[str]:
        """The test's flags. Many servers run at once: none has a gateway unless it is asked for, on any free port."""
        if "--gateway" not in self._flags:
            return (*self._flags, "--no-gateway")
        if not self._gateway_port:
            return self._flags
        place = self._flags.index("--gateway") + 1
        return (*self._flags[:place], f"127.0.0.1:{self._gateway_port}", *self._flags[place + 1 :])

    def _find_gateway(self, greeting: IO[str]) -> None:
        """The URL of the gateway, on the port that it had before."""
        match = next(filter(None, map(_GATEWAY.match, greeting)))
        self.gateway = match[1]
        self._gateway_port = int(self.gateway.rpartition(":")[2])

    def _supervised(self) -> list[psutil.Process]:
        """The runner, shims and commands of this state directory, also those whose runner is dead."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if (
                    str(self.state_dir) in " ".join(process.cmdline())
                    and process.pid != os.getpid()
                    and process.pid != getattr(self._process, "pid", 0)
                ):
                    found += [process, *process.children(recursive=True)]
        return found

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


class _Named(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """Names a caller in each call that names none, so that tests can share a server and not an id."""

    def __init__(self, caller: str) -> None:
        self._caller = caller

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = list(details.metadata or ())
        if self._caller and not any(key == "authorization" for key, _ in metadata):
            metadata.append(("authorization", f"Bearer {self._caller}"))
        return continuation(details._replace(metadata=metadata), request)

    intercept_unary_unary = intercept_unary_stream = _intercept


def runner_command(state_dir: Path, *flags: str) -> Sequence[str]:
    return (sys.executable, "-m", "rexec_server.runner", "--state-dir", str(state_dir), *flags)


def _runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
