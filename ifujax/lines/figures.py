"""Figures of a fitted cube: a spaxel, a map, and the page that sums the fit up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ifujax.inference.status import STATUS_FLAGS, decode
from ifujax.io.units import fits_unit
from ifujax.models.doppler import C_KMS
from ifujax.plotting import MapPanel, SpectrumPanel, cut_panel, fit_page, plot_map, plot_spectra, plot_spectrum

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from matplotlib.figure import Figure

    from ifujax.lines.products.loaded import LoadedFit
    from ifujax.lines.results import CubeFit, Spectra
    from ifujax.lines.selection.results import ComponentFit
    from ifujax.plotting.maps import MapKind

SHOWN = 3.0
"""Flux over its error from which velocities and dispersions are shown."""
DETECTED = 5.0
"""Flux over its error from which a spaxel counts for the choice of the line and of the typical spaxel."""

_FOCUS = 12.0
"""Half-width, in observed sigma, of what a focused plot shows of a line."""

_KINDS: dict[str, MapKind] = {
    "flux": "flux",
    "amplitude": "flux",
    "flux_direct": "flux",
    "velocity": "velocity",
    "h3": "velocity",
    "h4": "velocity",
    "snr": "snr",
}
_TITLES = {
    "flux": "flux",
    "amplitude": "peak",
    "velocity": "velocity",
    "velocity_dispersion": "velocity dispersion",
    "sigma": "observed dispersion",
    "snr": "signal to noise",
    "equivalent_width": "equivalent width",
    "flux_direct": "flux, from the data",
    "equivalent_width_direct": "equivalent width, from the data",
    "h3": "$h_3$",
    "h4": "$h_4$",
    "lorentz_fwhm": "Lorentzian FWHM",
}


def spaxel_figure(fit: CubeFit, x: int, y: int) -> Figure:
    """Return a figure of one spaxel: data, model, components, residuals. 0-based pixels."""
    return panel_figure(spaxel_panel(fit, x, y, f"x = {x}, y = {y}: {spaxel_state(fit, x, y)}"))


def panel_figure(panel: SpectrumPanel) -> Figure:
    """Return a figure of one panel alone, with its title and a legend."""
    return plot_spectrum(
        panel.wavelength,
        panel.data,
        panel.error,
        panel.model,
        panel.continuum,
        panel.components,
        panel.bad,
        title=panel.title,
        unit=panel.unit,
        labels=panel.labels,
    )


def spectrum_figure(fit: CubeFit, *, focused: bool = False) -> Figure:
    """Return a figure of the fit of one spectrum (a cube of one spaxel).

    Parameters
    ----------
    focused : bool
        Only the wavelengths about the lines, one panel for each group of neighbouring lines.
    """
    name = fit.cube.path.name if fit.cube.path else "spectrum"
    panel = spaxel_panel(fit, 0, 0, f"{name}: {spaxel_state(fit, 0, 0)}")
    rest = fit.cube.rest_wavelength
    parts = line_groups(fit) if focused else [(float(rest[0]), float(rest[-1]))]
    return plot_spectra([cut_panel(panel, *part) for part in parts], title=panel.title)


def line_groups(fit: CubeFit) -> list[tuple[float, float]]:
    """Return rest wavelengths (low, high) about the lines, neighbours joined: 12 fitted widths to either side."""
    ends = []
    for i, line in enumerate(fit.setup.lines):
        sigma, velocity = (
            float(np.nanmedian(values)) if np.isfinite(values).any() else guess
            for values, guess in (
                (fit.values["sigma"][i], fit.setup.guess_sigma[i]),
                (fit.values["velocity"][i], fit.setup.guess_velocity[i]),
            )
        )
        reach = _FOCUS * sigma / C_KMS
        ends.append([line.rest_wavelength * (1 + velocity / C_KMS + sign * reach) for sign in (-1, 1)])
    groups: list[list[float]] = []
    for low, high in sorted(ends):
        if groups and low <= groups[-1][1]:
            groups[-1][1] = max(groups[-1][1], high)
        else:
            groups.append([low, high])
    return [(low, high) for low, high in groups]


def map_figure(fit: CubeFit, line: str, quantity: str) -> Figure:
    """Return a figure of one map; velocities and dispersions only where the line's flux is 3 times its error or more.

    Raises
    ------
    UsageError
        For an unknown line or quantity.
    """
    return map_panel_figure(map_panel(fit, line, quantity), fit.cube.celestial)


def map_panel_figure(panel: MapPanel, celestial: WCS | None) -> Figure:
    """Return a figure of one map alone; its title says what was left out."""
    title = panel.title if panel.mask is None else f"{panel.title} where S/N $\\geq$ {SHOWN:g}"
    return plot_map(panel.values, title, panel.unit, panel.kind, wcs=celestial, mask=panel.mask)


def page_figure(fit: CubeFit, line: str | None = None) -> Figure:
    """Return one page: maps of a line (the strongest by default), and example spaxels.

    Velocity and dispersion are left out where the flux of the line is below 3 times its error.

    Raises
    ------
    UsageError
        For an unknown line.
    """
    line = strongest_line(fit) if line is None else line
    values = {int(value) for value in np.unique(fit.status)}
    names = {value: " + ".join(flag.name.replace("_", " ") for flag in decode(value, STATUS_FLAGS)) for value in values}
    maps = [map_panel(fit, line, name) for name in ("flux", "velocity", "velocity_dispersion", "snr")]
    maps.append(MapPanel(fit.status, "status", kind="status", names={**names, 0: "fitted"}))
    chosen = example_spaxels(fit, line)
    spectra = [spaxel_panel(fit, x, y, f"{what}: {spaxel_state(fit, x, y, line)}", named=False) for what, x, y in chosen]
    return fit_page(
        maps,
        spectra,
        _title(fit, line),
        _caption(fit, line),
        markers=[(y, x) for _, x, y in chosen],
        wcs=fit.cube.celestial,
    )


def strongest_line(fit: CubeFit) -> str:
    """Return the line with the largest flux, summed over the spaxels where it is detected (or all, if nowhere)."""
    flux, snr = fit.values["flux"], fit.values["snr"]
    with np.errstate(invalid="ignore"):
        total = np.nansum(np.where(snr > DETECTED, flux, 0.0), axis=1)
    if not total.any():
        total = np.nansum(np.abs(flux), axis=1)
    return fit.lines[int(np.argmax(total))]


def example_spaxels(fit: CubeFit, line: str) -> list[tuple[str, int, int]]:
    """Return (what, x, y) of up to three spaxels: the brightest, a typical one, and a failed or faint one."""
    flux, snr = fit[line, "flux"].ravel(), fit[line, "snr"].ravel()
    fitted = (fit.found.status == 0) & np.isfinite(flux)
    found: list[tuple[str, int]] = []

    def take(what: str, usable: np.ndarray, score: np.ndarray) -> None:
        usable = usable.copy()
        usable[[index for _, index in found]] = False
        if usable.any():
            found.append((what, int(np.argmin(np.where(usable, score, np.inf)))))

    take("brightest", fitted, -np.nan_to_num(flux))
    with np.errstate(invalid="ignore"):
        detected, faint = fitted & (snr > DETECTED), fitted & ~(snr > SHOWN)
    if detected.any():
        # The most central of those near the median: a spaxel at the edge is seldom typical.
        middle = np.median(snr[detected])
        with np.errstate(invalid="ignore"):
            near = detected & (np.abs(snr / middle - 1) <= 0.1)
        y, x = np.indices(fit.shape)
        central = np.hypot(y - (fit.shape[0] - 1) / 2, x - (fit.shape[1] - 1) / 2).ravel()
        take("typical", near if near.any() else detected, central if near.any() else np.abs(np.nan_to_num(snr) - middle))
    failed = (fit.found.status != 0) & (fit.found.n_good > 0)
    if failed.any():
        take("failed", failed, -fit.found.n_good.astype(float))
    elif faint.any():
        take("undetected", faint, np.abs(np.nan_to_num(snr) - np.nanmedian(snr[faint])))
    else:
        take("faintest", fitted, np.nan_to_num(snr))
    nx = fit.shape[1]
    return [(what, index % nx, index // nx) for what, index in found]


def map_panel(fit: CubeFit | LoadedFit | ComponentFit, line: str, quantity: str) -> MapPanel:
    """Return one map; velocities and the like only where the line's flux is 3 times its error or more, if errors are known."""
    values = fit[line, quantity]
    mask = None
    kinematic = quantity in ("velocity", "velocity_dispersion", "sigma", "h3", "h4", "lorentz_fwhm")
    if kinematic and "snr" in fit.quantities:
        with np.errstate(invalid="ignore"):
            mask = ~(fit[line, "snr"] >= SHOWN)
    title = f"{line} {_TITLES.get(quantity, quantity)}"
    return MapPanel(values, title, fit.units[quantity], _KINDS.get(quantity, "dispersion"), mask)


