"""The file of draws: what ArviZ and xarray read of it, that blocks may come in any order, and what a full disk leaves."""

from __future__ import annotations

import errno
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
import xarray

from ifujax.errors import DataError, UsageError
from ifujax.inference.status import POSTERIOR_FLAGS
from ifujax.io import posteriors
from ifujax.io.guarded import GuardedFile
from ifujax.io.posterior_layout import datasets, spaxel_datasets
from ifujax.io.posteriors import PosteriorLayout, PosteriorReader, PosteriorWriter, Variable

CHAINS, DRAWS = 4, 6
SHAPE = (5, 7)
LAYOUT = PosteriorLayout(
    SHAPE,
    CHAINS,
    DRAWS,
    {"line": ("ha", "n2b", "Hβ"), "coefficient": (0, 1)},
    {
        "flux": Variable("line", "10**-20 erg s-1 cm-2", "integrated flux"),
        "velocity": Variable("line", "km/s"),
        "continuum": Variable("coefficient", "", "Legendre coefficients"),
        "total": Variable("", "", "of all lines"),
    },
    {
        "tier": Variable(dtype="int8", long_name="what made the draws"),
        "khat": Variable(),
        "status": Variable(dtype="int32", attributes={"flag_masks": [flag.value for flag in POSTERIOR_FLAGS]}),
    },
    {"seed": 3, "method": "auto", "configuration": "[ha]\nvelocity: 0, -500:500\n" * 4000, "exact": True, "nothing": None},
)
SAMPLED = np.array([0, 1, 2, 3, 4, 6, 8, 13, 14, 20, 27, 33])


def an_image(layout=LAYOUT, rows=SAMPLED, seed=0):
    """Return draws and statistics of some spaxels."""
    rng = np.random.default_rng(seed)
    n = len(rows)
    draws = {name: rng.normal(size=(n, *layout.block_shape(name))).astype(np.float32) for name in layout.variables}
    statistics = {"tier": rng.integers(1, 3, n), "khat": rng.random(n), "status": rng.integers(0, 9, n)}
    return draws, statistics


def write(path, order=None, size=5, layout=LAYOUT, rows=SAMPLED, **options):
    draws, statistics = an_image(layout, rows)
    order = np.arange(len(rows)) if order is None else order
    with PosteriorWriter(path, layout, **options) as writer:
        for first in range(0, len(rows), size):
            part = order[first : first + size]
            writer.put(
                rows[part],
                {name: values[part] for name, values in draws.items()},
                {name: values[part] for name, values in statistics.items()},
            )
    return draws, statistics


