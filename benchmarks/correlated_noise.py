"""Coverage of 68 % errors where noise is correlated (issue 11, B.8): before (`noise: given`) and after (`noise: correlated`).

Spectra with known lines in noise that is independent; correlated along wavelength, as linear interpolation half way between
pixels makes it (0.5 with the next pixel); correlated between spaxels; both; and a real one: what a MUSE cube (`ifujax.io.demo`)
holds in windows without emission lines, less its smooth light. Profiles are integrals of Gaussians over pixels by SciPy's error
function; nothing is taken from `ifujax.simulate`. W80 of a Gaussian is 2.5631 sigma.

Run ``python benchmarks/correlated_noise.py --help`` from the root of the repository.
"""

from __future__ import annotations

# isort: off
from single_thread import THREADS

# isort: on
import argparse
import warnings

import numpy as np
from scipy.special import erf

C = 299792.458
W80 = 2.0 * 1.2815515655446004
LINES = {"n2a": (6548.05, 0.4 / 3), "ha": (6562.8, 1.0), "n2b": (6583.46, 0.4)}
QUANTITIES = ("velocity", "velocity_dispersion", "flux", "equivalent_width", "flux_direct", "W80")
MUSE_WINDOWS = ((4920.0, 5180.0), (5940.0, 6200.0), (6660.0, 6820.0))
"""Observed Angstrom: parts of the real cube without emission lines of the cluster or bright ones of the sky."""


