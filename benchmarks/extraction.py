"""CPU time of ``extract_sources``, beside a plain numpy core of AutoSpec's products; and a crowded field.

``PYTHONPATH=. python benchmarks/extraction.py`` extracts eight sources of the demonstration's cube (25 x 25 spaxels, 3,681
channels, one HST image), scene included, and times in the same run what AutoSpec's arithmetic takes in plain numpy: sky, sums,
two weighted spectra, a polynomial of degree 5 for every spaxel, two maps and their spectra. ``--crowded 1000 --channels 1000``
fits a field of that many sources (200 x 200 spaxels) and prints time, memory and coverage.
"""

from __future__ import annotations

# One thread: CPU seconds are compared
# isort: off
from single_thread import THREADS

# isort: on
import argparse
import resource
import time
import warnings
from collections.abc import Callable

import numpy as np

from ifujax.data.cube import Cube
from ifujax.extraction import CatalogSource, ExtractionConfig, extract_scene, extract_sources
from ifujax.extraction.run import extractor_of
from ifujax.io.cubes import read_cube
from ifujax.io.demo import demo_file
from ifujax.io.images import read_image

CATALOG = (
    (63.3561058, 10.4661665), (63.3554039, 10.4647026), (63.3559265, 10.4653692), (63.35569, 10.4646378), (63.3552666, 10.465785),
    (63.3567162, 10.4656963), (63.3559914, 10.4646139), (63.3549309, 10.4656277),
)  # fmt: skip


def plain_core(
    values: np.ndarray, variance: np.ndarray, good: np.ndarray, sky: np.ndarray, mask: np.ndarray, white: np.ndarray
) -> None:
    """What a person would write in numpy of AutoSpec's products."""
    data, noise = np.where(good, values, 0.0), np.where(good, variance, 0.0)
    number = (good & sky).sum(axis=(1, 2))
    level = (data * sky).sum(axis=(1, 2)) / number
    level_noise = (noise * sky).sum(axis=(1, 2)) / number**2
    less, more = data - level[:, None, None], noise + level_noise[:, None, None]

    def weighted(image: np.ndarray) -> np.ndarray:
        profile = np.where(mask, image - np.nanmin(image[mask]), 0.0)
        profile = np.nan_to_num(profile / np.nansum(profile))
        with np.errstate(divide="ignore", invalid="ignore"):
            top = np.nansum(np.where(good, profile * less / more, 0.0), axis=(1, 2))
            bottom = np.nansum(np.where(good, profile**2 / more, 0.0), axis=(1, 2))
            return top / bottom

    reference = weighted(white)
    x = np.linspace(-1.0, 1.0, len(data))
    flat = data.reshape(len(data), -1)
    residual = (flat - np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyfit(x, flat, 5)).T).reshape(data.shape)
    own = np.nan_to_num(reference)
    own_residual = own - np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyfit(x, own, 5))
    for image in ((own[:, None, None] * data).sum(axis=0), (own_residual[:, None, None] * residual).sum(axis=0)):
        weighted(image)
    (less * mask).sum(axis=(1, 2))


def minicube(times: int) -> None:
    cube, hst = read_cube(demo_file("minicube.fits"), redshift=0.0), read_image(demo_file("a478hst-cutout.fits"))
    catalog = [CatalogSource(str(k + 1), *at) for k, at in enumerate(CATALOG)]
    config = ExtractionConfig(apertures=(0.6, 1.0), object_mask="union")
    seconds: dict[str, list[float]] = {
        "first run, compiling included": [],
        "with the scene": [],
        "classic products": [],
        "plain numpy": [],
    }

    def timed(name: str, function: Callable[[], object]) -> None:
        began = time.process_time()
        function()
        seconds[name].append((time.process_time() - began) / len(catalog))

    timed("first run, compiling included", lambda: extract_sources(cube, catalog, config, images={"HST": hst}))
    extractor = extractor_of(cube, config, {"HST": hst})
    stamps = []
    for source in catalog:
        result = extractor.classic(source, config.with_changes(keep_cubes=True))
        assert result.cube is not None
        assert result.classic is not None
        assert result.white is not None
        stamps.append((result.cube, result.classic.masks, result.white))
    for _ in range(times):
        timed("with the scene", lambda: extract_sources(cube, catalog, config, images={"HST": hst}))
        timed("classic products", lambda: extract_sources(cube, catalog, config.with_changes(scene=False), images={"HST": hst}))
        timed(
            "plain numpy",
            lambda: [
                plain_core(stamp.values, stamp.variance, ~stamp.bad, masks["MASK_SKY"], masks["MASK_UNION"], white)
                for stamp, masks, white in stamps
            ],
        )
    print(f"{THREADS} thread")
    for name, each in seconds.items():
        print(f"{name}: {np.median(each):.3f} s of CPU a source")


def crowded(count: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    size, wavelength = 200, np.linspace(4800.0, 9300.0, channels)
    x, y = rng.uniform(2, size - 3, (2, count))
    spectra = 10 ** rng.uniform(0, 2, count)[:, None] * (1 + 0.3 * np.sin(wavelength / rng.uniform(100, 800, count)[:, None]))
    width = 0.7 * (1 - 3e-5 * (wavelength - 7000))
    alpha2 = width**2 / (4 * (2 ** (1 / 2.5) - 1))
    values = rng.normal(0, 0.1, (channels, size, size)).astype(np.float32)
    for s in range(count):
        rows, columns = (slice(max(int(at) - 30, 0), int(at) + 31) for at in (y[s], x[s]))
        gy, gx = np.mgrid[:size, :size][:, rows, columns]
        r2 = ((gy - y[s]) ** 2 + (gx - x[s]) ** 2) * 0.04
        peak = spectra[s] * 0.04 * 1.5 / (np.pi * alpha2)
        values[:, rows, columns] += (peak[:, None, None] * (1 + r2 / alpha2[:, None, None]) ** -2.5).astype(np.float32)
    cube = Cube(values, wavelength, np.full(values.shape, 0.01, np.float32), "variance")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began = time.process_time()
    scene = extract_scene(cube, x, y, step=(0.2, 0.2))
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pulls = (scene.flux - spectra) / scene.error
    print(scene)
    print(f"{seconds:.1f} s of CPU, {1e6 * seconds / count / channels:.0f} us per source and channel")
    print(f"memory: peak {peak:.2f} GB, {before:.2f} GB of it before; cube and variance {2 * values.nbytes / 1e9:.2f} GB")
    print(f"68 % intervals hold {np.mean(np.abs(pulls) < 1):.3f}; mean pull {pulls.mean():+.3f}")
    near = np.array([np.sort(np.hypot(x - a, y - b))[1] * 0.2 for a, b in zip(x, y)])
    for low, high in ((0, 0.3), (0.3, 0.6), (0.6, 1.0), (1.0, 9.0)):
        some = (near >= low) & (near < high)
        inflation, inside = scene.inflation[some], np.abs(pulls[some]) < 1
        print(f"  nearest neighbour {low} to {high} arcsec: {some.sum()} sources, errors x {np.median(inflation):.2f},", end=" ")
        print(f"intervals hold {inside.mean():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crowded", type=int, metavar="SOURCES")
    parser.add_argument("--channels", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.crowded:
        crowded(options.crowded, options.channels)
    else:
        minicube(options.times)
