"""CPU time of an image fit beside what imphot does (imphot_equivalent.py): one thread, compilation apart, in one run.

Simulated pairs of 80 to 320 pixels a side, beta free. The forward fit gets the HST image with its own pixels, transformed once
for all images, and regridded; the Fourier fit and the baseline get it regridded. Also 50 images in one call, of three shapes.

    PYTHONPATH=. python benchmarks/image_photometry.py
"""

from __future__ import annotations

# isort: off
from single_thread import THREADS

# isort: on
import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from imphot_equivalent import imphot_equivalent

import ifujax
from ifujax.images.regrid import regrid_like
from ifujax.photometry.config import PhotometryOptions
from ifujax.photometry.forward.fit import fit_prepared
from ifujax.photometry.forward.preparation import prepare
from ifujax.simulate import random_scene, simulate_image_pair

TRUTH = {"fwhm": 0.65, "beta": 2.8, "dx": 0.12, "dy": -0.23, "scale": 0.95, "bg": 0.05}
STEP = (0.2, 0.2)


def best_of(call: Callable[[], Any], repeats: int = 3) -> float:
    """Least CPU seconds of some calls, after one that compiles."""
    call()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return min(seconds)


def simulated(size: int, seed: int = 1) -> tuple[ifujax.Image, ifujax.Image]:
    extent = size * 0.2
    density = max(int(60 * (size / 160) ** 2), 6)
    scene = random_scene(7, size_arcsec=extent + 8, n_galaxies=density, n_stars=max(density // 15, 2))
    native = int((extent + 10) / 0.05) // 2 * 2
    pair = simulate_image_pair(scene, muse_shape=(size, size), hst_shape=(native, native), sigma=0.05, seed=seed, **TRUTH)
    return pair.hst, pair.muse


def checked_fit(hst: ifujax.Image, muse: ifujax.Image, settings: PhotometryOptions, cache: dict[Any, Any]) -> None:
    """Prepare and fit an image; a fit that is fast and wrong does not count."""
    prepared = prepare(hst, muse, settings, cache=cache)
    outcome = next(fit_prepared([prepared], settings))[1]
    if outcome.status or abs(outcome.values["fwhm"] - TRUTH["fwhm"]) > 5 * outcome.errors["fwhm"]:
        raise RuntimeError(f"the fit is not good: {outcome.values}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[80, 160, 320], help="pixels a side")
    parser.add_argument("--many", type=int, default=50, help="images of the one call")
    options = parser.parse_args()
    print(f"{THREADS} thread(s); CPU milliseconds an image, least of 3; ratio to the baseline in brackets")
    print(
        f"{'pixels':>7}{'imphot-equivalent':>20}{'forward, native':>22}{'forward, regridded':>22}{'fourier':>20}"
        f"{'once per HST':>15}"
    )
    settings = PhotometryOptions()
    for size in options.sizes:
        hst, muse = simulated(size)
        regridded = regrid_like(hst, muse)
        baseline = best_of(partial(imphot_equivalent, regridded.values, muse.values, STEP), 2)
        cells = [f"{1e3 * baseline:.0f}"]
        once = best_of(partial(prepare, hst, muse, settings), 2)
        for given in (hst, regridded):
            cache: dict[Any, Any] = {}

            seconds = best_of(partial(checked_fit, given, muse, settings, cache))
            cells.append(f"{1e3 * seconds:.0f} (1 / {baseline / seconds:.0f})")
        seconds = best_of(partial(ifujax.fit_image_photometry, regridded, muse, method="fourier"))
        cells.append(f"{1e3 * seconds:.0f} (1 / {baseline / seconds:.1f})")
        print(f"{size:>7}{cells[0]:>20}{cells[1]:>22}{cells[2]:>22}{cells[3]:>20}{1e3 * once:>15.0f}", flush=True)
    hst, muse = simulated(160)
    rng = np.random.default_rng(0)
    images = []
    for i in range(options.many):
        cut = i % 3
        values = muse.values + rng.normal(0.0, 0.02, muse.shape)
        celestial = muse.celestial.deepcopy()  # type: ignore[union-attr]
        celestial.wcs.crpix = celestial.wcs.crpix - cut
        window = np.s_[cut : 160 - cut, cut : 160 - cut]
        images.append(replace(muse, values=values[window], variance=muse.variance[window], celestial=celestial))  # type: ignore[index]
    seconds = best_of(lambda: ifujax.fit_image_photometry(hst, images), 1)
    print(
        f"{options.many} images of three shapes in one call: {1e3 * seconds / options.many:.0f} ms of CPU an image, all included"
    )


if __name__ == "__main__":
    main()
