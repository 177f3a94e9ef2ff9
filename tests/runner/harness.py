"""A real `rexec-runner` alone, and the two socket protocols that it and its shims speak."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from rexec_server.core.launch import Launch
from rexec_server.core.log import LogReader, Missing
from rexec_server.core.spool import (
    CONTROL,
    RUNNER_SOCKET,
    SPOOL,
    Channel,
    ExitRecord,
    Reason,
    StartRecord,
    read_exit,
    read_start,
)
from rexec_server.runner.wire import Message
from tests.runner.channel import Channelled
from tests.waiting import eventually

# Every command of a runner carries it in its environment, so that also one that lost everybody is found and ended.
TAG = "REXEC_TEST_STATE"
CAP = 8 * 1024 * 1024


class Run:
    """One execution, seen through its spool and its control socket."""

    def __init__(self, directory: Path, answer: Message) -> None:
        self.directory = directory
        self.answer = answer
        self.reader = LogReader(str(directory))

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def start(self) -> StartRecord | None:
        return self._read(read_start)

    @property
    def exit(self) -> ExitRecord | None:
        return self._read(read_exit)

    @property
    def pid(self) -> int:
        return eventually(lambda: self.start).pid

    @property
    def shim_pid(self) -> int:
        return eventually(lambda: self.start).shim_pid

    @property
    def files(self) -> set[str]:
        return set(os.listdir(self.directory))

    def wait(self, within: float = 60.0) -> ExitRecord:
        return eventually(lambda: self.exit, within)

    def tell(self, op: str, **fields: Any) -> Message:
        """Asks whoever supervises it; when that one dies meanwhile, its successor."""
        return eventually(lambda: self._ask({"op": op, **fields}))

    def signal(self, number: int, group: bool = False) -> Message:
        return self.tell("signal", signal=number, group=group)

    def end(self, reason: Reason = Reason.CANCELLED, grace: float | None = 0.2) -> Message:
        return self.tell("end", reason=int(reason), grace=grace)

    def stdin(self, offset: int, data: bytes = b"", eof: bool = False, **fields: str) -> Message:
        return self.tell("stdin", offset=offset, data=base64.b64encode(data).decode(), eof=eof, **fields)

    @contextmanager
    def sending(self, request: Message) -> Iterator[Channelled]:
        """Sends a request without waiting for its answer; at the end the connection is closed."""
        with closing(Channelled(self.directory / CONTROL)) as channel:
            channel.send(request)
            yield channel

    def output(self, channel: Channel = Channel.STDOUT) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks() if chunk.channel == channel)

    def chunks(self) -> list[Any]:
        return [item for item in self.items() if not isinstance(item, Missing)]

    def items(self) -> Iterable[Any]:
        """All that is kept, and what is not."""
        record = self.exit
        end = record.stdout_bytes + record.stderr_bytes if record else None
        offset, found = 0, []
        while True:
            reading = self.reader.read(offset, 1 << 20, end=end)
            if not reading.items:
                return found
            found += reading.items
            offset = reading.next_offset

    def disk_bytes(self) -> int:
        total = 0
        for entry in os.scandir(self.directory):
            with suppress(FileNotFoundError):
                total += entry.stat().st_blocks * 512
        return total

    def kill_shim(self) -> None:
        """kill -9, unless it has ended."""
        pid = self.shim_pid
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _ask(self, request: Message) -> Message | None:
        with suppress(OSError), closing(Channelled(self.directory / CONTROL)) as channel:
            return channel.ask(request)
        return None

    def _read(self, read: Any) -> Any:
        try:
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            return read(directory)
        finally:
            os.close(directory)


class Client:
    """Asks a runner that is there already, as its server does."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._channel: Channelled | None = None

    @classmethod
    def of(cls, state_dir: Path) -> Client:
        client = cls(state_dir)
        client._channel = Channelled(state_dir / RUNNER_SOCKET)
        return client

    def disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def ask(self, op: str, **fields: Any) -> Message:
        assert self._channel is not None
        return self._channel.ask({"op": op, **fields})

    def run(self, *arguments: str, name: str = "", **fields: Any) -> Run:
        """Starts a command, and waits until its exec is decided."""
        request = self.request(*arguments, name=name, **fields)
        return Run(self.state_dir / SPOOL / request["id"], self.ask(**request))

    def send(self, *arguments: str, **fields: Any) -> Run:
        """Starts a command, and waits for nothing."""
        assert self._channel is not None
        request = self.request(*arguments, **fields)
        self._channel.send(request)
        return Run(self.state_dir / SPOOL / request["id"], {})

    def receive(self) -> Message:
        """Return the answer to what was sent."""
        assert self._channel is not None
        return self._channel.receive()

    def sh(self, script: str, **fields: Any) -> Run:
        return self.run("sh", "-c", script, **fields)

    def python(self, script: str, **fields: Any) -> Run:
        return self.run(sys.executable, "-c", script, **fields)

    def request(self, *arguments: str, name: str = "", **fields: Any) -> Message:
        environment = {"PATH": os.environ["PATH"], TAG: str(self.state_dir), **fields.pop("env", {})}
        settings = {"working_directory": "/", "output_bytes": CAP, **fields}
        launch = Launch(arguments=arguments, environment=environment, **settings)
        return {"op": "start", "id": name or uuid.uuid4().hex, "launch": launch.to_json()}

    def existing(self, name: str) -> Run:
        return Run(self.state_dir / SPOOL / name, {})


class Runner(Client):
    """One `rexec-runner` with a state directory of its own.

    dev: tests may look at it and its shims also when they are not root.
    """

    def __init__(
        self,
        state_dir: Path,
        *flags: str,
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
        dev: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(state_dir)
        self._command = [*prefix, python, "-m", "rexec_server.runner", "--state-dir", str(state_dir), *flags]
        self._command += ["--dev"] if dev else []
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.begin_process()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.state_dir.parent / "runner.log").read_text()

    def begin_process(self) -> None:
        """Starts the program and waits until it answers."""
        with (self.state_dir.parent / "runner.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=log, **self._options)
        self._channel = eventually(self._connect)

    def kill(self) -> None:
        """kill -9, and its funeral."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=60)
        self.disconnect()

    def restart(self) -> None:
        self.kill()
        self.begin_process()

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def zombies(self) -> list[int]:
        return [p.pid for p in psutil.Process(self.pid).children(recursive=True) if _status(p) == psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        """Ends the runner, the shims, and every command of theirs wherever it is."""
        self.kill()
        eventually(lambda: not self._kill_all(), within=60)

    def _kill_all(self) -> list[int]:
        found = [pid for pid in psutil.pids() if pid != os.getpid() and self._is_ours(pid)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def _is_ours(self, pid: int) -> bool:
        mark = re.escape(str(self.state_dir).encode()) + rb"(?![\w-])"
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                if re.search(mark, Path(f"/proc/{pid}/{name}").read_bytes()):
                    return pid not in (os.getpid(), os.getppid())
        return False

    def _connect(self) -> Channelled | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the runner ended: {self._process.returncode}\n{self.log}")
        with suppress(OSError):
            channel = Channelled(self.state_dir / RUNNER_SOCKET)
            if channel.ask({"op": "info"})["pid"]:
                return channel
        return None


def runs(pid: int) -> bool:
    """Whether the process is there, and not only its zombie."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _status(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return str(process.status())
    return ""
