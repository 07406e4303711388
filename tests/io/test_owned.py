"""Links, files of others and files that others could have changed: nothing of them is read, cut short or removed."""

from __future__ import annotations

import json
import os
import stat
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ifujax.errors import DataError, IfujaxWarning
from ifujax.io.checkpoint import ChunkStore, chunk_folder, left_by_killed_run
from ifujax.io.locks import OutputTakenError, lock_file, output_lock
from ifujax.io.output import atomic_path, remove_partial
from ifujax.io.own_folder import OwnFolder
from ifujax.io.owned import NotOursError, open_regular, remove_own
from ifujax.io.streamed import LargeImage, append_large

IDENTITY = {"input": "cube.fits"}
SOMEBODY = 54321
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def output(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "out.fits"


@pytest.fixture
def theirs(tmp_path):
    """Somebody's folder: some files even have names that a run gives."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    for name in ("thesis.tex", "identity.json", "fit-000000.npz", ".partial-0123456789ab-out.fits"):
        (folder / name).write_text("precious")
    return folder


def keep(output, count=2, identity=IDENTITY):
    with ChunkStore.open(output, identity) as store:
        for i in range(count):
            store.put(f"fit-{i:06d}", {"flux": np.full(3, float(i))})
    return store.folder


def tree(folder: Path) -> dict[str, object]:
    """Everything about everything in a folder, links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else os.readlink(path) if path.is_symlink() else None
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_uid, facts.st_mtime_ns, facts.st_ino, content)
    return found


def refused(output, match, *, resume=True, identity=IDENTITY):
    """A run is refused in one line; nothing is another than before."""
    # What is removed at once leaves the time of the folder changed, so that is left out.
    root = output.parent.parent
    before = {name: facts for name, facts in tree(root).items() if name != output.parent.name}
    with pytest.raises(NotOursError, match=match) as caught, ChunkStore.open(output, identity, resume=resume):
        pass
    assert "\n" not in str(caught.value)
    assert {name: facts for name, facts in tree(root).items() if name != output.parent.name} == before


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("identity", [IDENTITY, {"input": "other.fits"}])
def test_a_link_in_place_of_the_chunks(output, theirs, resume, identity):
    chunk_folder(output).symlink_to(theirs)
    output.with_name(".partial-0123456789ab-out.fits").write_text("not removed either, as nothing is when a run is refused")
    refused(output, "is a link", resume=resume, identity=identity)
    assert not left_by_killed_run(output, theirs / "thesis.tex")


def test_a_link_to_good_chunks_is_a_link(output, tmp_path):
    folder = keep(output)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    refused(output, "is a link")
    refused(output, "is a link", resume=False)


def test_a_dangling_link_and_a_file_in_place_of_the_chunks(output, tmp_path):
    folder = chunk_folder(output)
    folder.symlink_to(tmp_path / "absent")
    refused(output, "is a link")
    folder.unlink()
    folder.write_text("precious")
    refused(output, "is no folder")


@pytest.mark.parametrize(
    "name", ["notes.txt", "a.npz.bak", ".hidden.npz", "näme.npz", "x" * 200, "udc\udcff", "deep", "link", "pipe"]
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_holds_anything_else_is_left_alone(output, theirs, name, resume):
    folder = keep(output)
    if name == "deep":
        (folder / "fit-000009.npz").mkdir()
    elif name == "link":
        (folder / "fit-000001.npz").unlink()
        (folder / "fit-000001.npz").symlink_to(theirs / "fit-000000.npz")
    elif name == "pipe":
        os.mkfifo(folder / "fit-000009.npz")
    else:
        (folder / os.fsencode(name).decode("utf-8", "surrogateescape")).write_text("precious")
    for identity in (IDENTITY, {"input": "other.fits"}):
        refused(output, r"holds '.{1,60}, which (no run puts there|is a link|isn't a file)", resume=resume, identity=identity)


def test_archives_that_nothing_says_to_be_ours_are_left_alone(output):
    chunk_folder(output).mkdir(mode=0o700)
    np.savez(chunk_folder(output) / "precious.npz", flux=np.ones(3))
    refused(output, "some are no files of ours")
    refused(output, "some are no files of ours", resume=False)


@as_root
@pytest.mark.parametrize("what", ["folder", "chunk", "identity", "all"])
@pytest.mark.parametrize("resume", [True, False])
def test_what_belongs_to_another(output, what, resume):
    folder = keep(output)
    names = {"folder": [""], "chunk": ["fit-000001.npz"], "identity": ["identity.json"], "all": ["", *os.listdir(folder)]}[what]
    for name in names:
        os.chown(folder / name, SOMEBODY, SOMEBODY)
    refused(output, "belongs to another user", resume=resume)


def test_what_belongs_to_another_without_root(output, monkeypatch):
    keep(output)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    refused(output, "belongs to another user")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722, 0o1777])
