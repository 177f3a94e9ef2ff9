"""Programs that trace each other, or have themselves traced: each ends a script of Python that a test completes."""

from __future__ import annotations

from pathlib import Path

# `traced()` makes its parent the tracer of the calling thread, `trace(pid)` makes the caller another's; `end_thread()`
# ends the calling thread alone, and `orphan(f)` calls f in a process that has lost its parent.
_PRELUDE = """
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
say = lambda text: os.write(1, text.encode() + b'\\n')
libc.prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # where Yama restricts it: any may trace us
def traced():
    if libc.ptrace(0, 0, None, None): say('refused')
def trace(pid, options=0):
    if libc.ptrace(0x4206, pid, None, options): say('refused')
def thread(target):
    threading.Thread(target=target, daemon=True).start()
def end_thread():
    libc.syscall({'x86_64': 60, 'aarch64': 93, 'riscv64': 93}[os.uname().machine], 0)
def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
def orphan(target):
    if (pid := os.fork()) == 0:
        between = os.getpid()
        if os.fork() == 0:
            while os.getppid() == between: time.sleep(0.001)
            target()
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
"""
# Ways in which a command comes to be stopped, or not to look alive; each runs for ever by itself.
FOREVER = {
    "exec": "traced(); os.execvp('sleep', ['sleep', '300'])",
    "stop": "traced(); stop(); time.sleep(300)",
    "thread": "thread(lambda: (traced(), say('up'), time.sleep(300))); time.sleep(300)",
    "stopped thread": "thread(lambda: (traced(), signal.pthread_kill(threading.get_ident(), 19))); time.sleep(300)",
    "first thread ended": "thread(lambda: time.sleep(300)); end_thread()",
    "its child traces it": "own = os.getpid()\nif os.fork() == 0: trace(own); say('up')\ntime.sleep(300)",
    "its child keeps its exit": "own = os.getpid()\nif os.fork() == 0: trace(own, 0x40); say('up')\ntime.sleep(300)",
}


def program(script: str) -> str:
    """Return a whole program: Python's own first lines, and then a test's."""
    return f"{_PRELUDE}\n{script}"


def state(pid: int) -> str:
    """Return the letter of a process's state (proc(5)): R, S, T stopped, t stopped for its tracer, Z ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
