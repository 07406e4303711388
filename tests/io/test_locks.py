"""One run for one output, beside IFSCube's lock files too."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import ExitStack

import pytest

from ifujax.errors import DataError, IfujaxWarning
from ifujax.io import locks
from ifujax.io.locks import OutputTakenError, lock_file, output_lock


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.fits"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_held_once_and_released(output):
    for _ in range(2):
        with output_lock(output) as held:
            assert held
            message = f"process {os.getpid()} on {socket.gethostname()} since 20"
            with pytest.raises(OutputTakenError, match=message), output_lock(output):
                pass
            with output_lock(output.with_name("other.fits")):
                pass
    assert names(output.parent) == []


def test_a_file_left_behind_locks_nobody_out(output):
    output.with_name(".out.fits.lock").write_text('{"program": "ifujax", "bro')
    with output_lock(output) as held:
        assert held
        assert json.loads(output.with_name(".out.fits.lock").read_text())["pid"] == os.getpid()
    assert names(output.parent) == []


def test_a_holder_that_has_not_said_who_it_is(output):
    with output_lock(output):
        output.with_name(".out.fits.lock").write_text("")
        with pytest.raises(OutputTakenError, match=r"another run\. Wait"), output_lock(output):
            pass


def test_a_lock_on_a_file_that_was_just_removed_does_not_count(output, monkeypatch):
    # The run before removes its file after this one has opened it: then it must open the new one.
    path = output.with_name(".out.fits.lock")
    lock, opened = locks._lock, []

    def late(descriptor):
        opened.append(os.fstat(descriptor).st_ino)
        if len(opened) == 1:
            path.rename(path.with_name("gone"))
        return lock(descriptor)

    monkeypatch.setattr(locks, "_lock", late)
    with output_lock(output):
        assert len(opened) == 2
        assert path.stat().st_ino == opened[-1]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_systems_without_locks_are_told_of(output, monkeypatch, code):
    def missing(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", missing)

    def hold():
        with output_lock(output) as held:
            assert not held
            assert names(output.parent) == []

    with pytest.warns(IfujaxWarning, match="has no file locks"):
        hold()


def test_a_lock_that_fails_for_another_reason(output, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(DataError, match="could not be written"), output_lock(output):
        pass


def test_lock_files_are_there_while_a_run_works(output):
    path = output.with_name("out.fits.lock")
    with pytest.raises(KeyboardInterrupt), lock_file(output, held=True):
        assert path.is_file()
        raise KeyboardInterrupt
    assert names(output.parent) == []


def test_lock_files_of_ifscube_are_respected(output):
    path = output.with_name("out.fits.lock")
    path.write_text("This one is taken.\n")
    with pytest.raises(OutputTakenError, match=r"out\.fits\.lock is there"), lock_file(output, held=True):
        pass
    assert path.read_text() == "This one is taken.\n"


@pytest.mark.parametrize(("held", "host", "taken"), [(True, None, False), (False, None, True), (True, "elsewhere", True)])
def test_lock_files_of_dead_runs(output, held, host, taken):
    path = output.with_name("out.fits.lock")
    holder = {"program": "ifujax", "pid": 1, "host": host or socket.gethostname(), "since": "2026-01-01 " + "x" * 50}
    path.write_text(json.dumps(holder))
    if taken:
        with pytest.raises(OutputTakenError, match="process 1 on"), lock_file(output, held):
            pass
        assert path.exists()
    else:
        with lock_file(output, held):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert not path.exists()


def test_a_lock_file_where_nothing_can_be_written(tmp_path):
    with pytest.raises(DataError, match="could not be written"), lock_file(tmp_path / "absent" / "out.fits", held=True):
        pass


def test_a_folder_is_held_by_a_file_in_it(tmp_path):
    folder = tmp_path / "spectra"
    folder.mkdir()
    with output_lock(folder):
        assert (names(folder), names(tmp_path)) == ([".ifujax.lock"], ["spectra"])
        with pytest.raises(OutputTakenError, match="spectra is being written by another run"), output_lock(folder):
            pass
    assert names(folder) == []


def test_room_for_many_locks(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        locks.allow_open_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 100
        with ExitStack() as stack:
            for i in range(100):
                stack.enter_context(output_lock(tmp_path / f"{i}.fits"))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        locks.allow_open_files(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
