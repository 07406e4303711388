"""Chunks survive what stops a run, and serve only the run that would make them again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.io.checkpoint import ChunkStore, chunk_folder, left_by_killed_run
from ifujax.io.locks import OutputTakenError
from ifujax.io.output import atomic_path

IDENTITY = {"input": "cube.fits", "option ha.sigma": "100, 40:300", "chunk size": 64}
HOLDER = """\
import sys, time
from pathlib import Path
from ifujax.io.checkpoint import ChunkStore
with ChunkStore.open(Path(sys.argv[1]), {"a": 1}) as store:
    store.put("fit-000000", {})
    Path(sys.argv[1]).with_name(".partial-0123456789ab-out.fits").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.fits"


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "values": rng.standard_normal((7, 3)),
        "file": np.array([np.nan, -0.0, np.inf, 5e-324]),  # a name that numpy.savez has taken
        "status": rng.integers(0, 9, 7).astype(np.int32),
        "fitted": rng.random(7) > 0.5,
        "names": np.array(["ha", "n2"]),
        "empty": np.zeros((0, 4)),
    }


def keep(output, count=2, identity=IDENTITY):
    with ChunkStore.open(output, identity) as store:
        for i in range(count):
            store.put(f"fit-{i:06d}", arrays(i))
    return store.folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_chunks_come_back_to_the_bit(output):
    folder = keep(output)
    assert names(folder) == ["README.txt", "fit-000000.npz", "fit-000001.npz", "identity.json"]
    assert "out.fits" in (folder / "README.txt").read_text()
    with ChunkStore.open(output, dict(reversed(IDENTITY.items()))) as store:
        assert store.resumed == 2
        for i in range(2):
            found, put = store.get(f"fit-{i:06d}"), arrays(i)
            assert found is not None
            assert found.keys() == put.keys()
            for name, array in put.items():
                assert found[name].dtype == array.dtype
                assert found[name].tobytes() == array.tobytes()
        assert store.get("fit-000002") is None
        store.remove()
    assert names(output.parent) == []


def test_nothing_is_made_before_the_first_chunk_or_left_without_one(output):
    with ChunkStore.open(output, IDENTITY) as store:
        assert names(output.parent) == [".out.fits.lock"]
        assert store.resumed == 0
    assert names(output.parent) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, DataError, OSError])
def test_failures_keep_chunks_and_are_not_disguised(output, failure):
    with pytest.raises(failure), ChunkStore.open(output, IDENTITY) as store:
        store.put("fit-000000", arrays())
        raise failure
    assert names(output.parent) == [".out.fits.chunks"]
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 1


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "text"])
def test_a_damaged_chunk_is_not_there(output, damage):
    folder = keep(output)
    path = folder / "fit-000001.npz"
    raw = bytearray(path.read_bytes())
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "half":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "bit":
        raw[raw.index(b"values.npy") + 150] ^= 1
        path.write_bytes(raw)
    else:
        path.write_text("not an archive")
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.get("fit-000000") is not None
        assert store.get("fit-000001") is None
        store.put("fit-000001", arrays(1))
        assert store.get("fit-000001") is not None


def test_every_flipped_byte_is_noticed_or_harmless(output):
    keep(output, 1)
    path = chunk_folder(output) / "fit-000000.npz"
    raw = path.read_bytes()
    good = {name: array.tobytes() for name, array in arrays().items()}
    with ChunkStore.open(output, IDENTITY) as store:
        for position in range(0, len(raw), 3):
            path.write_bytes(raw[:position] + bytes([raw[position] ^ 0x10]) + raw[position + 1 :])
            found = store.get("fit-000000")
            if found is not None:
                assert {name: array.tobytes() for name, array in found.items()} == good


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chunk size": 32}, "chunk size differs"),
        ({"chunk size": 32, "input": "b.fits"}, "chunk size, input differ"),
        ({"new": 1}, "new differs"),
        ({str(i): i for i in range(9)}, "0, 1, 2 and 6 more differ"),
    ],
)
def test_chunks_of_another_run_are_discarded_with_the_reason(output, change, reason):
    keep(output)
    message = f"2 finished chunks of an earlier run .*out.fits are discarded: {reason}"
    with pytest.warns(IfujaxWarning, match=message):
        assert keep(output, 0, IDENTITY | change)
    assert names(output.parent) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"identity": 3}'])
def test_chunks_that_nothing_tells_about_are_discarded(output, content):
    path = keep(output) / "identity.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.warns(IfujaxWarning, match="nothing tells"), ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 0


def test_starting_afresh_says_nothing(output):
    keep(output)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ChunkStore.open(output, IDENTITY, resume=False) as store:
            assert store.resumed == 0
    assert names(output.parent) == []


