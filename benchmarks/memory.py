"""Peak memory of the command line on a cube of MUSE's full size (target 5 of docs/performance.md).

Writes a simulated cube of 320 x 320 spaxels and 3681 planes (3 GB) to a temporary folder and fits windows of it in a process of
its own, twice: the second finds its programs compiled. Run ``python benchmarks/memory.py`` from the root of the repository.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from ifujax.io.streamed import LargeImage, append_large, release

CONFIG = """\
[fit]
fit_continuum: yes
fitting_window: {low}:{high}
optimize_fit: no
[continuum]
degree: 3
line_weight: 0
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -500:500
sigma: 100, 40:400
k_group: 0
[n2]
rest_wavelength: 6583.46
amplitude: peak, 0:
k_group: 0
"""


def write_cube(path: Path, side: int, planes: int) -> None:
    """Write continuum, two lines and noise, plane by plane."""
    rng = np.random.default_rng(1)
    wavelength = 4750.0 + 1.25 * np.arange(planes)
    velocity = np.linspace(-200, 200, side)[None, :] * np.ones((side, 1))
    header = fits.Header()
    for key, value in {"CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRPIX3": 1.0, "CRVAL3": 4750.0, "CD3_3": 1.25}.items():
        header[key] = value
    fits.PrimaryHDU().writeto(path)
    images = [LargeImage(name, (planes, side, side), "float32", header) for name in ("DATA", "STAT")]
    maps = append_large(path, images)
    for k, centre in enumerate(wavelength):
        plane = np.full((side, side), 1.0)
        for rest, peak in ((6562.8, 20.0), (6583.46, 8.0)):
            plane += peak * np.exp(-0.5 * ((299792.458 * (centre / rest - 1.0) - velocity) / 90.0) ** 2)
        maps["DATA"][k] = plane + rng.standard_normal((side, side))
        maps["STAT"][k] = 1.0
    release(maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=320, help="spaxels along x and y")
    parser.add_argument("--planes", type=int, default=3681)
    parser.add_argument("--windows", nargs="*", default=["6400:6780", "5800:7600"], help="rest Angstrom, low:high")
    parser.add_argument("--write", type=Path, help="only write the cube, to this file")
    options = parser.parse_args()
    if options.write:
        write_cube(options.write, options.side, options.planes)
        return
    with tempfile.TemporaryDirectory() as folder:
        cube = Path(folder) / "cube.fits"
        # In a process of its own: a child's peak counts what its parent held when it was forked.
        size = ["--side", str(options.side), "--planes", str(options.planes)]
        subprocess.run([sys.executable, __file__, *size, "--write", str(cube)], check=True)
        print(f"cube: {cube.stat().st_size / 1e9:.2f} GB")
        command = [str(Path(sys.executable).with_name("ifujax")), "fit-cube", str(cube), "-o", "-q"]
        for window in options.windows:
            low, high = (float(part) for part in window.split(":"))
            config = Path(folder) / "fit.cfg"
            config.write_text(CONFIG.format(low=low, high=high))
            own = 8 * options.side**2 * int((high - low) / 1.25)
            for run in ("compiling", "compiled"):
                began = time.perf_counter()
                process = subprocess.Popen([*command, "-c", str(config), "--output", str(Path(folder) / "out.fits")])
                _, status, usage = os.wait4(process.pid, 0)
                peak = usage.ru_maxrss * 1024
                print(
                    f"window {window} ({own / 1e9:.2f} GB of data and variance), {run}: "
                    f"exit {os.waitstatus_to_exitcode(status)}, "
                    f"peak {peak / 1e9:.2f} GB = {peak / own:.2f} x the window, {time.perf_counter() - began:.0f} s wall, "
                    f"{usage.ru_utime + usage.ru_stime:.0f} CPU s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
