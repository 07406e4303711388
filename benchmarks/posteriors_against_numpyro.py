"""Our posteriors of twenty spaxels beside long numpyro runs of an independent model: eight of a MUSE cube, twelve simulated.

Four chains of 5,000 draws each; quantiles 5, 16, 50, 84 and 95 % of all six parameters. Prints one line a spaxel and the verdict:
95 % of the differences within 2 combined Monte Carlo errors, none beyond 5, none above 0.6 of a posterior standard deviation.
"""

from __future__ import annotations

import argparse
import os
from itertools import chain

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from tests.lines.posteriors.comparison import compare, describe, real_spaxels, run_reference, simulated_spaxels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, default=8, help="spaxels of the MUSE cube")
    parser.add_argument("--simulated", type=int, default=4, help="simulated spaxels of each of three brightnesses")
    parser.add_argument("--draws", type=int, default=5000, help="of each of four chains of the reference")
    options = parser.parse_args()
    differences = []
    for spaxel in chain(real_spaxels(options.real), simulated_spaxels(options.simulated)):
        reference = run_reference(spaxel, options.draws)
        found = compare(spaxel, reference)
        trusted = reference.rhat < 1.01
        print(describe(spaxel, reference, found) + ("" if trusted and spaxel.status == 0 else "   (left out)"), flush=True)
        if trusted and spaxel.status == 0:
            differences += found
    sigmas = np.abs([item.sigmas for item in differences])
    widths = np.abs([item.widths for item in differences])
    print(f"\n{len(sigmas)} quantiles: {np.mean(sigmas <= 2.0):.1%} within 2 Monte Carlo errors (target: 95 % or more)")
    print(f"largest: {sigmas.max():.1f} errors (target: below 5), {widths.max():.2f} posterior standard deviations (below 0.6)")
    print(f"root mean square over the Monte Carlo errors: {np.sqrt(np.mean(sigmas**2)):.2f} (1 if these are right)")


if __name__ == "__main__":
    main()
