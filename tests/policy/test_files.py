"""Files and directories that others could change decide nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rexec_server.policy.files import PolicyError, check_socket_directory, read_private, read_trusted

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
Read = Callable[[str], bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"words")
    return path


@pytest.mark.parametrize(
    ("read", "mode"),
    [(read_trusted, 0o600), (read_trusted, 0o644), (read_trusted, 0o400), (read_private, 0o600), (read_private, 0o400)],
)
def test_what_only_we_can_change_is_read(path: Path, read: Read, mode: int) -> None:
    """Others may read what is no secret."""
    path.chmod(mode)
    assert read(str(path)) == b"words"


@pytest.mark.parametrize(
    ("read", "mode", "how"),
    [
        (read_trusted, 0o620, "written"),
        (read_trusted, 0o602, "written"),
        (read_trusted, 0o666, "written"),
        (read_private, 0o644, "read"),
        (read_private, 0o620, "read"),
        (read_private, 0o604, "read"),
        (read_private, 0o610, "read"),
    ],
)
def test_what_others_can_change_or_read_is_not(path: Path, read: Read, mode: int, how: str) -> None:
    """The refusal says what is wrong with the file, and how to put it right."""
    path.chmod(mode)
    with pytest.raises(PolicyError, match=rf"{path} can be {how} by others \(mode {mode:04o}\); chmod go= {path}"):
        read(str(path))


@ROOT_ONLY
@pytest.mark.parametrize("read", [read_trusted, read_private])
def test_another_users_file_is_not_read(path: Path, read: Read) -> None:
    """Whoever owns a file can change it whenever they like."""
    os.chown(path, 12345, -1)
    path.chmod(0o400)
    with pytest.raises(PolicyError, match=r"belongs to uid 12345; it must be ours \(uid 0\) or root's"):
        read(str(path))


@ROOT_ONLY
def test_our_group_may_read_what_is_roots(path: Path) -> None:
    """So a server that is not root has keys that it cannot change; another group may not."""
    path.chmod(0o640)
    os.chown(path, 0, os.getegid())
    assert read_private(str(path)) == b"words"
    os.chown(path, 0, 12345)
    with pytest.raises(PolicyError, match="read by others"):
        read_private(str(path))


@pytest.mark.parametrize("read", [read_trusted, read_private])
@pytest.mark.parametrize("kind", ["missing", "directory", "device"])
def test_what_is_no_file_is_said_to_be_none(tmp_path: Path, read: Read, kind: str) -> None:
    """One line, with the path and the reason."""
    path = {"missing": str(tmp_path / "nothing"), "directory": str(tmp_path), "device": "/dev/null"}[kind]
    with pytest.raises(PolicyError) as caught:
        read(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_t_cf_03_a_directory_of_our_own_is_fine(tmp_path: Path) -> None:
    """T-CF-03: below /tmp as well, as long as the directory itself is ours alone to write."""
    directory = tmp_path / "run"
    directory.mkdir()
    for mode in (0o700, 0o750, 0o755):
        directory.chmod(mode)
        check_socket_directory(str(directory / "rexec.sock"))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_t_cf_03_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """T-CF-03: whoever writes there can put a socket of their own in the place of ours; a sticky bit is not enough."""
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(PolicyError, match=f"others can write in {directory}; chmod go-w {directory}"):
        check_socket_directory(str(directory / "rexec.sock"))


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """A directory of our own, two directories below one that is only above."""
    directory = tmp_path / "above" / "between" / "run"
    directory.mkdir(parents=True)
    for path in (directory, directory.parent, directory.parent.parent):
        path.chmod(0o755)
    return directory


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o720])
def test_t_cf_03_a_directory_that_can_be_moved_away_is_refused(nested: Path, mode: int) -> None:
    """T-CF-03: everybody who may rename the directory, or one above it, can put another in its place."""
    check_socket_directory(str(nested / "rexec.sock"))
    above = nested.parent.parent
    above.chmod(mode)
    with pytest.raises(PolicyError, match=f"others can write in {above}; chmod go-w {above}"):
        check_socket_directory(str(nested / "rexec.sock"))


@ROOT_ONLY
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_t_cf_03_a_directory_above_belongs_to_us_or_root(nested: Path, mode: int) -> None:
    """T-CF-03: the owner of a directory may rename what is in it, sticky or not; in root's sticky ones nobody else."""
    above = nested.parent.parent
    above.chmod(mode)
    check_socket_directory(str(nested / "rexec.sock"))
    os.chown(above, 12345, -1)
    with pytest.raises(PolicyError, match=f"{above} belongs to uid 12345; it must be ours or root's"):
        check_socket_directory(str(nested / "rexec.sock"))


def test_t_cf_03_a_link_hides_nothing(tmp_path: Path) -> None:
    """T-CF-03: what counts is the directory where the socket really is."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    real.chmod(0o777)
    link.symlink_to(real)
    with pytest.raises(PolicyError, match=f"others can write in {real}"):
        check_socket_directory(str(link / "rexec.sock"))


@ROOT_ONLY
def test_t_cf_03_another_users_directory_is_refused(tmp_path: Path) -> None:
    """T-CF-03: its owner can do there what they like."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o755)
    os.chown(directory, 12345, -1)
    with pytest.raises(PolicyError, match="belongs to uid 12345"):
        check_socket_directory(str(directory / "rexec.sock"))


def test_t_cf_03_a_missing_directory_is_said_to_be_missing(tmp_path: Path) -> None:
    """T-CF-03: nobody has to guess which part of the path is wrong."""
    with pytest.raises(PolicyError, match=f"{tmp_path / 'no'}: No such file or directory"):
        check_socket_directory(str(tmp_path / "no" / "rexec.sock"))
