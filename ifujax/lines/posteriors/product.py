"""The FITS file of a posterior: maps of percentiles and upper limits, and how far each spaxel can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from ifujax.inference.sampling.draws import TIERS
from ifujax.inference.status import POSTERIOR_FLAGS
from ifujax.io.output import atomic_path
from ifujax.lines.posteriors.sampled import CONTINUUM, RATIO, WIDTH
from ifujax.lines.posteriors.store import width_percent
from ifujax.lines.posteriors.summaries import QUANTILES
from ifujax.lines.products.headers import bit_cards, configuration_table, map_header, primary_header, text_column
from ifujax.lines.products.maps import MEANINGS, extension_names, map_image

if TYPE_CHECKING:
    from ifujax.lines.posteriors.results import CubePosterior

LIMITED = ("flux", "amplitude")
"""Quantities with a map of upper limits."""
LIMIT = 0.95
PLANES = (*(f"p{100 * q:g}" for q in QUANTILES), "mean", "sd")
"""Planes of the cubes ``_POST``."""
_SHOWN = {"khat": "Pareto k-hat of importance sampling", "ess": "effective sample size", "rhat": "R-hat, worst parameter; NUTS"}
_SHOWN |= {f"ess_{part}": f"{part} effective sample size, worst parameter; NUTS" for part in ("bulk", "tail")}
_CONVENTIONS = "Conventions of this fit:"


def write_posterior_product(post: CubePosterior, path: Path, *, overwrite: bool = False) -> Path:
    """Write percentiles of a posterior as maps, whole or not at all.

    For each line and quantity: ``HA_FLUX`` the median, ``HA_FLUX_ERR`` half the range from 16 to 84 % (named as by
    `ifujax.lines.products.maps.write_maps`, so that what reads those maps reads these), and ``HA_FLUX_POST`` (plane, y, x): the
    percentiles 2.5, 5, 16, 50, 84, 95, 97.5, the mean and the standard deviation. ``HA_FLUX_UL95`` and
    ``HA_AMPLITUDE_UL95`` are 95 % upper limits, ``HA_DETECTED`` says where they are needed. The same of ratios
    (``N2_HA_LOGRATIO``), velocity widths (``HA_W80``) and continuum coefficients (``CONTINUUM_0``). Then TIER, KHAT, ESS, RHAT,
    ESS_BULK, ESS_TAIL, DIVERGENCES, STATUS, and the tables FITCONFIG and PRIORS.

    Parameters
    ----------
    post : CubePosterior
    path : Path
        A name that ends in .gz or .bz2 is compressed.
    overwrite : bool

    Raises
    ------
    UsageError, DataError
        As `ifujax.io.output.atomic_path`: the file exists, can't be written, or the disk is full.
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # cards of the input that break the standard
        hdus = fits.HDUList([fits.PrimaryHDU(header=_primary(post)), *_quantities(post), *_diagnostics(post)])
        hdus.append(configuration_table(post.fit))
        hdus.append(_priors(post))
        with atomic_path(path, overwrite) as temporary:
            hdus.writeto(temporary, output_verify="silentfix+ignore")
    return path


def _quantities(post: CubePosterior) -> Iterator[fits.ImageHDU]:
    """Yield the maps of every element of every variable: line by line, then ratios, widths and the continuum."""
    rest = {line.name: line.rest_wavelength for line in post.fit.setup.lines}
    for prefix, line in zip(extension_names(post.lines), post.lines):
        for quantity in post.quantities:
            for hdu in _maps(post, line, quantity, f"{prefix}_{quantity.upper()}", MEANINGS[quantity]):
                hdu.header["LINE"] = line
                hdu.header["RESTWAVE"] = (rest[line], "[Angstrom] rest wavelength of the line")
                yield hdu
        detected = map_image(post.fit.cube, f"{prefix}_DETECTED", post.detected(line).astype(np.uint8), "1: detected")
        detected.header["COMMENT"] = "1: the median of the flux is beyond 3 times half its range from 16 to 84 %."
        detected.header["LINE"] = line
        yield detected
    others = {
        RATIO: ("{}_LOGRATIO", "decimal logarithm of the ratio of fluxes {}"),
        WIDTH: (f"{{}}_W{width_percent(post.fit):g}", "velocity width of {}, as observed"),
        CONTINUUM: ("CONTINUUM_{}", "Legendre coefficient {} of the continuum"),
    }
    for variable, (name, meaning) in others.items():
        elements = post.layout.variables.get(variable, ())
        titles = extension_names([name.format(element.replace("/", "_")) for element in elements])
        for title, element in zip(titles, elements):
            yield from _maps(post, element, variable, title, meaning.format(element))


