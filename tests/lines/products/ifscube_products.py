"""Files as IFSCube writes them, of both generations, made from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

C = 299792.458


@dataclass(frozen=True)
class Contents:
    """What a product holds: cubes (wave, y, x), maps (y, x), planes (n, y, x); spectra have no y and x."""

    parameters: tuple[tuple[str, str], ...]
    rest: Mapping[str, float]
    function: str
    redshift: float
    wavelength: np.ndarray
    data: np.ndarray
    variance: np.ndarray
    continuum: np.ndarray
    stellar: np.ndarray
    model: np.ndarray
    solution: np.ndarray
    reduced_chi2: np.ndarray
    status: np.ndarray
    measured: Mapping[str, np.ndarray]
    mask: np.ndarray | None
    config: Mapping[str, str] = field(default_factory=dict)
    draws: np.ndarray | None = None

    @property
    def is_cube(self) -> bool:
        return self.data.ndim == 3


def from_npz(path: Path, config: Mapping[str, str]) -> Contents:
    """A run of IFSCube 1.3 that is kept as arrays."""
    with np.load(path) as run:
        cube = run["data"].ndim == 3
        fitted = np.zeros(run["data"].shape[1:], bool)
        if cube:
            fitted[tuple(run["spaxel_indices"].T)] = True
        return Contents(
            parameters=tuple((str(a), str(b)) for a, b in run["parameter_names"]),
            rest={str(k): float(v) for k, v in zip(run["feature_names"], run["feature_wavelengths"])},
            function=str(run["function"]),
            redshift=float(run["redshift"]),
            wavelength=run["wavelength"],
            data=run["data"],
            variance=run["variance"],
            continuum=run["pseudo_continuum"],
            stellar=run["stellar"],
            model=run["model_spectrum"],
            solution=run["solution"],
            reduced_chi2=run["reduced_chi2"],
            status=run["status"],
            measured={
                name: run[key]
                for name, key in {
                    "FLUX_M": "flux_model",
                    "FLUX_D": "flux_direct",
                    "EQW_M": "eqw_model",
                    "EQW_D": "eqw_direct",
                }.items()
            },
            mask=~fitted if cube else None,
            config=config,
        )


_OBJECTS = {
    "FITSPEC": "rest_wavelength",
    "VAR": "spectrum",
    "FITCONT": "continuum",
    "STELLAR": "stellar",
    "MODEL": "modeled_spec",
}
"""OBJECT cards of the spectra: the first ones still name the extension before."""


def _named(data: np.ndarray | None, name: str, cards: Mapping[str, object]) -> fits.ImageHDU:
    hdu = fits.ImageHDU(data, name=name)
    for key, value in cards.items():
        hdu.header[key] = value
    if name in _OBJECTS:
        hdu.header["OBJECT"] = _OBJECTS[name]
    return hdu


def _spectral(wavelength: np.ndarray, axis: int) -> dict[str, object]:
    """Linear rest-frame axis without CTYPE, CUNIT and BUNIT; blanks if it isn't linear."""
    steps = np.diff(wavelength)
    if np.ptp(steps) > 1e-6:
        return {f"CRPIX{axis}": "", f"CRVAL{axis}": "", f"CD{axis}_{axis}": ""}
    return {f"CRPIX{axis}": 1, f"CRVAL{axis}": float(wavelength[0]), f"CD{axis}_{axis}": float(steps[0])}


def _table(name: str, columns: Mapping[str, np.ndarray]) -> fits.BinTableHDU:
    formats = {"U": lambda a: f"{max(1, *(len(str(x)) for x in a))}A", "i": lambda a: "K", "f": lambda a: "D"}
    made = [fits.Column(key, formats[np.asarray(a).dtype.kind](a), array=np.asarray(a)) for key, a in columns.items()]
    return fits.BinTableHDU.from_columns(made, name=name)


def _fitconfig(config: Mapping[str, str]) -> fits.BinTableHDU:
    cut = {"parameters": list(config), "values": [value[:64] for value in config.values()]}
    return fits.BinTableHDU.from_columns([fits.Column(k, "64A", array=np.array(v)) for k, v in cut.items()], name="FITCONFIG")


