"""Runs that are stopped go on where they were; two runs never make one output."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import ifujax
from ifujax import simulate
from ifujax.cli import fit_cube as command
from ifujax.cli.app import main
from ifujax.io.checkpoint import ChunkStore
from ifujax.io.locks import output_lock
from ifujax.lines.dialect import parse_config

CONFIG = """\
[loading]
redshift: 0.01
[fit]
fit_continuum: yes
[continuum]
degree: 1
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 20:300
"""
SIDE, CHUNK = 64, 64
"""64 chunks of one row."""
OUTPUTS = ("a_linefit.fits", "a_linefit.png", "m.fits")


class StandIn:
    """As much of a CubeFit as the command uses."""

    def summary(self):
        return "6 spaxels"

    def write(self, path, overwrite=False):
        path.write_text("product")

    def write_maps(self, path, overwrite=False):
        path.write_text("maps")

    def plot_page(self, line=None):
        return Figure(figsize=(1, 1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with two cubes, where a fit keeps three chunks and does what ``after`` says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "prepare", lambda *_: None)

    def fit_cube(cube, config, *, checkpoint, **_):
        for i in range(3):
            if checkpoint.get(f"fit-{i}") is None:
                checkpoint.put(f"fit-{i}", {"flux": np.ones(2)})
        return StandIn()

    monkeypatch.setattr("ifujax.io.cubes.read_cube", lambda path, **_: path)
    monkeypatch.setattr("ifujax.lines.run.fit_cube", fit_cube)
    (tmp_path / "ha.cfg").write_text(CONFIG)
    for name in ("a.fits", "b.fits"):
        (tmp_path / name).write_text(name)
    return tmp_path


def run(capsys, *arguments):
    code = main(["fit-cube", *arguments, "-c", "ha.cfg"])
    out, err = capsys.readouterr()
    return code, out, err


def products(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("a.fits", "b.fits", "ha.cfg"))


def interrupt(*_, **__):
    raise KeyboardInterrupt


def wait_for(process: subprocess.Popen, condition) -> float:
    """Wait until `condition` holds, or the process ends; return the time."""
    while process.poll() is None and not condition():
        time.sleep(0.002)
    return time.monotonic()


def kill(process: subprocess.Popen) -> bool:
    """Kill a process; return whether it was still running."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_nothing_but_the_outputs_stays(capsys, folder):
    assert run(capsys, "a.fits", "-p", "--maps", "m.fits", "-l")[0] == 0
    assert products(folder) == sorted(OUTPUTS)


@pytest.mark.parametrize("taken", OUTPUTS)
def test_an_output_that_another_run_makes(capsys, folder, taken):
    with output_lock(taken):
        before = products(folder)
        code, out, err = run(capsys, "a.fits", "-p", "--maps", "m.fits", "-o")
        assert (code, out) == (1, "")
        assert err.startswith(f"ifujax: error: output {taken} is being written by another run (process {os.getpid()} on ")
        assert err.count("\n") == 1
        code, out, err = run(capsys, "a.fits", "-p", "--maps", "m.fits", "-o", "-l")
        assert (code, err) == (0, "")
        assert out.startswith(f"a.fits: skipped: output {taken} is being written")
        assert out.count("\n") == 1
        assert run(capsys, "a.fits", "-p", "--maps", "m.fits", "-o", "-l", "-q") == (0, "", "")
        assert products(folder) == before


def test_the_other_cubes_of_a_command_are_fitted(capsys, folder):
    with output_lock("a_linefit.fits"):
        code, _, err = run(capsys, "a.fits", "b.fits", "-q")
        assert code == 1
        assert err.startswith("ifujax: error: a.fits: output a_linefit.fits is being written")
    assert products(folder) == ["b_linefit.fits"]


