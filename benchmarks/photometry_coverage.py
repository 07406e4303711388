"""Coverage, scatter and bias of image fits on 1,000 realisations of noise each.

The reference scenes S1 and S2 of imphot's measurements (where that data is at hand; ``--data``), with HST at its native
sampling and regridded, and scenes of `ifujax.simulate` with the same parameters, whose HST PSF is known exactly. Prints, for
every parameter: bias and scatter of the fits, the mean reported error, and the share of fits within one reported error of the
truth.

    python benchmarks/photometry_coverage.py --data ../shared/data/image_photometry
"""

from __future__ import annotations

# isort: off
from single_thread import THREADS

# isort: on
import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import ifujax
from ifujax.simulate import random_scene, simulate_image_pair

NAMES = ("scale", "bg", "dx", "dy", "fwhm", "beta")
CASES = {
    "S1": {"fwhm": 0.65, "beta": 2.8, "dx": 0.12, "dy": -0.23, "scale": 0.95, "bg": 0.05},
    "S2": {"fwhm": 0.45, "beta": 2.0, "dx": -0.45, "dy": 0.31, "scale": 1.10, "bg": -0.03},
}
SIGMA = 0.05
AT_ONCE = 8


@dataclass(frozen=True)
class Problem:
    """A pair of images without noise, the truth, and how it is fitted."""

    name: str
    hst: ifujax.Image
    muse: ifujax.Image
    truth: dict[str, float]
    options: dict[str, object]
    first_seed: int = 1000

    def noisy(self, i: int) -> ifujax.Image:
        noise = np.random.default_rng(self.first_seed + i).normal(0.0, SIGMA, self.muse.shape)
        return replace(self.muse, values=self.muse.values + noise)


def sampled_psf(half: int = 160, step: float = 0.05, fwhm: float = 0.085, beta: float = 1.6) -> ifujax.ImagePSF:
    """The HST PSF of the reference scenes as their stars have it: sampled at pixel centres, out to 8 arcsec."""
    x = (np.arange(2 * half + 1) - half) * step
    r2 = x[None, :] ** 2 + x[:, None] ** 2
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    values = (beta - 1.0) / (np.pi * alpha**2) * step**2 * (1.0 + r2 / alpha**2) ** -beta
    return ifujax.ImagePSF(np.where(r2 <= (half * step) ** 2, values, 0.0), step)


def problems(data: Path | None, pixel: float) -> Iterator[Problem]:
    """Yield what is to be fitted."""
    scene = random_scene(5, size_arcsec=44)
    size = int(50 / pixel) // 2 * 2
    for case, truth in CASES.items():
        masks = {"masked_edge": 10, "masked_blocks": [(60, 80, 90, 120)]} if case == "S2" else {}
        pair = simulate_image_pair(
            scene, sigma=SIGMA, seed=None, hst_shape=(size, size), hst_pixel=pixel, muse_options=masks, **truth
        )
        yield Problem(f"simulated {case}", pair.hst, pair.muse, truth, {})
    if data is None or not data.is_dir():
        return
    for case, truth in CASES.items():
        muse = ifujax.read_image(data / "synth" / f"{case}_noiseless.fits")
        native = ifujax.read_image(data / "synth" / "hst_native.fits")
        regridded = ifujax.read_image(data / "synth" / "hst_on_muse.fits")
        yield Problem(f"reference {case}, native, PSF of its stars", native, muse, truth, {"hst_psf": sampled_psf()})
        yield Problem(f"reference {case}, native, default PSF", native, muse, truth, {})
        yield Problem(f"reference {case}, regridded, default PSF", regridded, muse, truth, {})


def run(problem: Problem, count: int) -> dict[str, object]:
    """Fit every realisation; return what the table shows."""
    began = time.process_time()
    found, failed = [], 0
    for first in range(0, count, AT_ONCE):
        images = [problem.noisy(i) for i in range(first, min(first + AT_ONCE, count))]
        for fit in ifujax.iterate_image_photometry(problem.hst, images, **problem.options):
            failed += fit.status != 0
            found.append([(fit.value(name).value, fit.value(name).error) for name in NAMES] + [(fit.reduced_chi2, 0.0)])
    seconds = (time.process_time() - began) / count
    values = np.array(found)
    rows = {}
    print(
        f"\n{problem.name}: {count} realisations, {failed} failed, reduced chi2 {np.nanmean(values[:, -1, 0]):.4f}, "
        f"{1e3 * seconds:.0f} ms of CPU each (compilation included)"
    )
    print(f"  {'':6}{'bias':>11}{'scatter':>11}{'error':>11}{'bias/scatter':>14}{'covers':>9}")
    for k, name in enumerate(NAMES):
        off, error = values[:, k, 0] - problem.truth[name], values[:, k, 1]
        row = {"bias": off.mean(), "scatter": off.std(), "error": error.mean(), "covers": np.mean(np.abs(off) < error)}
        rows[name] = {key: float(value) for key, value in row.items()}
        print(
            f"  {name:6}{row['bias']:11.5f}{row['scatter']:11.5f}{row['error']:11.5f}{row['bias'] / row['scatter']:14.2f}"
            f"{row['covers']:9.1%}",
            flush=True,
        )
    return {"name": problem.name, "count": count, "failed": int(failed), "seconds": seconds, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000, help="realisations of each")
    parser.add_argument("--pixel", type=float, default=0.03, help="HST pixels of the simulated scenes, arcsec")
    parser.add_argument("--data", type=Path, help="folder with the reference scenes")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    table = [run(problem, options.n) for problem in problems(options.data, options.pixel)]
    if options.json:
        options.json.write_text(json.dumps({"threads": THREADS, "table": table}, indent=1))


if __name__ == "__main__":
    main()