@pytest.mark.parametrize("what", ["folder", "chunk", "identity"])
def test_what_others_can_write_to(output, mode, what):
    folder = keep(output)
    name = {"folder": "", "chunk": "fit-000001.npz", "identity": "identity.json"}[what]
    (folder / name).chmod(mode)
    refused(output, r"can be written to by others\. Nothing was changed\. Make it yours alone \(chmod -R go-w\)")
    # Afresh it may begin: these are files of our own.
    with ChunkStore.open(output, IDENTITY, resume=False) as store:
        assert not folder.exists()
        assert store.get("fit-000000") is None
    keep(output)
    (folder / name).chmod(mode)
    (folder / name).chmod(0o700)  # as the message says
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 2


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_made_for_the_user_alone_whatever_the_umask(output, mask):
    before = os.umask(mask)
    try:
        output.parent.chmod(0o2777)  # a folder that a group shares
        folder = keep(output)
        with ChunkStore.open(output, IDENTITY) as store:
            assert store.resumed == 2
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 & ~mask for path in folder.iterdir()} == {0o600 & ~mask}


def write(store, path, text):
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(text)
        store.announce(path, temporary)


@pytest.mark.parametrize("how", ["loose", "link", pytest.param("another", marks=as_root)])
def test_a_note_that_others_could_have_made_gives_no_leave_to_overwrite(output, tmp_path, how):
    with ChunkStore.open(output, IDENTITY) as store:
        write(store, output, "a product")
    folder = chunk_folder(output)
    assert left_by_killed_run(output, output)
    if how == "loose":
        folder.chmod(0o777)
    elif how == "another":
        os.chown(folder, SOMEBODY, SOMEBODY)
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    assert not left_by_killed_run(output, output)
    if how == "loose":
        with ChunkStore.open(output, IDENTITY, resume=False) as store:
            assert not store.made(output)


def test_chunks_of_another_run_stay_if_this_one_comes_to_nothing(output):
    folder = keep(output)
    before = tree(folder)

    def fails():
        with ChunkStore.open(output, {"input": "damaged.fits"}) as store:
            assert store.resumed == 0
            assert store.get("fit-000000") is None
            raise DataError("the cube is damaged")

    with pytest.warns(IfujaxWarning, match="2 finished chunks"), pytest.raises(DataError, match="damaged"):
        fails()
    assert tree(folder) == before
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 2

    def comes_to_something():
        with ChunkStore.open(output, {"input": "other.fits"}) as store:
            store.put("fit-000007", {})

    with pytest.warns(IfujaxWarning, match="2 finished chunks"):
        comes_to_something()
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", "fit-000007.npz", "identity.json"]


def test_a_link_swapped_in_during_a_run(output, theirs, tmp_path):
    folder = keep(output)
    before = tree(theirs)

    def swapped():
        with ChunkStore.open(output, IDENTITY) as store:
            folder.rename(tmp_path / "moved")
            folder.symlink_to(theirs)
            found = store.get("fit-000000")
            assert found is not None
            assert found["flux"].tolist() == [0, 0, 0]
            store.put("fit-000002", {"flux": np.ones(1)})
            assert (tmp_path / "moved" / "fit-000002.npz").exists()
            store.remove()

    with pytest.warns(IfujaxWarning, match="could not be removed"):
        swapped()
    assert tree(theirs) == before
    assert folder.is_symlink()


def test_a_link_swapped_in_before_the_folder_is_opened(output, theirs, monkeypatch):
    folder = keep(output)
    before = tree(theirs)
    opened = OwnFolder._open

    def late(own):
        folder.rename(folder.with_name("moved"))
        folder.symlink_to(theirs)
        opened(own)

    monkeypatch.setattr(OwnFolder, "_open", late)
    with pytest.raises(DataError, match="could not be written"), ChunkStore.open(output, IDENTITY):
        pass
    assert tree(theirs) == before


@as_root
def test_a_folder_swapped_in_before_it_is_opened(output, tmp_path, monkeypatch):
    folder = keep(output)
    forged = tmp_path / "forged"
    forged.mkdir()
    os.chown(forged, SOMEBODY, SOMEBODY)
    opened = OwnFolder._open

    def late(own):
        folder.rename(folder.with_name("moved"))
        forged.rename(folder)
        opened(own)

    monkeypatch.setattr(OwnFolder, "_open", late)
    with pytest.raises(NotOursError, match="another user"), ChunkStore.open(output, IDENTITY):
        pass


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_something_put_in_the_folders_place_before_the_first_chunk(output, theirs, kind):
    before = tree(theirs)
    with ChunkStore.open(output, IDENTITY) as store:
        if kind == "link":
            chunk_folder(output).symlink_to(theirs)
        else:
            chunk_folder(output).mkdir(mode=0o700)
        with pytest.raises(NotOursError, match="has been put there during this run"):
            store.put("fit-000000", {})
    assert tree(theirs) == before
    assert os.path.lexists(chunk_folder(output))