def test_a_farm(capsys, folder):
    Path("a_linefit.fits.lock").write_text("This is IFSCube's.\n")
    code, out, err = run(capsys, "a.fits", "b.fits", "-l")
    assert (code, err) == (0, "")
    assert "a.fits: skipped: output a_linefit.fits is being written by another run: a_linefit.fits.lock is there." in out
    assert products(folder) == ["a_linefit.fits.lock", "b_linefit.fits"]
    Path("a_linefit.fits.lock").unlink()
    code, out, err = run(capsys, "a.fits", "b.fits", "--lock")
    assert (code, err) == (0, "")
    assert "b.fits: skipped: output must not exist; got b_linefit.fits." in out
    assert products(folder) == ["a_linefit.fits", "b_linefit.fits"]


def test_without_lock_the_files_of_farms_mean_nothing(capsys, folder):
    Path("a_linefit.fits.lock").write_text("This is IFSCube's.\n")
    assert run(capsys, "a.fits")[0] == 0
    assert products(folder) == ["a_linefit.fits", "a_linefit.fits.lock"]


def test_lock_file_lasts_as_long_as_the_run(capsys, folder, monkeypatch):
    seen = []

    def failing(*_, **__):
        seen.extend(products(folder))
        raise OSError("broken")

    monkeypatch.setattr("ifujax.lines.run.fit_cube", failing)
    assert run(capsys, "a.fits", "-l")[0] == 1
    assert seen == [".a_linefit.fits.lock", "a_linefit.fits.lock"]
    assert products(folder) == []


def test_interrupted_and_resumed(capsys, folder, monkeypatch):
    monkeypatch.setattr(StandIn, "write", interrupt)
    assert run(capsys, "a.fits")[0] == 130
    assert products(folder) == [".a_linefit.fits.chunks"]
    code, out, _ = run(capsys, "a.fits", "-q")
    assert (code, out) == (130, "")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patched:
        patched.setattr("ifujax.io.cubes.read_cube", interrupt)
        code, out, _ = run(capsys, "a.fits")
        assert (code, out) == (130, "a.fits: going on from 3 finished chunks of an earlier run\n")
        assert run(capsys, "a.fits", "--no-resume")[:2] == (130, "")
    assert products(folder) == []


@pytest.mark.parametrize("change", ["sigma", "cube", "chunk_size", "precision"])
def test_what_a_result_depends_on_starts_it_afresh(capsys, folder, monkeypatch, change):
    with monkeypatch.context() as patched:
        patched.setattr(StandIn, "write", interrupt)
        assert run(capsys, "a.fits")[0] == 130
    options = []
    if change == "sigma":
        Path("ha.cfg").write_text(CONFIG.replace("sigma: 100", "sigma: 90"))
    elif change == "cube":
        Path("a.fits").write_text("another")
    else:
        options = {"chunk_size": ["--chunk-size", "7"], "precision": ["--precision", "float32"]}[change]
    code, out, err = run(capsys, "a.fits", *options)
    assert code == 0
    assert "going on" not in out
    reason = {"sigma": "option ha.sigma", "cube": "content of the input", "chunk_size": "chunk size"}.get(change, change)
    assert re.search(rf"warning: 3 finished chunks .* are discarded: .*{reason}.* differ", err)
    assert products(folder) == ["a_linefit.fits"]


def test_where_the_product_goes_is_no_reason_to_start_afresh(capsys, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StandIn, "write", interrupt)
        assert run(capsys, "a.fits")[0] == 130
    Path("ha.cfg").write_text(CONFIG.replace("[fit]", "[fit]\noverwrite: yes\nverbose: yes"))
    code, out, err = run(capsys, "a.fits")
    assert (code, err) == (0, "")
    assert "going on from 3" in out


def test_stopped_between_its_outputs(capsys, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StandIn, "write_maps", interrupt)
        assert run(capsys, "a.fits", "--maps", "m.fits")[0] == 130
    assert products(folder) == [".a_linefit.fits.chunks", "a_linefit.fits"]
    # Its own product is no obstacle, and needs no --overwrite.
    assert run(capsys, "a.fits", "--maps", "m.fits")[0] == 0
    assert products(folder) == ["a_linefit.fits", "m.fits"]
    assert run(capsys, "a.fits", "--maps", "m.fits")[0] == 1


