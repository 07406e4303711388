"""The MUSE cube of Abell 478: our fits beside those of IFSCube 1.3, and why they differ.

``python benchmarks/minicube_against_ifscube.py FOLDER``, with ``minicube_a478.npz`` (IFSCube's solution) and
``minicube_a478.cfg`` (its configuration) in FOLDER. Fits in IFSCube's way (frozen rejection polynomial, profile sampled at pixel
centres) and in ours (joint continuum, profile integrated over pixels), and prints a report.
"""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

import ifujax
from ifujax.errors import IfujaxWarning
from ifujax.inference.status import AT_BOUND
from ifujax.io.demo import minicube_path
from ifujax.lines.config import LineFitConfig

SNR = 5.0
N_FREE = 7
"""IFSCube's free parameters: five amplitudes, velocity and sigma; its reduced chi2 takes one more off the pixels."""


@dataclass(frozen=True)
class Theirs:
    """IFSCube's maps, (y, x) or (lines, y, x)."""

    flux: np.ndarray
    velocity: np.ndarray
    sigma: np.ndarray
    reduced_chi2: np.ndarray
    status: np.ndarray


def load(folder: Path) -> tuple[Theirs, LineFitConfig]:
    stored = np.load(folder / "minicube_a478.npz", allow_pickle=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IfujaxWarning)  # options that mean nothing here
        config = ifujax.read_config(folder / "minicube_a478.cfg")
    solution = np.asarray(stored["solution"], dtype=np.float64)
    theirs = Theirs(
        flux=np.asarray(stored["flux_model"], dtype=np.float64),
        velocity=solution[1],
        sigma=solution[2],
        reduced_chi2=np.asarray(stored["reduced_chi2"], dtype=np.float64),
        status=np.asarray(stored["status"], dtype=int),
    )
    return theirs, config