def spaxel_panel(fit: CubeFit, x: int, y: int, title: str, named: bool = True) -> SpectrumPanel:
    """Return the data and the fit of one spaxel as a panel; `named` marks the lines."""
    row = y * fit.shape[1] + x
    marks = {line.name: line.rest_wavelength for line in fit.setup.lines} if named else {}
    fitted = fit.found.status[row] == 0
    panel = spectrum_panel(fit.spectra(np.array([row])), fit.lines, marks, title, fits_unit(fit.cube.unit), fitted=fitted)
    noise = fit.found.noise[row]
    if fit.cube.uncertainty is not None or not np.isfinite(noise):
        return panel
    return replace(panel, error=np.full(len(fit.cube.rest_wavelength), noise))


def spectrum_panel(
    spectra: Spectra, lines: Sequence[str], marks: Mapping[str, float], title: str, unit: str, *, fitted: bool
) -> SpectrumPanel:
    """Return the first of some spectra as a panel, with its model if it is `fitted`; `marks` are names at wavelengths."""
    error = None
    if spectra.variance is not None:
        error = np.where(spectra.bad[0], np.nan, np.sqrt(spectra.variance[0]))
        error = error if np.isfinite(error).any() else None
    continuum = spectra.continuum[0] if spectra.stellar is None else spectra.continuum[0] + spectra.stellar[0]
    return SpectrumPanel(
        wavelength=spectra.rest_wavelength,
        data=np.where(spectra.bad[0], np.nan, spectra.data[0]),
        error=error,
        model=spectra.model[0] if fitted else None,
        continuum=continuum if fitted else None,
        components=dict(zip(lines, spectra.components[0])) if fitted else {},
        bad=spectra.bad[0] | ~spectra.fitted[0],
        title=title,
        unit=unit,
        labels=marks,
    )


