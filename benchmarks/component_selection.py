"""How often the number of components is right: false second components and missed ones, by threshold and by signal to noise.

Simulated cubes (`ifujax.simulate.outflow`): a disc alone, and a disc with an outflow everywhere, 0 to 300 km/s off, 1.5 to 3
times as broad, with 0.1 to 1 times the flux. Two sets of lines: H-alpha with [N II] (5 more parameters) and one line alone
(3 more).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise

import numpy as np

import ifujax
from ifujax.lines.selection.criteria import choose
from ifujax.simulate import HALPHA_LINES, outflow
from tests.lines.selection.components import ONE_LINE, candidates, expected_gain, second_snr

LINES = {"three lines": HALPHA_LINES, "one line": ONE_LINE}
THRESHOLDS = {"bic": (0.0, 2.0, 4.0, 6.0, 10.0, 15.0), "aic": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)}
BINS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, np.inf)
UNDERESTIMATED = 1.5
"""Factor by which the variance is said to be too small, for the second figure of false ones."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=48, help="spaxels on a side")
    parser.add_argument("--peak", type=float, default=200.0, help="peak S/N per pixel in the centre")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for title, lines in LINES.items():
        models = candidates(lines)
        single, double = (
            outflow(
                (options.size, options.size),
                lines,
                peak_snr=options.peak,
                scale_radius=options.size / 4.5,
                opening_angle=angle,
                seed=options.seed,
            )
            for angle in (0.0, 180.0)
        )
        alone, both = (ifujax.fit_components(each.cube, models) for each in (single, double))
        gain = alone.fits[0].chi2 - alone.fits[1].chi2
        print(f"\n{title}: {alone.summary()}; {both.summary()}")
        print("chi2 gained by a second component that isn't there, 50, 90, 98, 99, 99.9 %:", end=" ")
        print(np.nanpercentile(gain, [50, 90, 98, 99, 99.9]).round(1))
        measures = (second_snr(double), np.sqrt(expected_gain(double, models[0])))
        bins = [[(each >= low) & (each < high) for low, high in pairwise(BINS)] + [each > 8] for each in measures]
        print(
            "bins:", ", ".join(f"{a:g}-{b:g}" for a, b in pairwise(BINS)) + ", above 8; of flux/error | of root of expected gain"
        )
        print("    spaxels               | " + " | ".join(" ".join(f"{here.sum():5d}" for here in inside) for inside in bins))
        for criterion, thresholds in THRESHOLDS.items():
            judged, judged_both = (replace(fit, criterion=criterion) for fit in (alone, both))
            wrong = judged.criteria + (UNDERESTIMATED - 1.0) * np.stack([fit.chi2 for fit in judged.fits])
            print(f"{criterion}: threshold, false %, with a variance {UNDERESTIMATED:g} times too small; found %")
            for threshold in thresholds:
                false, worse = (100 * (choose(each, judged.n_free, threshold) == 1).mean() for each in (judged.criteria, wrong))
                two = choose(judged_both.criteria, judged_both.n_free, threshold) == 1
                found = " | ".join(" ".join(f"{share(two, here):5.1f}" for here in inside) for inside in bins)
                print(f"    {threshold:4g}  {false:6.2f} {worse:6.2f}  | {found}")


def share(two: np.ndarray, here: np.ndarray) -> float:
    """Per cent of some spaxels in which two components were chosen."""
    return float(100 * two[here].mean()) if here.any() else np.nan


if __name__ == "__main__":
    main()