def _maps(post: CubePosterior, element: str, variable: str, name: str, meaning: str) -> Iterator[fits.ImageHDU]:
    """Yield median, error, all percentiles, and an upper limit, of one quantity unless it has no value anywhere."""
    percentiles = [post.quantile(element, variable, q) for q in QUANTILES]
    planes = np.stack([*percentiles, post.mean[element, variable], post.sd[element, variable]]).astype(np.float32)
    if variable in post.quantities and not np.isfinite(planes).any():
        return  # h3 of a line that has none
    unit, cube = post.units[variable].replace("km/s", "km s-1"), post.fit.cube
    median = planes[PLANES.index("p50")]
    yield map_image(cube, name, median, meaning, unit)
    error = 0.5 * (planes[PLANES.index("p84")] - planes[PLANES.index("p16")])
    yield map_image(cube, f"{name}_ERR", error, "half the range from 16 to 84 %", unit)
    header = map_header(cube, 3)
    if cube.celestial is not None:
        header["CTYPE3"], header["CRPIX3"], header["CRVAL3"], header["CD3_3"] = "PLANE", 1.0, 1.0, 1.0
    if unit:
        header["BUNIT"] = unit
    header["CONTENT"] = "percentiles, mean and standard deviation"
    for i, plane in enumerate(PLANES, start=1):
        header[f"PLANE{i}"] = plane
    yield fits.ImageHDU(planes, header, name=f"{name}_POST")
    if variable in LIMITED:
        limit = post.upper_limit(element, variable, LIMIT).astype(np.float32)
        yield map_image(cube, f"{name}_UL95", limit, "95 % of the draws are below", unit)


def _diagnostics(post: CubePosterior) -> list[fits.ImageHDU]:
    """Return the images that say what made the draws, and how far they can be trusted."""
    cube = post.fit.cube
    tier = map_image(cube, "TIER", post.tier.astype(np.uint8), "what made the draws")
    for k, name in enumerate(TIERS):
        tier.header[f"TIER{k}"] = name
    status = map_image(cube, "STATUS", post.status.astype(np.int32), "0 = trustworthy")
    bit_cards(status.header, POSTERIOR_FLAGS, "the draws can be trusted")
    shown = [map_image(cube, name.upper(), getattr(post, name).astype(np.float32), text) for name, text in _SHOWN.items()]
    divergences = map_image(cube, "DIVERGENCES", post.divergences.astype(np.int32), "divergent transitions of NUTS")
    return [tier, *shown, divergences, status]


def _primary(post: CubePosterior) -> fits.Header:
    """Return the header of the fit, with what a posterior has of its own."""
    header = primary_header(post.fit)
    cards = [(card.keyword, card.value) for card in header.cards]
    del header[cards.index(("COMMENT", _CONVENTIONS)) :]
    header["ERRTYPE"] = ("posterior", "where errors come from")
    for keyword, value, comment in (
        ("SIGMATYP", "observed", "_SIGMA holds the LSF"),
        ("AMPLTYP", "peak", "_AMPLITUDE; of the Gaussian part with h3, h4"),
        ("METHOD", post.method, "of sampling: auto, importance or nuts"),
        ("SEED", post.seed, "of the draws"),
        ("NDRAWS", post.draws_per_spaxel, "draws of each spaxel"),
        ("NCHAINS", post.layout.chains, "chains they are dealt to"),
        ("NSAMPLED", int(np.sum(post.tier > 0)), "spaxels with draws"),
        ("NDOUBT", int(np.sum((post.tier > 0) & (post.status != 0))), "of them not to be trusted: see STATUS"),
        ("MAXKHAT", post.sampling.max_khat, "largest k-hat of importance sampling"),
        ("MINESS", post.sampling.min_ess, "least effective sample size"),
        ("NPYROVER", _version("numpyro"), "version of numpyro"),
    ):
        header[keyword] = (value, comment)
    for sentence in (
        "Conventions of this posterior:",
        "- HA_FLUX and so on are medians; _ERR is half the range from 16 to 84 %.",
        "- _POST holds 2.5, 5, 16, 50, 84, 95, 97.5 %, mean, standard deviation.",
        "- _UL95: 95 % of the draws are below. Use it where _DETECTED is 0.",
        "- NaN: no draws (see STATUS), or more than 5 % of them without a value.",
        "- the table PRIORS holds the priors, FITCONFIG the configuration.",
        "- velocities are relative to REDSHIFT and positive when receding.",
        "- fluxes are integrated and as observed: (1+z) cancels.",
        "- dispersions without an LSF hold the instrument's width.",
        *(f"- {note}" for note in post.fit.cube.notes),
    ):
        header["COMMENT"] = sentence.encode("ascii", "replace").decode()
    return header


def _priors(post: CubePosterior) -> fits.BinTableHDU:
    """Return the table of the priors; those of strengths and the continuum are in units of each spaxel's noise."""
    from ifujax.lines.posteriors.default_priors import CONTINUUM_NOISES, STRENGTH_NOISES

    rows = post.fit.setup.space.describe().replace("none (improper)", "default (below)").splitlines()
    rows += [
        "",
        f"Strengths without a bound or prior: half-normal (or normal) about 0, of {STRENGTH_NOISES:g} times the noise of each.",
        f"Coefficients of the continuum: normal about 0, of {CONTINUUM_NOISES:g} times the noise of a pixel.",
    ]
    return fits.BinTableHDU.from_columns([text_column("priors", rows)], name="PRIORS")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a copy without its metadata
        return ""