def test_a_second_run_is_turned_away_at_once(output):
    with ChunkStore.open(output, IDENTITY) as store:
        store.put("fit-000000", arrays())
        message = rf"out.fits is being written by another run \(process {os.getpid()} on "
        with pytest.raises(OutputTakenError, match=message), ChunkStore.open(output, {"other": 1}):
            pass
        assert store.get("fit-000000") is not None
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 1


def test_a_killed_run_leaves_chunks_but_no_lock(output):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(output)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(OutputTakenError, match=f"process {holder.pid} on "), ChunkStore.open(output, {"a": 1}):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert names(output.parent) == [".out.fits.chunks", ".out.fits.lock", ".partial-0123456789ab-out.fits"]
    with ChunkStore.open(output, {"a": 1}) as store:
        assert store.resumed == 1
        store.remove()
    assert names(output.parent) == []


def test_drafts_of_other_outputs_stay(output):
    for name in (".partial-0123456789ab-out.fits.plain", ".partial-0123456789ab-.partial-0123456789ab-out.fits"):
        (output.parent / name).write_text("ours")
    for name in (".partial-0123456789ab-not-out.fits", ".partial-precious-out.fits"):
        (output.parent / name).write_text("theirs")
    with ChunkStore.open(output, IDENTITY):
        pass
    assert names(output.parent) == [".partial-0123456789ab-not-out.fits", ".partial-precious-out.fits"]


def test_a_link_and_its_file_are_one_output(output):
    real = output.with_name("real.fits")
    real.write_text("old")
    output.symlink_to(real)
    keep(output)
    with ChunkStore.open(real, IDENTITY) as store:
        assert store.resumed == 2
        with pytest.raises(OutputTakenError), ChunkStore.open(output, IDENTITY):
            pass


def write(store, path, text):
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(text)
        store.announce(path, temporary)


def test_outputs_of_a_killed_run_are_known_from_others(output):
    maps, theirs = output.with_name("maps.fits"), output.with_name("theirs.fits")
    with ChunkStore.open(output, IDENTITY) as store:
        assert not store.made(output)
        for path in (output, maps):
            write(store, path, "ours")
            assert store.made(path)
    theirs.write_text("ours")
    assert left_by_killed_run(output, output)
    with ChunkStore.open(output, IDENTITY) as store:
        assert [store.made(path) for path in (output, maps, theirs)] == [True, True, False]
        os.replace(theirs, maps)
        assert [store.made(path) for path in (output, maps)] == [True, False]
    with ChunkStore.open(output, IDENTITY, resume=False) as store:
        assert store.made(output)  # afresh, but the file is still that of a run that didn't reach its end
        store.remove()
    assert not left_by_killed_run(output, output)
    assert names(output.parent) == ["maps.fits", "out.fits"]


def test_a_file_written_before_its_rename_is_not_an_output(output):
    output.write_text("old")

    def killed():
        with ChunkStore.open(output, IDENTITY) as store, atomic_path(output, overwrite=True) as temporary:
            temporary.write_text("new")
            store.announce(output, temporary)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert not left_by_killed_run(output, output)


def test_full_disk(output, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ChunkStore.open(output, IDENTITY) as store:
        store.put("fit-000000", arrays())
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(DataError, match=r"out.fits must fit on its disk.*1 finished chunks are kept") as caught:
                store.put("fit-000001", arrays())
        assert "\n" not in str(caught.value)
        assert names(store.folder) == ["README.txt", "fit-000000.npz", "identity.json"]
    with ChunkStore.open(output, IDENTITY) as store:
        assert store.resumed == 1


def test_full_disk_before_the_first_chunk(output, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="full disk"), ChunkStore.open(output, IDENTITY) as store:
        store.put("fit-000000", arrays())
    assert names(output.parent) == []


def test_a_folder_that_cannot_be_removed_is_told_of(output):
    folder = keep(output)

    def disturbed():
        with ChunkStore.open(output, IDENTITY) as store:
            (folder / "theirs").mkdir()
            store.remove()

    with pytest.warns(IfujaxWarning, match="could not be removed"):
        disturbed()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a.npz"])
def test_names_that_are_no_names(output, name):
    with ChunkStore.open(output, IDENTITY) as store, pytest.raises(UsageError, match="name of a chunk"):
        store.put(name, {})


def test_objects_are_refused(output):
    with ChunkStore.open(output, IDENTITY) as store, pytest.raises(UsageError, match="'bad'"):
        store.put("fit-000000", {"bad": np.array([object()])})
    assert names(output.parent) == []