def test_a_file_put_among_the_chunks_during_a_run_keeps_them_all(output):
    folder = chunk_folder(output)

    def disturbed():
        with ChunkStore.open(output, IDENTITY) as store:
            store.put("fit-000000", {})
            (folder / "notes.txt").write_text("precious")
            store.remove()

    with pytest.warns(IfujaxWarning, match=r"could not be removed: it holds 'notes.txt'"):
        disturbed()
    assert len(list(folder.iterdir())) == 4


def test_folders_that_lead_there_may_be_links(output, tmp_path):
    (tmp_path / "short").symlink_to(output.parent)
    through = tmp_path / "short" / output.name
    keep(through)
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 2
    with ChunkStore.open(through, IDENTITY) as store:
        assert store.resumed == 2
        with lock_file(through, held=True):
            write(store, through, "product")
        store.remove()
    assert [path.name for path in output.parent.iterdir()] == ["out.fits"]


class Disk:
    """A disk with habits of its own: what it says of any file that is private and this user's."""

    def __init__(self, monkeypatch, folder, owner, mode):
        self.folder, self.owner, self.mode = str(folder), owner, mode
        self.stat, self.lstat, self.fstat = os.stat, os.lstat, os.fstat
        monkeypatch.setattr(os, "fstat", self.said_of)
        monkeypatch.setattr(os, "lstat", lambda path: self.lies(self.lstat(path), str(path)))
        monkeypatch.setattr(os, "stat", lambda path, **more: self.lies(self.stat(path, **more), str(path), **more))

    def said_of(self, descriptor):
        return self.lies(self.fstat(descriptor), os.readlink(f"/proc/self/fd/{descriptor}"))

    def lies(self, facts, path, dir_fd=None, **_):
        if not path.startswith(self.folder) and dir_fd is None:
            return facts
        values = list(facts)
        values[0] |= self.mode
        if values[4] == os.getuid():
            values[4] = self.owner
        return os.stat_result(values)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="files are told by their names in /proc")
@pytest.mark.parametrize(("owner", "mode"), [(os.getuid(), 0o777), (65533, 0), (777, 0o777)])
def test_a_disk_that_keeps_no_owners_or_modes(output, monkeypatch, owner, mode):
    Disk(monkeypatch, output.parent, owner, mode)
    with pytest.warns(IfujaxWarning, match="does not keep whose a file is"):
        folder = keep(output)
    assert folder.lstat().st_uid == owner
    draft = output.with_name(".partial-0123456789ab-out.fits")
    draft.write_text("half")

    def go_on():
        with ChunkStore.open(output, IDENTITY) as store:
            assert store.resumed == 2
            assert not draft.exists()
            store.remove()

    with pytest.warns(IfujaxWarning, match="does not keep whose a file is"):
        go_on()
    assert not folder.exists()


@as_root
def test_owners_that_such_a_disk_does_keep(output, monkeypatch):
    Disk(monkeypatch, output.parent, 65533, 0)
    with pytest.warns(IfujaxWarning, match="does not keep"):
        folder = keep(output)
    os.chown(folder, SOMEBODY, SOMEBODY)
    with pytest.raises(NotOursError, match="another user"), ChunkStore.open(output, IDENTITY):
        pass


# --- lock files


@pytest.mark.parametrize("content", ["precious", "", '{"program": "ifujax", "pid": 1}\n'])
@pytest.mark.parametrize("name", [".out.fits.lock", "out.fits.lock"])
def test_a_link_in_place_of_a_lock_file(output, tmp_path, name, content):
    target, link = tmp_path / "thesis.tex", output.with_name(name)
    target.write_text(content)
    link.symlink_to(target)
    before = tree(tmp_path)
    if name.startswith("."):
        with pytest.raises(NotOursError, match=r"\.out\.fits\.lock must be a file of a run; it is a link"), output_lock(output):
            pass
    else:
        with pytest.raises(OutputTakenError, match="is there"), lock_file(output, held=True):
            pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["dangling", "folder", "pipe"])