def write_today(path: Path, contents: Contents, leave_out: tuple[str, ...] = ()) -> Path:
    """Write the layout of IFSCube 1.3."""
    cube, axis = contents.is_cube, 3 if contents.is_cube else 1
    primary = fits.PrimaryHDU()
    primary.header["REDSHIFT"] = contents.redshift
    spectral = _spectral(contents.wavelength, axis)
    hdus: list[fits.ImageHDU | fits.BinTableHDU] = [_named(contents.wavelength, "RESTWAVE", spectral)]
    for name, data in {
        "FITSPEC": contents.data,
        "VAR": contents.variance,
        "FITCONT": contents.continuum,
        "STELLAR": contents.stellar,
        "MODEL": contents.model,
    }.items():
        hdus.append(_named(data, name, spectral))
    cards: dict[str, object] = {"FUNCTION": contents.function, "NFUNC": len(contents.rest)}
    if cube:
        cards |= {"FIT_X0": 0, "FIT_Y0": 0}
    hdus.append(_named(contents.solution, "SOLUTION", cards))
    hdus.append(_named(np.atleast_2d(contents.reduced_chi2), "RED_CHI", cards))
    if contents.draws is not None:
        hdus.append(_named(contents.draws.std(axis=0), "DISP", cards))
        hdus.append(_named(contents.draws, "MC_RUNS", cards))
    hdus.append(_named(np.zeros(len(contents.parameters)), "INIGUESS", cards))
    hdus += [_named(data, name, cards) for name, data in contents.measured.items()]
    hdus.append(_named(np.atleast_1d(np.asarray(contents.status, np.float64)), "STATUS", cards))
    if contents.mask is not None:
        hdus.append(_named(contents.mask.astype(np.int64), "MASK2D", cards))
        row, column = np.nonzero(~contents.mask)
        hdus.append(_table("SPECIDX", {"row": row, "column": column}))
    component, parameter = zip(*contents.parameters)
    hdus.append(_table("PARNAMES", {"component": np.array(component), "parameter": np.array(parameter)}))
    rest = {"feature": np.array(list(contents.rest)), "rest_wavelength": np.array(list(contents.rest.values()))}
    hdus.append(_table("FEATWL", rest))
    if contents.config:
        hdus.append(_fitconfig(contents.config))
    kept = [hdu for hdu in hdus if hdu.name not in leave_out]
    fits.HDUList([primary, *kept]).writeto(path, checksum=True)
    return path


def write_2018(path: Path, contents: Contents, leave_out: tuple[str, ...] = ()) -> Path:
    """Write the layout of July 2018: parameters A, wl, s[, h3, h4] in Angstrom, reduced chi2 as the last plane."""
    cube = contents.is_cube
    spectral = _spectral(contents.wavelength, 3 if cube else 1)
    cards = {"FUNCTION": contents.function, "NFUNC": len(contents.rest)}
    planes = np.concatenate([contents.solution, np.atleast_1d(contents.reduced_chi2)[None] if cube else [contents.reduced_chi2]])
    primary = fits.PrimaryHDU()
    primary.header["REDSHIFT"] = contents.redshift
    hdus: list[fits.ImageHDU | fits.BinTableHDU] = [
        _named(contents.data, "FITSPEC", spectral),
        _named(contents.continuum, "FITCONT", spectral),
        _named(contents.stellar, "STELLAR", spectral),
        _named(contents.model, "MODEL", spectral),
        _named(planes, "SOLUTION", cards),
        *(_named(contents.measured[name], name, cards) for name in ("EQW_M", "EQW_D")),
    ]
    if contents.mask is not None:
        hdus.append(_named(contents.status.astype(np.float64), "STATUS", cards))
        hdus.append(_named(contents.mask.astype(np.int64), "MASK2D", cards))
        row, column = np.nonzero(~contents.mask)
        hdus.append(_table("SPECIDX", {"row": row, "column": column}))
    else:
        hdus[4].header["FITSTAT"] = int(contents.status)
    component, parameter = zip(*contents.parameters)
    hdus.append(_table("PARNAMES", {"component": np.array(component), "parameter": np.array(parameter)}))
    hdus.append(_fitconfig(contents.config))
    kept = [hdu for hdu in hdus if hdu.name not in leave_out]
    fits.HDUList([primary, *kept]).writeto(path)
    return path


def _velocity(wavelength: np.ndarray, rest: float) -> np.ndarray:
    q = (wavelength / rest) ** 2
    return C * (q - 1) / (q + 1)


def _profile(v: np.ndarray, amplitude, velocity, sigma, h3=0.0, h4=0.0, constant=-3.0) -> np.ndarray:
    w = (v - velocity) / sigma
    third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
    fourth = (4 * w**4 - 12 * w**2 + constant) / np.sqrt(24)
    return amplitude * np.exp(-0.5 * w**2) * (1 + h3 * third + h4 * fourth) / (1 + v / C)