def same(first, second):
    """Compare datasets but for the time at which they were made."""
    xarray.testing.assert_identical(*(each.assign_attrs(created_at="") for each in (first, second)))
    assert {name: each.dtype for name, each in first.items()} == {name: each.dtype for name, each in second.items()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "draws.nc"
    return path, *write(path)


def test_the_file_is_what_the_draws_in_memory_are(stored):
    path, draws, statistics = stored
    expected = datasets(LAYOUT, SAMPLED, draws, statistics)
    for name, group in expected.items():
        with xarray.open_dataset(path, group=name, engine="h5netcdf") as found:
            same(found.load(), group)
    flux = expected["posterior"]["flux"]
    assert flux.dims == ("chain", "draw", "line", "y", "x")
    assert flux.dtype == np.float32
    assert flux.attrs == {"units": "10**-20 erg s-1 cm-2", "long_name": "integrated flux"}
    row = int(SAMPLED[7])
    at = flux.sel(line="n2b").isel(y=row // SHAPE[1], x=row % SHAPE[1])
    np.testing.assert_array_equal(at, draws["flux"][7, :, :, 1])
    assert int(np.isfinite(flux.values[0, 0, 0]).sum()) == len(SAMPLED)
    status = expected["sample_stats"]["status"]
    assert status.dtype == np.int32
    assert status.values[4, 0] == 0
    np.testing.assert_array_equal(status.attrs["flag_masks"], [flag.value for flag in POSTERIOR_FLAGS])
    assert np.isnan(expected["sample_stats"]["khat"].values[4, 0])


def test_arviz_opens_the_file(stored):
    import arviz

    found = arviz.from_netcdf(stored[0])
    names = found.children if isinstance(found, xarray.DataTree) else found.groups()
    assert set(names) == {"posterior", "sample_stats"}
    for name, expected in datasets(LAYOUT, SAMPLED, stored[1], stored[2]).items():
        group = found[name]
        same(group if isinstance(group, xarray.Dataset) else group.to_dataset(), expected)
    assert found.attrs["method"] == "auto"
    found.close()


def test_attributes(stored):
    with xarray.open_dataset(stored[0], engine="h5netcdf") as root:
        assert root.attrs["seed"] == 3
        assert root.attrs["exact"] == 1
        assert root.attrs["configuration"] == LAYOUT.attributes["configuration"]
        assert len(root.attrs["configuration"]) > 65536  # more than HDF5 keeps in a header
        assert "nothing" not in root.attrs
        assert root.attrs["creation_library"] == "ifujax"
    with xarray.open_datatree(stored[0], engine="h5netcdf") as tree:
        assert list(tree.children) == ["posterior", "sample_stats"]
        assert list(tree["posterior"].coords["line"].values) == ["ha", "n2b", "Hβ"]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_blocks_of_any_size_and_order(stored, tmp_path, size):
    order = np.random.default_rng(4).permutation(len(SAMPLED))
    path = tmp_path / "draws.nc"
    draws, statistics = write(path, order, size)
    reader = PosteriorReader(path)
    for name, values in draws.items():
        np.testing.assert_array_equal(reader.draws(name, SAMPLED), values)
    maps = reader.statistics()
    for name, values in statistics.items():
        np.testing.assert_allclose(maps[name].flat[SAMPLED], values, rtol=1e-6)


def test_what_is_put_again_is_replaced(tmp_path):
    draws, statistics = an_image(rows=[0, 1])
    with PosteriorWriter(tmp_path / "draws.nc", LAYOUT) as writer:
        writer.put([10, 11], draws, statistics)
        writer.put([11], {"flux": draws["flux"][:1], "velocity": np.full((1, 4, 6, 3), np.nan)})
    reader = PosteriorReader(tmp_path / "draws.nc")
    np.testing.assert_array_equal(reader.draws("flux", [10, 11]), draws["flux"][[0, 0]])
    np.testing.assert_array_equal(reader.draws("total", [11]), draws["total"][[1]])
    assert np.isnan(reader.draws("velocity", [11])).all()


def test_neighbours_across_the_edge_and_more_than_are_written_together(tmp_path):
    layout = replace(LAYOUT, shape=(2, 150), draws=2)
    rows = np.concatenate([np.arange(3, 149), np.arange(150, 297)])
    draws, _ = write(tmp_path / "draws.nc", size=1000, layout=layout, rows=rows)
    np.testing.assert_array_equal(PosteriorReader(tmp_path / "draws.nc").draws("flux", rows), draws["flux"])
    assert np.isnan(PosteriorReader(tmp_path / "draws.nc").draws("flux", [2, 149, 297])).all()


def test_writer_outside_its_block():
    with pytest.raises(UsageError, match="with statement"):
        PosteriorWriter("draws.nc", LAYOUT).put([0], *an_image(rows=[0]))


def test_spaxels_that_share_draws(tmp_path):
    draws, statistics = an_image(rows=SAMPLED[:2])
    rows, take = np.array([0, 3, 9, 30, 34]), np.array([0, 1, 1, 0, 1])
    with PosteriorWriter(tmp_path / "draws.nc", LAYOUT) as writer:
        writer.put(rows, draws, statistics, take)
    reader = PosteriorReader(tmp_path / "draws.nc")
    np.testing.assert_array_equal(reader.draws("velocity", rows), draws["velocity"][take])
    np.testing.assert_array_equal(reader.statistics()["tier"].flat[rows], statistics["tier"][take])


def test_whole_maps_of_statistics(tmp_path):
    reason = np.full(SHAPE, 1024, np.int32)
    with PosteriorWriter(tmp_path / "draws.nc", LAYOUT) as writer:
        writer.put_maps({"status": reason})
        writer.put([8], *an_image(rows=[8]))
        with pytest.raises(UsageError, match="unknown statistic 'state'"):
            writer.put_maps({"state": reason})
        with pytest.raises(UsageError, match="shape"):
            writer.put_maps({"status": reason[0]})
    status = PosteriorReader(tmp_path / "draws.nc").statistics()["status"]
    assert (status == 1024).sum() == status.size - 1


def test_what_is_not_sampled_takes_no_room(tmp_path):
    layout = replace(LAYOUT, shape=(300, 300), draws=250, attributes={})
    nothing = {"flux": np.full((1, 4, 250, 3), np.nan)}
    sizes = []
    for name, rows in (("none.nc", []), ("one.nc", [4567])):
        with PosteriorWriter(tmp_path / name, layout) as writer:
            writer.put([90], nothing)
            writer.put(rows, *an_image(layout, rows))
        sizes.append((tmp_path / name).stat().st_size)
    maps = 300 * 300 * (1 + 4 + 4)
    assert sizes[0] < maps + 200_000
    assert sizes[1] - sizes[0] < 100_000


def test_memory_does_not_grow_with_the_file(tmp_path):
    layout = replace(LAYOUT, shape=(40, 40), draws=250)
    block = an_image(layout, np.arange(40))
    peaks = []
    for rows in (2, 40):
        tracemalloc.start()
        with PosteriorWriter(tmp_path / "draws.nc", layout, overwrite=True) as writer:
            for y in range(rows):
                writer.put(np.arange(40 * y, 40 * y + 40), *block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "draws.nc").stat().st_size > 20e6
    assert peaks[1] < peaks[0] + 500_000
    assert peaks[1] < 8e6


@pytest.mark.parametrize("change", [{"rows": [35]}, {"rows": [-1]}, {"rows": [[0]]}])
def test_spaxels_outside(tmp_path, change):
    draws, _ = an_image(rows=[0])
    with pytest.raises(UsageError, match="rows"), PosteriorWriter(tmp_path / "draws.nc", LAYOUT) as writer:
        writer.put(draws=draws, **change)
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_and_shapes(tmp_path):
    draws, statistics = an_image(rows=[0])
    with PosteriorWriter(tmp_path / "draws.nc", LAYOUT) as writer:
        with pytest.raises(UsageError, match="Did you mean 'flux'"):
            writer.put([0], {"fluxes": draws["flux"]})
        with pytest.raises(UsageError, match=r"\(1, 4, 6, 3\); got \(1, 4, 6, 2\)"):
            writer.put([0], {"flux": draws["flux"][..., :2]})
        with pytest.raises(UsageError, match=r"\(2, 4, 6, 3\)"):
            writer.put([0, 1], draws)
        with pytest.raises(UsageError, match="unknown statistic"):
            writer.put([0], draws, {"rhat": statistics["khat"]})
    with pytest.raises(UsageError, match="unknown dimension 'lines'"):
        replace(LAYOUT, variables={"flux": Variable("lines")})
    with pytest.raises(UsageError, match="named like a dimension"):
        replace(LAYOUT, variables={"line": Variable("coefficient")})
    with pytest.raises(UsageError, match="1 or more"):
        replace(LAYOUT, draws=0)


def test_file_without_statistics(tmp_path):
    write(tmp_path / "draws.nc")
    with h5py.File(tmp_path / "draws.nc", "a") as file:
        del file["sample_stats"]
    with pytest.raises(DataError, match=r"must have a group 'sample_stats'; got .*draws\.nc"):
        PosteriorReader(tmp_path / "draws.nc").statistics()


def test_existing_file(tmp_path):
    path = tmp_path / "draws.nc"
    path.write_text("mine")
    with pytest.raises(UsageError, match="must not exist"):
        write(path)
    assert path.read_text() == "mine"
    write(path, overwrite=True)
    assert PosteriorReader(path).statistics()["tier"].shape == SHAPE
    with pytest.raises(UsageError, match="Create"):
        write(tmp_path / "absent" / "draws.nc")


@pytest.mark.parametrize("failure", [ValueError, OSError, KeyboardInterrupt])
def test_failure_elsewhere_is_not_the_disks(tmp_path, failure):
    path = tmp_path / "draws.nc"
    path.write_text("old")
    with pytest.raises(failure, match="^elsewhere$"), PosteriorWriter(path, LAYOUT, overwrite=True) as writer:
        writer.put([0], *an_image(rows=[0]))
        raise failure("elsewhere")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class Full:
    """A file on a disk with room for `room` bytes."""

    def __init__(self, file, room, failure):
        self._file, self._room, self._failure = file, room, failure

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        fits = max(self._room - self._file.tell(), 0)
        if not fits:
            raise self._failure
        return self._file.write(data[:fits])


@pytest.mark.parametrize("room", [0, 5000, 60_000, 400_000])
@pytest.mark.parametrize(
    ("failure", "raised", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DataError, "got a full disk"),
        (OSError(errno.EIO, "Input/output error"), DataError, r"draws\.nc could not be written .*Input/output error"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_full_disk(tmp_path, monkeypatch, room, failure, raised, text):
    class Limited(GuardedFile):
        def __init__(self, path):
            super().__init__(path)
            self._file = Full(self._file, room, failure)

    monkeypatch.setattr(posteriors, "GuardedFile", Limited)
    layout = replace(LAYOUT, draws=250)
    with pytest.raises(raised, match=text):
        write(tmp_path / "draws.nc", layout=layout, size=1)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_does_not_crash_the_process(tmp_path):
    program = f"""
import resource, numpy as np
from ifujax.errors import DataError
from ifujax.io.posteriors import PosteriorLayout, PosteriorWriter, Variable
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
layout = PosteriorLayout((30, 30), 4, 250, {{"line": ("ha",)}}, {{"flux": Variable("line")}})
draws = np.random.default_rng(0).normal(size=(30, 4, 250, 1))
try:
    with PosteriorWriter({str(tmp_path / "draws.nc")!r}, layout) as writer:
        for y in range(30):
            writer.put(np.arange(30 * y, 30 * y + 30), {{"flux": draws}})
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "could not be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_reading_some_spaxels(stored):
    path, draws, _ = stored
    reader = PosteriorReader(path)
    np.testing.assert_array_equal(reader.draws("flux", SAMPLED[[5, 2]], 1), draws["flux"][[5, 2], ..., 1])
    np.testing.assert_array_equal(reader.draws("total", [13, 13]), draws["total"][[7, 7]])
    assert np.isnan(reader.draws("flux", [5])).all()
    one = reader.spaxel(int(SAMPLED[3]))
    assert list(one) == list(LAYOUT.variables)
    for name, values in one.items():
        np.testing.assert_array_equal(values, draws[name][3])
    group = reader.groups(x=int(SAMPLED[3] % 7), y=int(SAMPLED[3] // 7))["posterior"]
    np.testing.assert_array_equal(group["flux"].sel(line="ha"), draws["flux"][3, ..., 0])
    with pytest.raises(UsageError, match="unknown variable"):
        reader.draws("fluxes", [0])


def test_reading_beside_datasets_that_are_open(stored):
    """HDF5 refuses to open a file twice with different locking, so ours must be xarray's."""
    path, draws, _ = stored
    reader = PosteriorReader(path)
    lazy = reader.groups()
    with xarray.open_dataset(path, group="posterior", engine="h5netcdf") as mine:
        np.testing.assert_array_equal(reader.draws("flux", SAMPLED), draws["flux"])
        assert mine["flux"].shape == lazy["posterior"]["flux"].shape
    for group in lazy.values():
        group.close()


def test_one_spaxel_in_memory_is_that_of_the_file(stored):
    path, draws, statistics = stored
    row = int(SAMPLED[3])
    alone = spaxel_datasets(
        LAYOUT,
        row,
        {name: values[3] for name, values in draws.items()},
        {name: values[3] for name, values in statistics.items()},
    )
    for name, group in PosteriorReader(path).groups(x=row % 7, y=row // 7).items():
        same(alone[name], group)
    assert alone["posterior"]["flux"].dims == ("chain", "draw", "line")
    assert int(alone["posterior"]["x"]) == row % 7


def test_maps_of_what_is_worked_out(stored):
    path, draws, _ = stored
    reader = PosteriorReader(path)
    median = reader.map("velocity", lambda values: np.median(values, axis=1), 2)
    expected = np.full(SHAPE, np.nan)
    expected.flat[SAMPLED] = np.median(draws["velocity"][..., 2].reshape(len(SAMPLED), -1), axis=1)
    np.testing.assert_allclose(median, expected)
    np.testing.assert_allclose(
        reader.map("total", lambda values: values.max(axis=1)).flat[SAMPLED], draws["total"].max(axis=(1, 2))
    )
    with pytest.raises(UsageError, match="element"):
        reader.map("velocity", lambda values: values[:, 0])


def test_no_such_file(tmp_path):
    reader = PosteriorReader(tmp_path / "draws.nc")
    (tmp_path / "text.nc").write_text("no HDF5")
    for read in (reader.statistics, lambda: reader.draws("flux", [0]), lambda: reader.groups(0, 0)):
        with pytest.raises(DataError, match="Was it moved"):
            read()
    with pytest.raises(DataError, match="must be readable"):
        PosteriorReader(tmp_path / "text.nc").statistics()


def test_damaged_file(tmp_path):
    path = tmp_path / "draws.nc"
    write(path)
    with h5py.File(path) as file:
        chunk = file["posterior/flux"].id.get_chunk_info(0)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    reader, row = PosteriorReader(path), chunk.chunk_offset[-2] * SHAPE[1] + chunk.chunk_offset[-1]
    for read in (
        lambda: reader.draws("flux", [row]),
        lambda: reader.spaxel(row),
        lambda: reader.map("flux", lambda values: values[:, 0], 0),
    ):
        with pytest.raises(DataError, match="must be readable.*or damaged"):
            read()


def test_guarded_file_reads_what_it_could_not_write(tmp_path):
    file = GuardedFile(tmp_path / "file")
    file._file = Full(file._file, 6, OSError(errno.ENOSPC, "full"))
    file.write(b"abcd")
    file.write(b"efgh")
    file.seek(1)
    file.write(b"BC")
    assert (file.tell(), file.seek(0, 2)) == (3, 8)
    file.seek(0)
    assert file.read() == b"aBCdefgh"
    assert file.read() == b""
    file.seek(-3, 2)
    assert file.read(2) == b"fg"
    with pytest.raises(OSError, match="full"):
        file.check()
    file.close()