def test_other_things_in_place_of_the_lock_file(output, tmp_path, kind):
    path = output.with_name(".out.fits.lock")
    if kind == "dangling":
        path.symlink_to(tmp_path / "absent")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = tree(tmp_path)
    with pytest.raises(NotOursError, match="is a link" if kind == "dangling" else "isn't a file"), output_lock(output):
        pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", ["precious", "{}", '{"program": "other"}', "x" * 10000, '{"program": "ifujaxy'])
def test_a_file_that_is_not_our_lock_is_not_written_to(output, content):
    path = output.with_name(".out.fits.lock")
    path.write_text(content)
    before = tree(output.parent)
    with output_lock(output) as held:
        assert held
        with pytest.raises(OutputTakenError, match=r"another run\. Wait"), output_lock(output):
            pass
    assert tree(output.parent) == before


def test_another_name_of_a_file_is_not_our_lock(output, tmp_path):
    # An empty file, or one that looks like a lock of ours: a hard link is all that tells.
    target = tmp_path / "empty"
    target.write_text("")
    os.link(target, output.with_name(".out.fits.lock"))
    with output_lock(output) as held:
        assert held
    assert target.read_text() == ""
    assert output.with_name(".out.fits.lock").exists()
    target.write_text(json.dumps({"program": "ifujax", "pid": 1, "host": os.uname().nodename, "since": ""}))
    os.link(target, output.with_name("out.fits.lock"))
    before = target.read_text()
    with pytest.raises(OutputTakenError), lock_file(output, held=True):
        pass
    assert target.read_text() == before


@pytest.mark.parametrize("content", [b"", bytes(120), b'{"pro', b'{"program": "ifujax", "pid": 12, "ho'])
def test_what_a_crash_leaves_of_a_lock_is_ours(output, content):
    path = output.with_name(".out.fits.lock")
    path.write_bytes(content)
    with output_lock(output):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_link_swapped_in_before_the_lock_is_opened(output, tmp_path, monkeypatch):
    target, path = tmp_path / "thesis.tex", output.with_name(".out.fits.lock")
    target.write_text("precious")
    real = os.open

    def late(name, *arguments, **more):
        if str(name) == str(path):
            path.symlink_to(target)
        return real(name, *arguments, **more)

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(NotOursError, match="is a link"), output_lock(output):
        pass
    assert target.read_text() == "precious"


@pytest.mark.parametrize("visible", [False, True])
def test_a_file_put_in_the_locks_place_during_a_run_stays(output, visible):
    path = output.with_name("out.fits.lock" if visible else ".out.fits.lock")
    with lock_file(output, held=True) if visible else output_lock(output):
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"


# --- drafts of outputs


def test_only_drafts_of_our_own_are_removed(output, theirs):
    draft = ".partial-{}-out.fits"
    output.with_name(draft.format("0" * 12)).symlink_to(theirs / "thesis.tex")
    output.with_name(draft.format("1" * 12)).mkdir()
    ours = output.with_name(draft.format("2" * 12))
    ours.write_text("half")
    if os.geteuid() == 0:
        other = output.with_name(draft.format("3" * 12))
        other.write_text("half of theirs")
        os.chown(other, SOMEBODY, SOMEBODY)
    before = tree(output.parent.parent)
    remove_partial(output)
    after = tree(output.parent.parent)
    assert [name for name in before if name not in after] == [f"work/{ours.name}"]


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_draft_that_was_replaced_is_not_renamed(output, theirs, kind):
    def swapped():
        with atomic_path(output) as temporary:
            if kind == "link":
                temporary.symlink_to(theirs / "thesis.tex")
            else:
                temporary.symlink_to(theirs)

    before = tree(theirs)
    with pytest.raises(NotOursError, match="is a link"):
        swapped()
    assert not os.path.lexists(output)
    assert tree(theirs) == before


def test_large_images_are_not_written_through_a_link(output, theirs):
    output.symlink_to(theirs / "thesis.tex")
    with pytest.raises(NotOursError, match="is a link"):
        append_large(output, [LargeImage("DATA", (3, 4))])
    assert (theirs / "thesis.tex").read_text() == "precious"


def test_basics(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.close(open_regular(tmp_path / "file", os.O_RDONLY))
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent", os.O_RDONLY)
    remove_own(tmp_path / "link")
    remove_own(tmp_path / "absent")
    assert (tmp_path / "link").is_symlink()
    remove_own(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_chunks_are_archives_that_numpy_reads(output):
    folder = keep(output)
    with warnings.catch_warnings(), zipfile.ZipFile(folder / "fit-000001.npz") as archive:
        warnings.simplefilter("error")
        assert archive.comment == b"1 arrays"
    with np.load(folder / "fit-000001.npz") as arrays:
        assert arrays["flux"].tolist() == [1, 1, 1]
