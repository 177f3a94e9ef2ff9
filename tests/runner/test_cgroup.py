"""Limits of a cgroup: what is written where. In plain directories, as not every machine delegates real controllers."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rexec_server.core.launch import Confinement, Limits
from rexec_server.core.spool import Reason
from rexec_server.engines.local import LocalEngine
from rexec_server.runner.cgroup import Cgroup, Delegation
from tests.runner.harness import Runner
from tests.runner.users import PYTHON


class Tree:
    """A delegated cgroup as the kernel would show it; what is written to its files stays there to be read."""

    def __init__(self, path: Path, controllers: str = "cpuset cpu io memory pids", root: bool = False) -> None:
        self.path = path
        self._add(
            path, "cgroup.controllers", "cgroup.subtree_control", "cgroup.procs", *(() if root else ["cgroup.type"])
        )
        self._add(path / "rexec", "cgroup.subtree_control", "cgroup.procs", "cgroup.kill")
        self._add(path / "rexec-runner", "cgroup.procs")
        (path / "cgroup.controllers").write_text(controllers)

    def execution(self, *files: str) -> Cgroup:
        """An execution's cgroup with such limits."""
        self._add(self.path / "rexec" / "x", "cgroup.procs", *files)
        return Cgroup(str(self.path / "rexec" / "x"))

    def limit(self, name: str) -> str:
        return (self.path / "rexec" / "x" / name).read_text()

    @staticmethod
    def _add(directory: Path, *names: str) -> None:
        directory.mkdir(exist_ok=True)
        for name in names:
            (directory / name).touch()


@pytest.mark.parametrize("start", ["", "rexec-runner"], ids=["first start", "started in the leaf"])
def test_controllers_are_passed_down(tmp_path: Path, start: str) -> None:
    """The runner goes into a leaf, since only a cgroup without processes of its own may pass controllers down."""
    tree = Tree(tmp_path / "unit")
    delegation = Delegation.take(os.path.normpath(f"{tree.path}/{start}"))
    assert delegation == (f"{tree.path}/rexec", ("memory", "pids", "cpu"))
    assert (tree.path / "rexec-runner" / "cgroup.procs").read_text() == ("" if start else "0")
    for directory in (tree.path, tree.path / "rexec"):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_the_root_needs_no_leaf(tmp_path: Path) -> None:
    """The rule does not hold for the root, and a container's first process cannot be moved out of it."""
    tree = Tree(tmp_path / "root", controllers="pids", root=True)
    assert Delegation.take(str(tree.path)) == (f"{tree.path}/rexec", ("pids",))
    assert (tree.path / "rexec-runner" / "cgroup.procs").read_text() == ""