def small_cube(*, hermite: bool = False, h4_constant: float = -3.0, seed: int = 0, redshift: float = 0.1) -> Contents:
    """Two lines in 3 x 4 spaxels. (y, x) = (0, 0): masked; (0, 1): failed; (0, 2): status 9, good; (0, 3): empty, status 0.

    `h4_constant` is that of IFSCube's H4: -3 of today's, 3 of 2018's.
    """
    rng = np.random.default_rng(seed)
    wavelength = np.linspace(6480.0, 6660.0, 181)
    rest = {"ha": 6562.8, "n2": 6583.46}
    ny, nx = 3, 4
    amplitude = rng.uniform(1e-15, 4e-15, (2, ny, nx))
    velocity, sigma = rng.uniform(-150, 150, (ny, nx)), rng.uniform(80, 160, (ny, nx))
    h3, h4 = rng.uniform(-0.1, 0.1, (2, ny, nx)) if hermite else np.zeros((2, ny, nx))
    own = ("h_3", "h_4") if hermite else ()
    planes, lines = [], []
    for i, at in enumerate(rest.values()):
        planes += [amplitude[i], velocity, sigma, *([h3, h4] if hermite else [])]
        v = _velocity(wavelength, at)[:, None, None]
        lines.append(_profile(v, amplitude[i], velocity, sigma, h3, h4, h4_constant))
    solution = np.stack(planes)
    continuum = np.full((181, ny, nx), 2e-15)
    stellar = np.full_like(continuum, 1e-15)
    model = continuum + stellar + np.sum(lines, axis=0)
    variance = np.full_like(model, 1e-32)
    data = model + rng.normal(0, 1e-16, model.shape)
    outside = (wavelength < 6500) | (wavelength > 6640)
    continuum[outside], model[outside] = np.nan, np.nan
    status, mask = np.zeros((ny, nx)), np.zeros((ny, nx), bool)
    status[0, :3], mask[0, 0] = (1, 1, 9), True
    solution[:, 0, 0], model[:, 0, 0], continuum[:, 0, 0] = np.nan, np.nan, np.nan
    solution[:, 0, 1], model[:, 0, 1] = 0.0, 0.0
    data[:, 0, 3] = 0.0
    flux = amplitude * np.sqrt(2 * np.pi) * sigma * np.array(list(rest.values()))[:, None, None] / C
    flux = flux * (1 + h4_constant / np.sqrt(24) * h4)
    measured = {"FLUX_M": flux, "FLUX_D": 1.01 * flux, "EQW_M": -flux / 3e-15, "EQW_D": -1.01 * flux / 3e-15}
    config = {"fit.function": "gauss_hermite" if hermite else "gaussian", "fit.fitting_window": "6500:6640"}
    return Contents(
        parameters=tuple((line, name) for line in rest for name in ("amplitude", "velocity", "sigma", *own)),
        rest=rest,
        function="gauss_hermite" if hermite else "gaussian",
        redshift=redshift,
        wavelength=wavelength,
        data=data,
        variance=variance,
        continuum=continuum,
        stellar=stellar,
        model=model,
        solution=solution,
        reduced_chi2=np.full((ny, nx), 1.2),
        status=status,
        measured=measured,
        mask=mask,
        config=config,
    )


def small_spectrum(cube: Contents) -> Contents:
    """The spaxel x = 1, y = 1 of a cube as a spectrum."""
    spectra = {name: getattr(cube, name)[:, 1, 1] for name in ("data", "variance", "continuum", "stellar", "model", "solution")}
    return replace(
        cube,
        **spectra,
        reduced_chi2=cube.reduced_chi2[1, 1],
        status=cube.status[1, 1],
        measured={name: planes[:, 1, 1] for name, planes in cube.measured.items()},
        mask=None,
    )


def with_draws(contents: Contents, n: int = 40, seed: int = 5) -> Contents:
    """The same after Monte Carlo runs: draws scattered by 2 % (velocities: by 3 km/s), the solution their mean."""
    rng = np.random.default_rng(seed)
    shape = (n, *contents.solution.shape)
    draws = contents.solution * (1 + 0.02 * rng.normal(size=shape))
    return replace(contents, draws=draws, solution=draws.mean(axis=0))


def as_2018(contents: Contents) -> Contents:
    """The same fit as the 2018 release has it: Angstrom, flux densities of the observed frame."""
    stretch = 1 + contents.redshift
    hermite = contents.function == "gauss_hermite"
    size = 5 if hermite else 3
    planes = contents.solution.reshape(len(contents.rest), size, *contents.solution.shape[1:])
    converted = []
    for (_, at), (peak, velocity, sigma, *own) in zip(contents.rest.items(), planes):
        beta = velocity / C
        centre = at * np.sqrt((1 + beta) / (1 - beta))
        width = sigma / C * centre
        strength = peak / stretch * (np.sqrt(2 * np.pi) * width if hermite else 1.0)
        converted += [strength, np.where(peak == 0, 0.0, centre), width, *own]
    names = ("A", "wl", "s", *(("h3", "h4") if hermite else ()))
    config = {f"{line}.wavelength": f"{at}, +- 10" for line, at in contents.rest.items()}
    observed = {name: getattr(contents, name) / stretch for name in ("data", "continuum", "stellar", "model")}
    return replace(
        contents,
        **observed,
        parameters=tuple((line, name) for line in contents.rest for name in names),
        solution=np.stack(converted),
        config=config | {"loading.redshift": str(contents.redshift)},
    )
