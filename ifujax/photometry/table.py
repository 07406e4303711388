"""Results as text: imphot's table, a report to read, and one astropy table with everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.inference.status import STATUS_FLAGS, STRUCTURED_RESIDUALS, WARN_FLAGS, decode

if TYPE_CHECKING:
    from astropy.table import Table

    from ifujax.photometry.results import FittedPhotometry

_HEADINGS = (
    " Method  Flux    FWHM    beta     Flux    x-offset  y-offset  ra-offset dec-offset  RMS",
    "         scale  arcsec           offset    arcsec    arcsec    arcsec    arcsec    error",
    " ------ ------- ------- ------- --------- --------- --------- --------- --------- -------",
)
_UNITS = {
    "dx": "arcsec", "dy": "arcsec", "dra": "arcsec", "ddec": "arcsec", "dra_cosdec": "arcsec", "fwhm": "arcsec",
    "angle": "deg", "rotation": "deg", "misfit_x": "pix", "misfit_y": "pix", "misfit_ra": "deg", "misfit_dec": "deg",
}  # fmt: skip
_FLUXES = ("bg", "flux", "rms")
_STRONG = 0.1
"""Correlations below this are not reported."""


def summary_of(result: FittedPhotometry, header: bool = True) -> str:
    """Return a line of imphot's table, its columns and formats, and the three header lines first."""
    width = max(len(result.name), len("# MUSE ID"))
    values = [getattr(result, name).value for name in ("scale", "fwhm", "beta")]
    offsets = [getattr(result, name).value for name in ("bg", "dx", "dy", "dra", "ddec")]
    line = " ".join(
        [f"{result.name:<{width}}", f"{result.method:>6}"]
        + [f"{value: 7.4f}" for value in values]
        + [f"{value: 9.5f}" for value in offsets]
        + [f"{result.rms_error:7.4f}"]
    )
    if not header:
        return line
    first = f"{'# MUSE ID':<{width}}", f"{'#':<{width}}", "#" + "-" * (width - 1)
    return "\n".join([*(start + heading for start, heading in zip(first, _HEADINGS)), line])


def sentences(result: FittedPhotometry, warn: int) -> str:
    """Return why a fit failed, or what some warning bits say, and where residuals are worst; empty if nothing."""
    flags = decode(result.status, STATUS_FLAGS) + decode(warn, WARN_FLAGS)
    return "; ".join(flag.sentence + (_where(result) if flag is STRUCTURED_RESIDUALS else "") for flag in flags)


def _where(result: FittedPhotometry) -> str:
    misfit = result.misfit
    if misfit is None:
        return ""
    ra, dec = result.misfit_sky
    shares = f"{100 * misfit.share:.2g} % of chi2 where noise has {100 * misfit.expected:.2g} %"
    return f" (square arcsecond about x {misfit.x:.1f}, y {misfit.y:.1f}, RA {ra:.5f}, Dec {dec:+.5f}: {shares})"


def report_of(result: FittedPhotometry) -> str:
    """Return values, errors, correlations, goodness of fit and what to keep in mind."""
    unit = result.muse.unit
    lines = [f"{result.name}: {result.method} fit" + (f" failed: {result.reason}" if result.status else "")]
    for name, item in result.parameters.items():
        of = _unit_of(name, unit)
        text = f"{item.value:12.6g}   fixed" + " " * 7 if item.fixed else f"{item.value:12.6g} +/- {item.error:<9.3g}"
        lines.append(f"  {name:<11} {text} {of}".rstrip())
    fourier = getattr(getattr(result, "options", None), "method", "") == "fourier" and result.method == "image"
    lines.append(
        f"  {result.n_good} pixels; rms of tapered and smoothed images {result.rms_error:.4g} {unit}; variances are not looked at"
        if fourier
        else f"  chi2 {result.chi2:.6g} for {result.n_good} pixels and {result.n_free} parameters: "
        f"{result.reduced_chi2:.4f} per degree of freedom; rms {result.rms_error:.4g} {unit}".rstrip()
    )
    if np.isfinite(result.significance):
        lines.append(f"  the scene is seen at {result.significance:.3g} sigma, with all shifts that were tried")
    if result.misfit is not None:
        lines.append(f"  worst {_where(result).strip(' ()')}")
    if result.outcome.low_passed:
        lines.append("  both images were low-passed before they were compared: rms is of that")
    pairs = [(abs(value), f"{one}, {two}: {value:+.2f}") for one, two, value in _correlations(result) if abs(value) >= _STRONG]
    if pairs:
        lines.append("  correlations: " + "; ".join(text for _, text in sorted(pairs, reverse=True)))
    if result.reason and not result.status:
        lines.append(f"  note: {result.reason}")
    return "\n".join(lines)


def _unit_of(name: str, flux_unit: str) -> str:
    """Return the unit of a quantity or its error, of one image (``muse_dx``) or of both."""
    base = name.removeprefix("muse_").removeprefix("hst_").removesuffix("_err")
    return flux_unit if base in _FLUXES else _UNITS.get(base, "")


def _correlations(result: FittedPhotometry) -> Iterable[tuple[str, str, float]]:
    covariance, names = np.asarray(result.covariance), result.covariance_names
    size = np.sqrt(np.diag(covariance))
    for i, one in enumerate(names):
        for j in range(i):
            if size[i] > 0 and size[j] > 0:
                yield names[j], one, float(covariance[i, j] / (size[i] * size[j]))


def photometry_table(results: Iterable[FittedPhotometry]) -> Table:
    """Return one row a result: every quantity with its error, units, goodness of fit, status and what it means."""
    from astropy.table import Table

    results = list(results)
    rows: list[dict[str, Any]] = []
    for result in results:
        row: dict[str, Any] = {"name": result.name, "method": result.method}
        for name, item in result.parameters.items():
            row[name], row[f"{name}_err"], row[f"{name}_fixed"] = item.value, item.error, item.fixed
        row |= {"rms": result.rms_error, "chi2": result.chi2, "reduced_chi2": result.reduced_chi2}
        row |= {"n_good": result.n_good, "n_free": result.n_free, "status": result.status, "warn": result.warn}
        row["significance"] = result.significance
        if result.misfit is not None:
            row |= {"misfit_x": result.misfit.x, "misfit_y": result.misfit.y, "misfit_share": result.misfit.share}
            row |= dict(zip(("misfit_ra", "misfit_dec"), result.misfit_sky))
        row["reason"] = result.reason
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    filler: dict[str, Any] = {"reason": "", "name": "", "method": ""}
    filler |= dict.fromkeys((name for name in names if name.endswith("_fixed")), False)
    table = Table({name: [row.get(name, filler.get(name, np.nan)) for row in rows] for name in names})
    units = {result.muse.unit for result in results}
    flux_unit = units.pop() if len(units) == 1 else ""
    for name in names:
        if not name.endswith("_fixed") and (unit := _unit_of(name, flux_unit)):
            column: Any = table[name]
            column.unit = unit
    return table