def test_a_file_that_took_the_products_place_is_kept(capsys, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StandIn, "write_maps", interrupt)
        assert run(capsys, "a.fits", "--maps", "m.fits")[0] == 130
    Path("a_linefit.fits").unlink()
    Path("a_linefit.fits").write_text("product")
    code, _, err = run(capsys, "a.fits", "--maps", "m.fits")
    assert code == 1
    assert "a_linefit.fits" in err
    assert products(folder) == [".a_linefit.fits.chunks", "a_linefit.fits"]


SLEEPER = """\
import sys, time, types
from contextlib import nullcontext
import numpy as np
from ifujax.cli import fit_cube as command, job
from ifujax.cli.app import main
import ifujax.io.cubes

class StandIn:
    write_maps = plot_page = None
    def __init__(self, parts): self.parts = parts
    def summary(self): return ""
    def write(self, path, overwrite=False):
        with path.open("wb") as stream:
            stream.write(self.parts[0].tobytes())
            stream.flush()
            if STOP == "writing": time.sleep(100)
            for part in self.parts[1:]:
                stream.write(part.tobytes())

def fit_cube(cube, config, *, checkpoint, **_):
    parts = []
    for i in range(4):
        if STOP == "fitting" and i == 2: time.sleep(100)
        found = checkpoint.get(f"fit-{i}")
        if found is None:
            found = {"flux": np.random.default_rng(i).random(9)}
            checkpoint.put(f"fit-{i}", found)
        parts.append(found["flux"])
    return StandIn(parts)

STOP = sys.argv[1]
command.prepare = lambda *_: None
job.compilation_time = lambda: nullcontext(types.SimpleNamespace(seconds=0.0))
ifujax.io.cubes.read_cube = lambda path, **_: path
sys.modules["ifujax.lines.run"] = types.SimpleNamespace(fit_cube=fit_cube)  # jax need not be imported
sys.exit(main(["fit-cube", "a.fits", "-c", "ha.cfg", *sys.argv[2:]]))
"""


def test_killed_while_fitting_and_while_writing(folder):
    def start(stop, *options):
        arguments = [sys.executable, "-c", SLEEPER, stop, *options]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def chunks():
        return len(list(folder.glob(".*.chunks/fit-*.npz")))

    first = start("fitting")
    wait_for(first, lambda: chunks() == 2)
    said, _ = start("never").communicate()
    assert f"a_linefit.fits is being written by another run (process {first.pid} on " in said
    assert kill(first)
    assert chunks() == 2
    second = start("writing", "-l")
    wait_for(second, lambda: any(path.stat().st_size for path in folder.glob(".partial-*a_linefit.fits")))
    assert kill(second)
    assert chunks() == 4
    assert len(products(folder)) == 4  # chunks, lock, the farm's lock file, half a product
    last = start("never", "-l")
    said, _ = last.communicate()
    assert last.returncode == 0, said
    assert "a.fits: going on from 4 finished chunks of an earlier run" in said
    assert products(folder) == ["a_linefit.fits"]
    expected = b"".join(np.random.default_rng(i).random(9).tobytes() for i in range(4))
    assert (folder / "a_linefit.fits").read_bytes() == expected


