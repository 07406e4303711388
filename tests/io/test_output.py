"""Products are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from ifujax.errors import DataError, UsageError
from ifujax.io.output import atomic_path, check_output


def write(path: Path, text: str, failure: BaseException | None = None, overwrite: bool = False) -> None:
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text)
        if failure is not None:
            raise failure


def test_written_then_renamed(tmp_path):
    target = tmp_path / "out.fits.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".fits.gz")
        assert not temporary.exists()
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, UsageError])
def test_failure_leaves_nothing_and_keeps_the_old_file(tmp_path, failure):
    target = tmp_path / "out.fits"
    target.write_text("old")
    with pytest.raises(failure):
        write(target, "half", failure("stop"), overwrite=True)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_existing_file_needs_overwrite(tmp_path):
    target = tmp_path / "out.fits"
    target.write_text("old")
    with pytest.raises(UsageError, match="--overwrite"):
        write(target, "new")
    assert target.read_text() == "old"
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "out.fits"

    def race() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(UsageError, match="must not exist"):
        race()
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_unusable_places(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="Create"):
        check_output(tmp_path / "absent" / "out.fits")
    with pytest.raises(UsageError, match="folder"):
        check_output(tmp_path)
    with pytest.raises(UsageError, match="device"):
        check_output("/dev/null", overwrite=True)
    # The tests may run as root, whom no mode stops.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match="no permission"):
        check_output(tmp_path / "out.fits")


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.fits", tmp_path / "link.fits"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_path(link, overwrite=True) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "full disk"), (errno.EDQUOT, "full disk"), (errno.EROFS, "no permission"), (errno.EIO, "could not")],
)
def test_system_errors_become_one_line(tmp_path, code, message):
    with pytest.raises(DataError, match=message) as caught:
        write(tmp_path / "out.fits", "half", OSError(code, os.strerror(code)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_while_writing_fits(tmp_path):

    def fill() -> None:
        with atomic_path(tmp_path / "out.fits") as temporary:
            temporary.symlink_to("/dev/full")
            with open(temporary, "wb", buffering=0) as stream:
                fits.PrimaryHDU(np.zeros(100)).writeto(stream)

    with pytest.raises(DataError, match="full disk"):
        fill()
    assert not list(tmp_path.iterdir())


def test_number_hidden_in_the_cause(tmp_path):
    # astropy raises an OSError of its own, without the number, from the system's.
    hidden = OSError("Not enough space on disk")
    hidden.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DataError, match="full disk"):
        write(tmp_path / "out.fits", "half", hidden)
