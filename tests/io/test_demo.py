"""Where the demonstration's cube comes from; the network is not needed here."""

import hashlib
import subprocess
import zipfile

import pytest

from ifujax.errors import DataError, UsageError
from ifujax.io import demo


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """A pip that delivers a small wheel, and hashes that go with it."""
    content = b"SIMPLE  =                    T"
    wheel = tmp_path / "mpdaf-3.6-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(demo.MEMBER, content)
    calls = []

    def run(command, **_):
        calls.append(command)
        folder = command[command.index("--dest") + 1]
        (demo.Path(folder) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(demo.subprocess, "run", run)
    monkeypatch.setattr(demo, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(demo, "CUBE_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv(demo.DATA_DIR_VARIABLE, str(tmp_path / "data"))
    return calls


def test_fetched_once(fake_pip):
    stages = []
    path = demo.minicube_path(lambda *stage: stages.append(stage))
    assert path.read_bytes().startswith(b"SIMPLE")
    assert stages == [("download", 0, 1), ("download", 1, 1)]
    assert demo.minicube_path() == path
    assert len(fake_pip) == 1
    assert "--only-binary=:all:" in fake_pip[0]


def test_damaged_file_is_fetched_again(fake_pip):
    path = demo.minicube_path()
    path.write_bytes(b"damaged")
    assert demo.minicube_path().read_bytes().startswith(b"SIMPLE")
    assert len(fake_pip) == 2


def test_a_link_to_another_file_is_not_written_through(fake_pip, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "precious").write_bytes(b"theirs")
    (tmp_path / "data" / "minicube.fits").symlink_to(tmp_path / "precious")
    with pytest.raises(DataError, match="is a link to something else"):
        demo.minicube_path()
    assert (tmp_path / "precious").read_bytes() == b"theirs"
    assert fake_pip == []


@pytest.mark.parametrize("which", ["WHEEL_SHA256", "CUBE_SHA256"])
def test_changed_file_is_refused(fake_pip, monkeypatch, tmp_path, which):
    monkeypatch.setattr(demo, which, "0" * 64)
    with pytest.raises(DataError, match="SHA-256"):
        demo.minicube_path()
    assert list((tmp_path / "data").iterdir()) == []


def test_no_network(monkeypatch, tmp_path):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(demo.subprocess, "run", run)
    monkeypatch.setenv(demo.DATA_DIR_VARIABLE, str(tmp_path / "data"))
    with pytest.raises(DataError, match="Check the network") as caught:
        demo.minicube_path()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_one_wheel_brings_all(tmp_path, monkeypatch):
    """Each file is there after any was asked for; a wrong one isn't kept."""
    contents = {name: name.encode() for name in demo._members()}
    wheel = tmp_path / "mpdaf-3.6-any.whl"
    members = {name: demo._Member(f"mpdaf/{name}", hashlib.sha256(content).hexdigest()) for name, content in contents.items()}
    members["HST-HDFS.fits"] = demo._Member("mpdaf/HST-HDFS.fits", "0" * 64)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"mpdaf/{name}", content)
    asked = []
    monkeypatch.setattr(demo, "_members", lambda: members)
    monkeypatch.setattr(demo, "_download", lambda folder, name: asked.append(name) or wheel)
    monkeypatch.setattr(demo, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setenv(demo.DATA_DIR_VARIABLE, str(tmp_path / "data"))
    assert demo.a478_hst_path().read_bytes() == b"a478hst-cutout.fits"
    assert demo.minicube_path().read_bytes() == b"minicube.fits"
    assert asked == ["a478hst-cutout.fits"]
    with pytest.raises(DataError, match=r"HST-HDFS\.fits must have the SHA-256"):
        demo.hdfs_paths()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "IMAGE-HDFS-1.34.fits",
        "a478hst-cutout.fits",
        "minicube.fits",
    ]
    with pytest.raises(UsageError, match="unknown demonstration file 'minicub.fits'. Did you mean 'minicube.fits'"):
        demo.demo_file("minicub.fits")