@pytest.mark.parametrize(
    ("options", "finished"),
    [("", 3), ("refit: yes\nmonte_carlo: 3", 7)],  # five chunks, then five again
)
def test_a_resumed_fit_is_the_same_to_the_bit(tmp_path, options, finished):
    disc = simulate.cube(
        (5, 7),
        (simulate.SimulatedLine("ha", 6562.8),),
        wavelength=np.arange(6560.0, 6700.0, 1.25),
        scale_radius=20.0,
        seed=4,
    ).cube
    disc.values[:, 2, 3] = np.nan
    config = parse_config(CONFIG.replace("[fit]", f"[fit]\n{options}"))
    whole = ifujax.fit_cube(disc, config, chunk_size=8)
    put = []
    with pytest.raises(KeyboardInterrupt), ChunkStore.open(tmp_path / "out.fits", {}) as store:
        keep = store.put

        def put_some(name, arrays):
            if len(put) == finished:
                raise KeyboardInterrupt
            put.append(name)
            keep(name, arrays)

        store.put = put_some
        ifujax.fit_cube(disc, config, chunk_size=8, checkpoint=store)
    with ChunkStore.open(tmp_path / "out.fits", {}) as store:
        assert store.resumed == finished
        resumed = ifujax.fit_cube(disc, config, chunk_size=8, checkpoint=store)
        store.remove()
    for name, array in whole.found.arrays().items():
        assert getattr(resumed.found, name).tobytes() == array.tobytes(), name


class Runs:
    """Real runs of the command on one small cube, each in a process and a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(root / "cache"), "JAX_PLATFORMS": "cpu"}
        lines = (simulate.SimulatedLine("ha", 6562.8),)
        wavelength = np.arange(6560.0, 6700.0, 1.25)
        cube = simulate.cube((SIDE, SIDE), lines, wavelength=wavelength, scale_radius=20.0, seed=4)
        cube.write_muse(root / "a.fits")
        (root / "ha.cfg").write_text(CONFIG)
        self.start(root / "compiling").communicate()
        began = time.monotonic()
        process = self.start(root / "whole")
        self.first_chunk = wait_for(process, lambda: list((root / "whole").glob(".*.chunks/fit-*.npz"))) - began
        said, _ = process.communicate()
        assert process.returncode == 0, said
        self.seconds = time.monotonic() - began
        self.whole = contents(root / "whole")
        assert sorted(self.whole) == sorted(OUTPUTS)

    def start(self, folder: Path, *more: str) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        options = ["-c", "../ha.cfg", "-p", "--maps", "m.fits", "--chunk-size", str(CHUNK), *more]
        return subprocess.Popen(
            [sys.executable, "-m", "ifujax", "fit-cube", "../a.fits", *options],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check_resumed(self, folder: Path) -> str:
        """Run the command to its end; the outputs are those of the whole run, and nothing else is left."""
        process = self.start(folder)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert products(folder) == sorted(OUTPUTS), said
        found = contents(folder)
        for name, content in self.whole.items():
            assert found[name] == content, name
        return said


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for the dates in FITS headers."""
    return {path.name: re.sub(rb"(DATE    = )'[^']*'", rb"\1", path.read_bytes()) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_killed_at_any_moment(runs):
    rng = np.random.default_rng(20240229)
    # Most of them after the start, which is all the same. benchmarks/kill_and_resume.py has more.
    moments = [*rng.uniform(0, runs.first_chunk, 2), *rng.uniform(runs.first_chunk, runs.seconds, 6)]
    for number, moment in enumerate(moments):
        folder = runs.root / f"killed-{number}"
        while True:
            process = runs.start(folder)
            time.sleep(moment)
            if kill(process) and products(folder) != sorted(OUTPUTS):
                break
            moment *= 0.9  # all was done: this once it was faster
            assert contents(folder) == runs.whole
            shutil.rmtree(folder)
        runs.check_resumed(folder)


@pytest.mark.slow
def test_killed_again_and_again(runs):
    rng = np.random.default_rng(7)
    folder = runs.root / "again"
    kills = 0
    process = runs.start(folder)
    while kills < 8:
        wait_for(process, lambda: list(folder.glob(".*.chunks/fit-*.npz")))
        time.sleep(rng.uniform(0, 0.3) * (runs.seconds - runs.first_chunk))
        if not kill(process):
            break
        kills += 1
        process = runs.start(folder)
    process.communicate()
    assert kills >= 2
    assert contents(folder) == runs.whole


@pytest.mark.slow
def test_farm_of_processes(runs):
    folder = runs.root / "farm"
    processes = [runs.start(folder, "-l") for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sum("skipped: " in each for each in said) == 2
    assert contents(folder) == runs.whole
