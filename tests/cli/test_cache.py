"""The cache of compiled programs: trusted only where nobody else can write, and capped."""

import os

import pytest

from ifujax.cli.cache import compilation_cache, prune
from ifujax.errors import IfujaxWarning


def test_made_for_the_user_alone(tmp_path):
    folder = compilation_cache(tmp_path / "ifujax")
    assert folder is not None
    assert folder.name.startswith("jax-")
    for each in (folder, folder.parent):
        assert each.stat().st_mode & 0o777 == 0o700
    assert compilation_cache(tmp_path / "ifujax") == folder


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_refused_where_others_can_write(tmp_path, mode):
    folder = compilation_cache(tmp_path / "ifujax")
    assert folder is not None
    folder.chmod(mode)
    with pytest.warns(IfujaxWarning, match="can be written to by others"):
        assert compilation_cache(tmp_path / "ifujax") is None


def test_refused_where_it_is_a_link(tmp_path):
    folder = compilation_cache(tmp_path / "ifujax")
    assert folder is not None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.warns(IfujaxWarning, match="is a link"):
        assert compilation_cache(tmp_path / "ifujax") is None


def test_refused_where_it_belongs_to_another(tmp_path, monkeypatch):
    compilation_cache(tmp_path / "ifujax")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.warns(IfujaxWarning, match="another user"):
        assert compilation_cache(tmp_path / "ifujax") is None


def test_does_without_where_it_cannot_be_made(tmp_path):
    (tmp_path / "ifujax").write_text("a file")
    with pytest.warns(IfujaxWarning, match="no compilation cache"):
        assert compilation_cache(tmp_path / "ifujax") is None


def test_oldest_go_first(tmp_path):
    folder = tmp_path / "jax-0"
    folder.mkdir()
    for age, name in enumerate(["new", "middle", "old"]):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    prune(tmp_path, 250)
    assert sorted(path.name for path in folder.iterdir()) == ["middle", "new"]
    prune(tmp_path, 250)
    assert len(list(folder.iterdir())) == 2


def test_links_are_not_pruned(tmp_path):
    theirs, cache = tmp_path / "theirs", tmp_path / "cache"
    for folder in (theirs, cache):
        folder.mkdir()
        (folder / "precious").write_bytes(bytes(100))
    (cache / "jax-0").symlink_to(theirs)
    prune(cache, 0)
    assert (theirs / "precious").exists()