def percentiles(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    shown = np.percentile(values, [1, 16, 50, 84, 99]) if values.size else np.full(5, np.nan)
    return "  ".join(f"{value:8.3f}" for value in shown) + f"   (n = {values.size})"


def chi2_difference(theirs: Theirs, fit: ifujax.CubeFit) -> np.ndarray:
    """IFSCube's chi2 less ours, in the right units: it scales the data by 1 + z but not the variance."""
    stretch = (1.0 + fit.cube.redshift) ** 2
    return theirs.reduced_chi2 * (fit.n_good - N_FREE - 1) / stretch - fit.chi2


def differences(title: str, theirs: Theirs, fit: ifujax.CubeFit, rows: np.ndarray) -> None:
    print(f"\n{title}, {rows.sum()} spaxels; percentiles 1, 16, 50, 84, 99")
    for i, line in enumerate(fit.lines):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(rows & (fit[line, "snr"] > SNR), fit[line, "flux"] / theirs.flux[i], np.nan)
        print(f"    flux {line:<6} ours / IFSCube        {percentiles(ratio)}")
    strongest = fit.lines[int(np.argmax([np.nanmedian(fit[line, "flux"]) for line in fit.lines]))]
    for name, ours, their in (
        ("velocity", fit[strongest, "velocity"], theirs.velocity),
        ("sigma", fit[strongest, "sigma"], theirs.sigma),
    ):
        error = fit.error[strongest, name]
        print(f"    {name:<9} ours - IFSCube (km/s)  {percentiles(np.where(rows, ours - their, np.nan))}")
        print(f"    {'':<9} over our error         {percentiles(np.where(rows, (ours - their) / error, np.nan))}")


def report(theirs: Theirs, twin: ifujax.CubeFit, pixels: ifujax.CubeFit, joint: ifujax.CubeFit) -> None:
    strongest = np.nanmax(np.stack([twin[line, "snr"] for line in twin.lines]), axis=0)
    fitted = (twin.status == 0) & (joint.status == 0)
    bright = fitted & (strongest > SNR)
    lower, upper = _sigma_bounds(twin)
    theirs_at_edge = (np.abs(theirs.velocity) > 599.9) | (theirs.sigma < lower + 0.1) | (theirs.sigma > upper - 0.1)
    excess = chi2_difference(theirs, twin)
    worse, better = fitted & (excess > 0.1), fitted & (excess < -0.1)
    same = fitted & (np.abs(excess) <= 0.1)

    def count(what: np.ndarray) -> str:
        return f"{what.sum()} ({np.sum(what & bright)} bright)"

    print(f"{fitted.sum()} of {fitted.size} spaxels fitted by all of our modes; {bright.sum()} bright: a line with S/N > {SNR:g}")
    print(f"chi2 in IFSCube's own way: the same within 0.1 in {count(same)},")
    print(f"    IFSCube's higher in {count(worse)}, by up to {np.nanmax(excess):.1f}: it stopped in a higher minimum")
    print(f"    ours higher in {count(better)}, by up to {max(-np.nanmin(excess), 0):.2f}")
    differences("IFSCube's way, same minimum, bright: how far it stops from the minimum", theirs, twin, bright & same)
    differences("Profile integrated over pixels, continuum as IFSCube's", theirs, pixels, bright & same)
    differences("Our way: profile integrated, continuum fitted with the lines", theirs, joint, bright & same)
    print()
    for name, fit in (("IFSCube's way", twin), ("our way", joint)):
        print(f"{name}: a parameter at a bound, and marked so, in {count(fitted & ((fit.warn & AT_BOUND.value) != 0))} spaxels")
    print(f"IFSCube's solution: velocity or sigma at a bound in {count(theirs_at_edge)}, without a mark")
    print("\nStatus: IFSCube " + ", ".join(f"{s}: {int((theirs.status == s).sum())}" for s in np.unique(theirs.status)))
    print("    ours " + ", ".join(f"{s}: {int((twin.status == s).sum())}" for s in np.unique(twin.status)))
    nine = theirs.status == 9
    print(f"    status 9 (iteration limit) in {count(nine)}: chi2 less ours at most {np.max(excess[nine], initial=0.0):.3f}:")
    print("    they are at the minimum, and ours are status 0")
    print(f"    status 0 although a lower minimum exists: {count((theirs.status == 0) & worse)}")
    ratio = np.where(same, theirs.reduced_chi2 / twin.reduced_chi2, np.nan)
    print(f"\nReduced chi2, IFSCube's over ours, same minimum: {percentiles(ratio)}")
    print(f"    IFSCube's variance lacks (1 + z)^2 = {(1 + twin.cube.redshift) ** 2:.3f}, and counts one degree less")
    less = joint_less_two_step(joint, pixels)
    print(f"\nchi2 of the joint fit less that of the two steps, same pixels: {percentiles(less)}, highest {np.nanmax(less):.3f}")


def joint_less_two_step(joint: ifujax.CubeFit, frozen: ifujax.CubeFit) -> np.ndarray:
    """Compare on the pixels that the joint fit used: it leaves out a few outliers."""
    rows = np.arange(joint.found.status.size)
    one, two = joint.spectra(rows), frozen.spectra(rows)
    chi2 = [
        np.sum(np.where(one.fitted, (one.data - spectra.model) ** 2 / one.variance, 0.0), axis=1)  # type: ignore[operator]
        for spectra in (one, two)
    ]
    return chi2[0] - chi2[1]


def _sigma_bounds(fit: ifujax.CubeFit) -> tuple[float, float]:
    item = fit.setup.lines[0].kinematics.velocity_dispersion
    return item.lower, item.upper  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    theirs, config = load(folder)
    loading = config.loading
    cube = ifujax.read_cube(minicube_path(), redshift=loading.redshift, scidata=loading.scidata, variance=loading.variance)
    print(f"read as: {'; '.join(cube.notes) or cube!r}")
    twin_config = replace(
        config,
        model=replace(config.model, profile="sampled"),
        continuum=replace(config.continuum, mode="rejection"),
    )
    twin = ifujax.fit_cube(cube, twin_config)
    pixels = ifujax.fit_cube(cube, replace(twin_config, model=config.model))
    joint = ifujax.fit_cube(cube, config)
    report(theirs, twin, pixels, joint)


if __name__ == "__main__":
    main()
