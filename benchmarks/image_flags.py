"""What image fits say of themselves beside what they said before, and a figure of it.

Images of points by numpy alone (`tests.photometry.point_scenes`): noise without a scene, scenes that get fainter, right models,
and ones that are wrong. "before" are the rules of ifujax up to issue 11: no test of detection, chi2 per degree of freedom
within 0.5 and 2, looked at with ``noise="variance"`` alone.

    PYTHONPATH=. python benchmarks/image_flags.py --figure flags.png
"""

from __future__ import annotations

# isort: off
from single_thread import THREADS

# isort: on
import argparse

import numpy as np
from matplotlib.figure import Figure

import ifujax
from tests.photometry.point_scenes import HST_BETA, HST_FWHM, TRUTH, Points, drizzled, hst_image, muse_image, muse_signal, scene
from tests.photometry.test_goodness import misfits

FAINT = (0.01, 0.02, 0.03, 0.05)
NOISES = ("variance", "scaled", "correlated")


def pulls(fit: ifujax.ImagePhotometry) -> np.ndarray:
    return np.array([(fit.value(name).value - value) / fit.value(name).error for name, value in TRUTH.items()])


def before(fit: ifujax.ImagePhotometry) -> bool:
    """Whether the old rules would have said something."""
    return fit.options.noise == "variance" and not 0.5 < fit.reduced_chi2 < 2.0


def detections(hst: ifujax.Image, count: int, axis) -> None:
    nothing = np.full((48, 48), TRUTH["bg"])
    makers = {
        "noise": lambda seed: muse_image(nothing, seed),
        "correlated noise": lambda seed: muse_image(nothing, seed, noise=drizzled(np.random.default_rng(seed), nothing.shape)),
    }
    for share in FAINT:
        signal = TRUTH["bg"] + share * (muse_signal(scene()) - TRUTH["bg"])
        makers[f"{100 * share:.0f} % of the scene"] = lambda seed, signal=signal: muse_image(signal, seed)
    edges = np.linspace(0.0, 22.0, 45)
    for name, make in makers.items():
        found = ifujax.fit_image_photometry(hst, [make(seed) for seed in range(count)])
        seen = np.array([fit.significance for fit in found])
        off = np.array([np.hypot(fit.dx.value - TRUTH["dx"], fit.dy.value - TRUTH["dy"]) > 0.4 for fit in found])
        print(f"{name:20} detected {np.mean(seen >= 3):.3f}; before 1.000; more than 0.4 arcsec off {off.mean():.3f}, "
              f"of those detected {off[seen >= 3].mean() if (seen >= 3).any() else 0:.3f}")  # fmt: skip
        axis.hist(seen, edges, histtype="step", label=name, linewidth=1.4)
    axis.axvline(3.0, color="0.3", linestyle=":")
    axis.set(xlabel="significance (sigma)", ylabel="images", title="is the scene there?")
    axis.legend(fontsize=7)


def flags(hst: ifujax.Image, count: int, axis) -> None:
    signals = {"right": muse_signal(scene()), **misfits()}
    rows = []
    for name, signal in signals.items():
        size = 1.15 if name.startswith("variances") else 1.0
        images = [muse_image(signal, k, noise=size * np.random.default_rng(k).normal(size=signal.shape)) for k in range(count)]
        for noise in NOISES:
            fits = ifujax.fit_image_photometry(hst, images, noise=noise)
            worst = float(np.median([np.abs(pulls(fit)).max() for fit in fits]))
            rows.append(
                (f"{name}, {noise}", worst, np.mean([before(fit) for fit in fits]), np.mean([fit.warn != 0 for fit in fits]))
            )
            print(f"{rows[-1][0]:42} worst pull {worst:5.1f}   flagged before {rows[-1][2]:.2f}, now {rows[-1][3]:.2f}")
    y = np.arange(len(rows))[::-1]
    axis.barh(y + 0.2, [row[2] for row in rows], 0.38, color="0.6", label="before")
    axis.barh(y - 0.2, [row[3] for row in rows], 0.38, color="tab:blue", label="now")
    axis.set_yticks(y, [f"{name} ({worst:.0f})" for name, worst, *_ in rows], fontsize=5.5)
    axis.set(xlabel="share of fits with a flag", title="is it right? (worst of six pulls)")
    axis.legend(fontsize=7)


def robust(hst: ifujax.Image, count: int, axis) -> None:
    points = scene()
    shifts = np.array([0.0, 0.05, 0.1, 0.25, 0.5, 1.0])
    for loss, marker in (("gaussian", "o"), ("student_t", "s")):
        off = []
        for shift in shifts:
            x = points.x.copy()
            x[0] += shift
            signal = muse_signal(Points(x, points.y, points.flux))
            fits = ifujax.fit_image_photometry(hst, [muse_image(signal, k) for k in range(count)], loss=loss)
            off.append(float(np.median([pulls(fit)[2] for fit in fits])))
        print(f"{loss:10} pull of dx where the brightest star moved by {dict(zip(shifts.tolist(), np.round(off, 1).tolist()))}")
        axis.plot(shifts, off, marker=marker, label="before" if loss == "gaussian" else 'loss="student_t"')
    axis.set(xlabel="the brightest star moved by (arcsec)", ylabel="dx off (errors)", title="outliers", yscale="symlog")
    axis.legend(fontsize=7)


def psf_errors(hst: ifujax.Image, count: int, axis) -> None:
    rng, error = np.random.default_rng(1), (0.01, 0.12)
    found: dict[str, list[float]] = {"before": [], "with hst_psf_error": []}
    for seed in range(count):
        psf = ifujax.MoffatPSF(HST_FWHM + error[0] * rng.normal(), HST_BETA + error[1] * rng.normal())
        for name, stated in zip(found, (None, error)):
            image = muse_image(muse_signal(scene()), seed)
            fit = ifujax.fit_image_photometry(hst, image, hst_psf=psf, hst_psf_error=stated)
            found[name].append(float(pulls(fit)[0]))
    for name, some in found.items():
        print(f"PSF of HST off, {name}: FWHM pulls of width {np.std(some):.2f}, within 1: {np.mean(np.abs(some) < 1):.2f}")
        axis.hist(some, np.linspace(-8, 8, 33), histtype="step", label=name, linewidth=1.4)
    axis.set(xlabel="FWHM off (errors)", ylabel="fits", title="PSF of HST known to 12 % and 8 %")
    axis.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="images of each kind")
    parser.add_argument("--figure", help="write it there")
    given = parser.parse_args()
    hst = hst_image(scene())
    print(f"{THREADS} thread, {given.count} images of each kind")
    figure = Figure(figsize=(12.5, 8.5), layout="constrained")
    axes = figure.subplot_mosaic([["detection", "flags"], ["robust", "flags"], ["psf", "flags"]])
    detections(hst, given.count, axes["detection"])
    flags(hst, max(given.count // 5, 5), axes["flags"])
    robust(hst, max(given.count // 5, 5), axes["robust"])
    psf_errors(hst, given.count, axes["psf"])
    if given.figure:
        figure.savefig(given.figure, dpi=120)


if __name__ == "__main__":
    main()