def spaxel_state(fit: CubeFit, x: int, y: int, line: str | None = None) -> str:
    """Return how the fit of a spaxel went, in a few words."""
    status = int(fit.status[y, x])
    if status:
        return f"x = {x}, y = {y}, " * (line is not None) + ", ".join(
            flag.name.replace("_", " ") for flag in decode(status, STATUS_FLAGS)
        )
    chi2 = f"$\\chi^2_\\nu$ = {fit.reduced_chi2[y, x]:.2f}"
    return chi2 if line is None else f"x = {x}, y = {y}, S/N {fit[line, 'snr'][y, x]:.1f}, {chi2}"


def _title(fit: CubeFit, line: str) -> str:
    name = fit.cube.path.name if fit.cube.path else "cube"
    rest = fit.cube.rest_wavelength
    wavelength = fit.setup.lines[fit.lines.index(line)].rest_wavelength
    return f"{name}: {line} ({wavelength:.1f} Å), z = {fit.cube.redshift:g}, window {rest[0]:.0f}–{rest[-1]:.0f} Å"


def _caption(fit: CubeFit, line: str) -> str:
    """Say in plain words what the page shows."""
    fitted = fit.status == 0
    with np.errstate(invalid="ignore"):
        shown = fitted & (fit[line, "snr"] >= SHOWN)
    text = [f"{int(fitted.sum()):,} of {fitted.size:,} spaxels were fitted"]
    text[0] += f" (median reduced chi-squared {np.nanmedian(fit.reduced_chi2):.2f})." if fitted.any() else "."
    if shown.any():
        velocity, dispersion = fit[line, "velocity"][shown], fit[line, "velocity_dispersion"][shown]
        flux, error = fit[line, "flux"][shown], fit.error[line, "flux"][shown]
        low, middle, high = np.nanpercentile(velocity, [5, 50, 95])
        total = amount_text(
            float(np.nansum(flux)), float(np.sqrt(np.nansum(error**2))), fits_unit(fit.cube.unit, times="Angstrom")
        )
        width = "the instrument's width " + ("taken off" if fit.config.model.lsf else "included")
        text.append(
            f"In {int(shown.sum()):,} of them {line} has a flux above {SHOWN:g} times its error; only there are velocity and "
            f"dispersion shown. There the velocity runs from {low:+.0f} to {high:+.0f} km/s (5 to 95 %, median {middle:+.0f}), "
            f"the median dispersion ({width}) is {np.nanmedian(dispersion):.0f} km/s, and the fluxes add up to {total}. "
            "Signal to noise is the flux over its error."
        )
    else:
        text.append(f"In none of them has {line} a flux above {SHOWN:g} times its error.")
    spectra = "Below: data (black; grey band: 1 sigma), model, continuum and lines of the marked spaxels, and residuals"
    text.append(spectra + " in units of sigma; shaded wavelengths were not fitted. Flux densities are those of the rest frame.")
    if fit.cube.uncertainty is None:
        text.append("The cube has no variance: the noise was estimated from line-free pixels.")
    return " ".join(text)


def amount_text(value: float, error: float, unit: str) -> str:
    """Return ``(1.236 ± 0.001)e-14 erg s-1 cm-2``: the unit's power of ten is in the number, and no digit is noise."""
    found = re.match(r"10\*\*(-?\d+)\s*", unit)
    shift, unit = (int(found.group(1)), unit[found.end() :]) if found else (0, unit)
    if not (np.isfinite(value) and value != 0 and np.isfinite(error) and error > 0):
        return f"{value:.4g} {unit}".strip()
    power = int(np.floor(np.log10(max(abs(value), error))))
    digits = max(0, power - int(np.floor(np.log10(error))))
    text = f"{value / 10.0**power:.{digits}f} ± {error / 10.0**power:.{digits}f}"
    power += shift
    return (f"({text})e{power:+03d} {unit}" if power else f"{text} {unit}").strip()
