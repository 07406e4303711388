"""What keeping chunks costs, and what a killed run loses (``kill -9``), on a simulated cube.

Fits the cube with and without a store of chunks, then kills a run of the command at random moments, again and again, until one
comes to its end, and compares its files with those of a run that was left alone: they must be the same but for the date in their
headers. Run ``python benchmarks/kill_and_resume.py`` from the root of the repository. Exit code 1 if a file differs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ifujax import fit_cube, read_config, read_cube, simulate
from ifujax.io.checkpoint import ChunkStore

CONFIG = """\
[loading]
redshift: 0.01
[fit]
fit_continuum: yes
fitting_window: 6500:6640
[continuum]
degree: 1
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -500:500
sigma: 100, 20:400
k_group: 0
[n2]
rest_wavelength: 6583.46
amplitude: peak, 0:
k_group: 0
"""


def cost_of_keeping(folder: Path, chunk: int) -> None:
    """Time fits with and without a store, in turn; print the best of each."""
    cube, config = read_cube(folder / "cube.fits", redshift=0.01), read_config(folder / "fit.cfg")
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    kept = 0
    for turn in range(4):  # the first compiles
        for way, times in seconds.items():
            began = time.perf_counter()
            if way == "without":
                fit_cube(cube, config, chunk_size=chunk)
            else:
                with ChunkStore.open(folder / "out.fits", {}) as store:
                    fit_cube(cube, config, chunk_size=chunk, checkpoint=store)
                    kept = sum(path.stat().st_size for path in store.folder.iterdir())
                    store.remove()
            if turn:
                times.append(time.perf_counter() - began)
    plain, keeping = (min(times) for times in seconds.values())
    n = cube.n_spaxels
    print(
        f"{n} spaxels in {-(-n // chunk)} chunks: {plain:.2f} s without a store, {keeping:.2f} s with it "
        f"({1e3 * (keeping - plain) / -(-n // chunk):.1f} ms a chunk); {kept / n:.0f} bytes a spaxel on the disk"
    )


def start(folder: Path, chunk: int) -> subprocess.Popen:
    """Start the command in a folder of its own."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ifujax", "fit-cube", "../cube.fits", "-c", "../fit.cfg", "-p", "--maps", "maps.fits", "-q"]
    return subprocess.Popen([*command, "--chunk-size", str(chunk)], cwd=folder)


def run(folder: Path, chunk: int) -> float:
    """Run the command to its end; return the seconds."""
    began = time.perf_counter()
    if start(folder, chunk).wait() != 0:
        raise SystemExit("the command failed")
    return time.perf_counter() - began


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but for the dates in FITS headers."""
    return {path.name: re.sub(rb"(DATE    = )'[^']*'", rb"\1", path.read_bytes()) for path in folder.iterdir()}


def kill_until_done(folder: Path, chunk: int, whole: float, done: set[str], rng: np.random.Generator) -> tuple[int, float]:
    """Kill a run at random moments until the files `done`, and no others, are there; return how often, and all its seconds."""
    began = time.perf_counter()
    for kills in range(1000):
        process = start(folder, chunk)
        try:
            process.wait(rng.uniform(0.2, 0.9) * whole)
            if process.returncode != 0:
                raise SystemExit(f"exit code {process.returncode} after {kills} kills")
            return kills, time.perf_counter() - began
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if {path.name for path in folder.iterdir()} == done:  # it was about to exit
                return kills, time.perf_counter() - began
    raise SystemExit("1000 kills, and no end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=150, help="spaxels along x and y")
    parser.add_argument("--chunk-size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=5, help="runs that are killed until they are done")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        lines = (simulate.SimulatedLine("ha", 6562.8), simulate.SimulatedLine("n2", 6583.46, 0.4))
        wavelength = np.arange(6560.0, 6720.0, 1.25)
        shape = (options.side, options.side)
        simulate.cube(shape, lines, wavelength=wavelength, seed=options.seed).write_muse(folder / "cube.fits")
        (folder / "fit.cfg").write_text(CONFIG)
        cost_of_keeping(folder, options.chunk_size)
        run(folder / "compiling", options.chunk_size)
        whole = run(folder / "whole", options.chunk_size)
        expected = contents(folder / "whole")
        print(f"uninterrupted: {whole:.1f} s; {', '.join(sorted(expected))}")
        different = 0
        for number in range(options.runs):
            kills, seconds = kill_until_done(folder / f"killed-{number}", options.chunk_size, whole, set(expected), rng)
            same = contents(folder / f"killed-{number}") == expected
            different += not same
            print(f"killed {kills} times: {seconds:.1f} s in all; files {'the same' if same else 'DIFFER'}", flush=True)
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