def test_a_service_of_an_old_systemd_can_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DelegateSubgroup= it is started in the cgroup itself, which must then keep its controllers to itself."""
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    tree = Tree(tmp_path)
    assert Delegation.take(str(tree.path)) == (f"{tree.path}/rexec", ())
    assert (tree.path / "cgroup.subtree_control").read_text() == ""
    subgroup = tree.path / "rexec-runner"
    assert Delegation.take(str(subgroup)) == (f"{tree.path}/rexec", ("memory", "pids", "cpu"))


def test_controllers_that_cannot_be_passed_down_are_none(tmp_path: Path) -> None:
    """Lists and kills work without any; limits that are declared then fail, and do not hold by half."""
    tree = Tree(tmp_path / "unit")
    (tree.path / "rexec" / "cgroup.subtree_control").unlink()
    assert Delegation.take(str(tree.path)) == (f"{tree.path}/rexec", ())
    assert Delegation.take(str(Tree(tmp_path / "none", controllers="io").path)) == (f"{tmp_path}/none/rexec", ())


def test_what_is_no_cgroup_is_not_taken(tmp_path: Path) -> None:
    """Without cgroup.kill (Linux 5.14) there is nothing to gain."""
    assert Delegation.take(str(tmp_path)) is None


def test_declared_limits_are_set(tmp_path: Path) -> None:
    """Memory without a way into swap, for all of it or none; processes; processor time per tenth of a second."""
    tree = Tree(tmp_path / "unit")
    names = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max")
    cgroup = tree.execution(*names)
    cgroup.limit(Limits(), Confinement(memory_bytes=1 << 30, processes=20, cpus=0.5))
    assert [tree.limit(name) for name in names] == ["1073741824", "0", "1", "20", "50000 100000"]


def test_the_lower_limit_holds(tmp_path: Path) -> None:
    """A request may ask for less than its rule gives, and never gets more."""
    tree = Tree(tmp_path / "unit")
    cgroup = tree.execution("memory.max", "pids.max")
    confinement = Confinement(memory_bytes=1000, processes=20)
    cgroup.limit(Limits(memory_bytes=500, processes=0), confinement)
    assert (tree.limit("memory.max"), tree.limit("pids.max")) == ("500", "20")
    second = Tree(tmp_path / "second")
    second.execution("memory.max", "pids.max").limit(Limits(memory_bytes=5000, processes=5), confinement)
    assert (second.limit("memory.max"), second.limit("pids.max")) == ("1000", "5")


def test_undeclared_limits_are_set_where_they_can_be(tmp_path: Path) -> None:
    """What a request limits, rlimits hold in any case."""
    tree = Tree(tmp_path / "unit")
    tree.execution("pids.max").limit(Limits(memory_bytes=1, processes=7), Confinement())
    assert tree.limit("pids.max") == "7"


@pytest.mark.parametrize("confinement", [Confinement(memory_bytes=1), Confinement(processes=1), Confinement(cpus=1.5)])
def test_t_cn_10_a_declared_limit_without_its_controller(tmp_path: Path, confinement: Confinement) -> None:
    """It is an error that names the limit."""
    tree = Tree(tmp_path / "unit")
    with pytest.raises(OSError, match=r"its cgroup's (memory|pids|cpu).max cannot be set to ") as raised:
        tree.execution().limit(Limits(), confinement)
    assert raised.value.errno == errno.ENOENT


def test_entering_fails_only_where_it_matters(tmp_path: Path) -> None:
    """A command that is not in its cgroup has none of its limits; without limits the walk over the tree finds it."""
    cgroup = Cgroup(str(tmp_path / "gone"))
    cgroup.enter(strict=False)
    with pytest.raises(FileNotFoundError):
        cgroup.enter(strict=True)


def test_features_say_what_the_runner_can_do(start_runner: Callable[..., Runner]) -> None:
    """What a policy requires is looked up in the names that the engine tells."""
    runner = start_runner()
    info = runner.ask("info")
    features = asyncio.run(ask_features(runner))
    assert ("run_as" in features) == (info["uid"] == os.geteuid() == 0)
    assert ("cgroup" in features) == info["cgroup"]
    assert [name for name in features if "." in name] == [f"cgroup.{name}" for name in info["controllers"]]


async def ask_features(runner: Runner) -> list[str]:
    engine = LocalEngine(str(runner.state_dir), None, "0")
    await engine.ready()
    features = engine.features()
    await engine.close()
    return features


def test_t_cn_05_a_real_cgroup_holds_memory(start_runner: Callable[..., Runner]) -> None:
    """Where the memory controller is delegated, its limit is for all processes together, and the end says so."""
    runner = start_runner()
    if "memory" not in runner.ask("info")["controllers"]:
        pytest.skip("no memory controller of cgroup v2 is delegated to us")
    run = runner.run(PYTHON, "-c", "x = b'x' * (256 << 20)", confinement=Confinement(memory_bytes=64 << 20))
    assert run.wait().reason == Reason.OUT_OF_MEMORY


def test_what_is_no_cgroup_gives_birth_to_nothing(tmp_path: Path) -> None:
    """Where the kernel makes no process in a cgroup, or there is none any more, the ordinary way is taken instead."""
    assert Cgroup(str(tmp_path)).fork() is None
    assert Cgroup(str(tmp_path / "gone")).fork() is None


def test_a_command_is_in_its_cgroup(start_runner: Callable[..., Runner]) -> None:
    """From its birth on, whichever way it got there."""
    runner = start_runner()
    if not runner.ask("info")["cgroup"]:
        pytest.skip("no cgroup v2 is delegated to us")
    run = runner.run("cat", "/proc/self/cgroup")
    assert run.wait().exit_code == 0
    assert f"/rexec/{run.name}\n".encode() in run.output()
