"""The whole job on real data (target 2 of docs/performance.md): read, continuum, fit, errors, fluxes, widths, product on disk.

The MUSE minicube (1,600 spaxels, five lines) is tiled to at least 40,000 spaxels and fitted from a file to a file. Imports and
compilation are timed apart, on 6,400 spaxels. IFSCube 1.3 did the same job on the minicube at 29 spaxels per CPU second on
a quiet machine of the same make (55 CPU seconds, NUMBA_NUM_THREADS=1). Two components and Gauss-Hermite lines stand beside
that plain case, and are compared with the same 29, which IFSCube has not reached with them.

Run ``python benchmarks/whole_job.py --help`` from the root of the repository.
"""

from __future__ import annotations

# One thread: CPU seconds are compared
# isort: off
from single_thread import THREADS

# isort: on
import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

IFSCUBE_PER_CPU_SECOND = 29.0
CONFIG = """\
[fit]
function: {function}
fit_continuum: yes
fitting_window: 6450:6800
optimize_fit: no
profile: {profile}
starts: {starts}
[loading]
redshift: 0.0859
[continuum]
mode: {mode}
degree: 3
n_iterate: 3
lower_threshold: 3
upper_threshold: 3
line_weight: 0.0
"""
LINES = (("n2a", 6548.04), ("ha", 6562.8), ("n2b", 6583.46), ("s2a", 6716.44), ("s2b", 6730.82))
FIRST = "velocity: 0, -600:600\nsigma: 150, 40:500\n"
SECOND = "velocity: 0, -600:600\nsigma: 300, 40:900, > n2a.sigma\n"
HERMITE = "h3: 0, +- 0.2\nh4: 0, +- 0.2\n"
CASES = {
    "plain, as IFSCube: sampled profile, frozen continuum": ("gaussian", 1, "sampled", "rejection", 1),
    "plain, sampled profile": ("gaussian", 1, "sampled", "joint", 1),
    "plain, the default": ("gaussian", 1, "integrated", "joint", 1),
    "Gauss-Hermite": ("gauss_hermite", 1, "integrated", "joint", 1),
    "two components, 1 start": ("gaussian", 2, "integrated", "joint", 1),
    "two components, 8 starts": ("gaussian", 2, "integrated", "joint", 8),
}
"""Function, kinematic components, profile, continuum, starts."""


def configuration(function: str, components: int, profile: str, mode: str, starts: int) -> str:
    """Return the text of one case's configuration."""
    text = CONFIG.format(function=function, profile=profile, mode=mode, starts=starts)
    for k in range(components):
        own = (FIRST, SECOND)[k] + (HERMITE if function == "gauss_hermite" else "")
        for i, (name, wavelength) in enumerate(LINES):
            text += f"[{name}{'_b' * k}]\nrest_wavelength: {wavelength}\namplitude: peak, 0:\nk_group: {k}\n"
            text += own if i == 0 else ""
    return text


def tile(source: Path, target: Path, times: int) -> None:
    """Write the cube repeated `times` by `times` in the sky."""
    with fits.open(source) as cube:
        planes = [
            fits.ImageHDU(np.tile(hdu.data, (1, times, times)), hdu.header, name=hdu.name)
            for hdu in cube
            if hdu.name in ("DATA", "STAT", "DQ") and hdu.data is not None
        ]
        fits.HDUList([fits.PrimaryHDU(header=cube[0].header), *planes]).writeto(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="tile so many times along x and y (5: 40,000 spaxels)")
    parser.add_argument("--case", choices=sorted(CASES), help="one case only")
    options = parser.parse_args()
    began = time.process_time()
    import ifujax
    from ifujax.io.demo import minicube_path
    from ifujax.lines.dialect import parse_config

    warnings.filterwarnings("ignore", "noise is correlated")
    minicube = minicube_path()
    print(f"{THREADS} thread; imports: {time.process_time() - began:.1f} CPU s")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "tiled.fits"
        tile(minicube, large, options.times)
        # Large enough to go through the same programs as the large one.
        warm = Path(folder) / "warm.fits"
        tile(minicube, warm, 2)
        for case in [options.case] if options.case else CASES:
            config = parse_config(configuration(*CASES[case]))
            cpu = time.process_time()
            small = ifujax.fit_cube(ifujax.read_cube(warm, redshift=0.0859), config)
            small.write(Path(folder) / "small.fits", overwrite=True)
            first = time.process_time() - cpu
            cpu, wall = time.process_time(), time.perf_counter()
            fit = ifujax.fit_cube(ifujax.read_cube(large, redshift=0.0859), config)
            fitted = time.process_time() - cpu
            fit.write(Path(folder) / "large.fits", overwrite=True)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            n = fit.status.size
            rate = n / cpu
            print(f"{case}: {fit.summary()}")
            print(f"    {1e6 * cpu / n:.0f} CPU us a spaxel, {1e6 * fitted / n:.0f} without writing; {wall:.1f} s of wall time")
            print(f"    {rate:.0f} spaxels per CPU second = {rate / IFSCUBE_PER_CPU_SECOND:.0f} x IFSCube")
            print(f"    first run on 6,400 spaxels, compiling: {first:.1f} CPU s")


if __name__ == "__main__":
    main()
