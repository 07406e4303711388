"""The FITS product of a choice among candidates: the choice, what speaks for it, and maps of what was chosen."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from ifujax.io.output import atomic_path
from ifujax.lines.products.headers import configuration_table, map_header, primary_header
from ifujax.lines.products.maps import fit_maps, line_maps, map_image

if TYPE_CHECKING:
    from ifujax.lines.selection.results import ComponentFit

MEANINGS = {
    "bic": "chi2 + k ln n, k free parameters, n pixels",
    "aic": "chi2 + 2k + 2k(k+1)/(n-k-1), k free, n pixels",
}


def write_selection(chosen: ComponentFit, path: Path, *, overwrite: bool = False, candidates: bool = False) -> Path:
    """Write a choice among candidates, whole or not at all.

    CHOICE (index of the candidate, from 0; -1 for none), NCOMP (components of its lines), EVIDENCE (y, x); BIC or AIC and
    WEIGHT (candidate, y, x); ``HA_FLUX``, ``HA_FLUX_ERR``, ... for each line and quantity of the chosen candidate; STATUS,
    WARN, RED_CHI, DOF; a table FITCONFIG for each candidate, told apart by EXTVER = index + 1.

    Parameters
    ----------
    chosen : ComponentFit
    path : Path
        A name that ends in .gz or .bz2 is compressed.
    overwrite : bool
    candidates : bool
        Also write each candidate's whole product, as `candidate_path` names it.

    Raises
    ------
    UsageError, DataError
        As `ifujax.io.output.atomic_path`: the file exists, can't be written, or the disk is full.
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # cards of the input that break the standard
        hdus = fits.HDUList([fits.PrimaryHDU(header=_primary(chosen)), *_choice_maps(chosen)])
        hdus += [*line_maps(chosen, chosen.settings), *fit_maps(chosen)]
        for k, (fit, name) in enumerate(zip(chosen.fits, chosen.names), start=1):
            table = configuration_table(fit)
            table.ver = k
            table.header["CANDIDAT"] = (name.encode("ascii", "replace").decode(), "whose configuration this is")
            hdus.append(table)
        with atomic_path(path, overwrite) as temporary:
            hdus.writeto(temporary, output_verify="silentfix+ignore")
    if candidates:
        for fit, name in zip(chosen.fits, chosen.names):
            fit.write(candidate_path(path, name), overwrite=overwrite)
    return path


def candidate_path(path: Path, name: str) -> Path:
    """Return the name of a candidate's own product: ``ngc3081_components.fits`` becomes ``ngc3081_components_two.fits``."""
    stem, ending = re.fullmatch(r"(?is)(.*?)((?:\.(?:fits|fit|fts))?(?:\.(?:gz|bz2))?)", path.name).groups()  # type: ignore[union-attr]
    return path.with_name(f"{stem}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)}{ending}")


def _primary(chosen: ComponentFit) -> fits.Header:
    header = primary_header(chosen.fits[0])
    # What differs between candidates stands in their tables.
    for keyword in ("NFREE", "STARTS", "PROFILE", "LSF", "H4CONV", "ERRTYPE"):
        if keyword in header:
            del header[keyword]
    header["CRITERIO"] = (chosen.criterion, MEANINGS[chosen.criterion])
    header["THRESHOL"] = (chosen.threshold, "simplest within this of the lowest is chosen")
    for k, name in enumerate(chosen.names):
        header[f"CAND{k}"] = (name.encode("ascii", "replace").decode(), f"candidate {k}")
        header[f"NFREE{k}"] = (int(chosen.n_free[k]), f"free parameters per spaxel of candidate {k}")
        header[f"STARTS{k}"] = (chosen.fits[k].config.fit.starts, f"starting points per spaxel of candidate {k}")
    return header


def _choice_maps(chosen: ComponentFit) -> list[fits.ImageHDU]:
    cube, name = chosen.cube, chosen.criterion.upper()
    choice = map_image(cube, "CHOICE", chosen.choice.astype(np.int32), "index of the chosen candidate, -1: none was fitted")
    for k, candidate in enumerate(chosen.names):
        choice.header[f"CAND{k}"] = (candidate.encode("ascii", "replace").decode(), f"candidate {k}")
    count = map_image(cube, "NCOMP", chosen.n_components.astype(np.int32), "components of the chosen candidate's lines")
    evidence = map_image(cube, "EVIDENCE", chosen.evidence, f"{name} of the best other candidate less the chosen one's")
    planes = []
    for extension, values, meaning in (
        (name, chosen.criteria, f"{name} of each candidate: {MEANINGS[chosen.criterion]}"),
        ("WEIGHT", chosen.weights, "exp(-difference / 2), normalised over the candidates"),
    ):
        header = map_header(cube, 3)
        if cube.celestial is not None:
            header["CTYPE3"], header["CRPIX3"], header["CRVAL3"], header["CD3_3"] = "PLANE", 1.0, 0.0, 1.0
        header["CONTENT"] = meaning
        for k, candidate in enumerate(chosen.names, start=1):
            header[f"PLANE{k:03d}"] = candidate.encode("ascii", "replace").decode()
        planes.append(fits.ImageHDU(values, header, name=extension))
    return [choice, count, evidence, *planes]