def profile(wave: np.ndarray, rest: float, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return mean flux density in pixels (wave, n) of lines of unit flux; relativistic velocities, km/s."""
    step = wave[1] - wave[0]
    beta = velocity / C
    shift = np.sqrt((1 + beta) / (1 - beta))
    edges = np.append(wave - step / 2, wave[-1] + step / 2)[:, None]
    # Gaussian in velocity, as the Doppler formula has it for each edge.
    q = (edges / rest) ** 2
    v = C * (q - 1) / (q + 1)
    below = 0.5 * (1 + erf((v - velocity[None]) / (np.sqrt(2) * sigma[None])))
    del shift
    return np.diff(below, axis=0) / step


def correlated(rng: np.random.Generator, shape: tuple[int, int, int], axes: tuple[int, ...]) -> np.ndarray:
    """Return noise of variance 1, interpolated half way between pixels along some axes."""
    noise = rng.standard_normal([n + (k in axes) for k, n in enumerate(shape)])
    for axis in axes:
        first = [slice(None)] * 3
        last = [slice(None)] * 3
        first[axis], last[axis] = slice(1, None), slice(None, -1)
        noise = (noise[tuple(first)] + noise[tuple(last)]) / np.sqrt(2)
    return noise


def truths(rng: np.random.Generator, wave: np.ndarray, n: int, snr: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return spectra (wave, n) in units of the noise, and what is true of H-alpha."""
    velocity, sigma = rng.uniform(-150, 150, n), rng.uniform(70, 150, n)
    flux = snr * np.sqrt(2 * np.pi) * sigma / C * 6562.8
    spectra = sum(flux * ratio * profile(wave, rest, velocity, sigma) for rest, ratio in LINES.values())
    level, slope = rng.uniform(20, 40, n), rng.uniform(-3, 3, n)
    x = (wave - wave.mean()) / np.ptp(wave)
    continuum = level + slope * x[:, None]
    shape = profile(wave, 6562.8, velocity, sigma)
    width = -(flux * (shape / continuum).sum(axis=0) * (wave[1] - wave[0]))
    known = {"velocity": velocity, "velocity_dispersion": sigma, "flux": flux, "flux_direct": flux}
    return spectra + continuum, known | {"equivalent_width": width, "W80": W80 * sigma}


def muse_noise() -> list[np.ndarray]:
    """Return residuals (wave, y, x) of the real cube in units of its stated errors, window by window."""
    from astropy.io import fits

    from ifujax.io.demo import minicube_path

    found = []
    with fits.open(minicube_path()) as file:
        data, stat = file["DATA"].data, file["STAT"].data
        header = file["DATA"].header
        wave = header["CRVAL3"] + header["CD3_3"] * (np.arange(data.shape[0]) + 1 - header["CRPIX3"])
        for low, high in MUSE_WINDOWS:
            part = np.flatnonzero((wave >= low) & (wave <= high))
            values, variance = (np.asarray(a[part], dtype=float).reshape(len(part), -1) for a in (data, stat))
            x = np.linspace(-1, 1, len(part))
            # The light of the galaxy: what all spaxels have in common, times a slowly varying factor in each.
            common = np.nanmean(values / np.nanmedian(values, axis=0), axis=1)
            base = np.column_stack([common, common * x, common * x**2, np.ones_like(x), x])
            weight = 1 / np.nanmedian(variance, axis=1)
            solution = np.linalg.lstsq(
                base * np.sqrt(weight)[:, None], np.nan_to_num(values) * np.sqrt(weight)[:, None], rcond=None
            )[0]
            residual = (values - base @ solution) / np.sqrt(variance)
            found.append(residual.reshape(len(part), *data.shape[1:]))
    return found


def fitted(noise: np.ndarray, snr: float, mode: str, seed: int, degree: int) -> tuple[dict[str, np.ndarray], object]:
    """Fit known spectra in given noise (wave, y, x); return pulls of what is true, and the fit."""
    import ifujax

    rng = np.random.default_rng(seed)
    wave = 6565.0 + 1.25 * (np.arange(noise.shape[0]) - noise.shape[0] // 2)
    level = np.nanstd(noise)
    spectra, known = truths(rng, wave, noise[0].size, snr)
    data = spectra.reshape(noise.shape) * level + noise
    kinematics = ifujax.Kinematics(ifujax.Bounded(-500.0, 500.0, start=0.0), ifujax.Bounded(20.0, 400.0, start=100.0))
    lines = [ifujax.Line(name, rest, kinematics) for name, (rest, _) in LINES.items()]
    cube = ifujax.Cube(data, wave, np.where(np.isfinite(noise), 1.0, np.nan), "variance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ifujax.IfujaxWarning)
        fit = ifujax.fit_cube(cube, ifujax.EmissionModel(lines, continuum_degree=degree), noise=mode)
    pulls = {}
    for name in QUANTITIES:
        if name == "W80":
            width = fit.velocity_width("ha").model
            value, error = width.width, width.error.width
        else:
            value, error = fit["ha", name], fit.error["ha", name]
        scale = level if "flux" in name else 1.0
        pulls[name] = ((value.ravel() - known[name] * scale) / error.ravel())[(fit.status == 0).ravel()]
    return pulls, fit


def cases(n: int, side: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Return noise (wave, y, x), in parts, by name."""
    rng = np.random.default_rng(seed)
    shape = (n, side, side)
    made = {
        "independent": (),
        "along wavelength, 0.5": (0,),
        "between spaxels, 0.5": (1, 2),
        "both": (0, 1, 2),
    }
    found = {name: [correlated(rng, shape, axes)] for name, axes in made.items()}
    return found | {"real MUSE residuals": muse_noise()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=50, help="spaxels along either side of simulated cubes")
    parser.add_argument("--pixels", type=int, default=208, help="pixels of a spectrum")
    parser.add_argument("--snr", type=float, default=20.0, help="peak of H-alpha over the noise of a pixel")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--case", help="only cases whose name holds this")
    options = parser.parse_args()
    print(
        f"{THREADS} thread; share of spaxels within 1 error of the truth (68.3 % is right; +- {100 * 0.466 / options.side:.1f})"
    )
    print(f"{'noise':24}{'errors':12}" + "".join(f"{name[:12]:>14}" for name in QUANTITIES))
    for name, parts in cases(options.pixels, options.side, options.seed).items():
        if options.case and options.case not in name:
            continue
        for mode in ("given", "scaled", "correlated"):
            every, fit = [], None
            for k, noise in enumerate(parts):
                pulls, fit = fitted(noise, options.snr, mode, options.seed + k, 2)
                every.append(pulls)
            joined = {key: np.concatenate([pulls[key] for pulls in every]) for key in QUANTITIES}
            shares = [100 * np.mean(np.abs(joined[key][np.isfinite(joined[key])]) < 1) for key in QUANTITIES]
            print(f"{name:24}{mode:12}" + "".join(f"{share:14.1f}" for share in shares), flush=True)
        print("    " + str(fit.noise_correlation).replace("\n", "\n    "))
        structured = np.mean([((fit.warn & 256) > 0).mean()])
        print(
            f"    median reduced chi2 {np.nanmedian(fit.reduced_chi2):.3f}; structured residuals in {100 * structured:.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
