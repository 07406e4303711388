"""Spectra as IFSCube fits them: flagged pixels in the continuum, windows about the rest wavelengths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ifujax.data.cube import Cube
from ifujax.data.spaxels import gather
from ifujax.errors import UsageError
from ifujax.lines.config import LineFitConfig
from ifujax.lines.ifscube.continuum import pseudo_continuum
from ifujax.lines.ifscube.windows import fitted_pixels
from ifujax.lines.preparation import Preparation, Prepared
from ifujax.lines.setup import Setup


@dataclass(frozen=True)
class CompatPrepared(Prepared):
    """Also what IFSCube measures on, in the fitting window: ``data (n, wave)``, `continuum`, and `stellar` or (n, 0)."""

    data: np.ndarray
    continuum: np.ndarray
    stellar: np.ndarray


class CompatPreparation(Preparation):
    """Prepares spaxels of a cube whose variance and stellar plane were made IFSCube's (`adapted_cube`)."""

    def __init__(self, cube: Cube, config: LineFitConfig, setup: Setup) -> None:
        super().__init__(cube, config, setup, None)
        self.rest_lines, self.guess_sigma = np.asarray(setup.model.rest_wavelengths), setup.guess_sigma
        if config.fit.optimize_fit:
            width = config.fit.optimization_window
            self.fitted = fitted_pixels(self.rest, self.window, self.rest_lines, self.guess_sigma, width)
            if not self.fitted.any():
                raise UsageError("optimization_window must hold a pixel of the cube; it holds none. Widen it.")

    def _some(self, rows: np.ndarray) -> CompatPrepared:
        spaxels = self.cube.spaxels(rows)
        data = raw_data(self.cube, rows)
        stellar = np.zeros((len(rows), 0))
        if self.cube.stellar is not None:
            stellar = gather(self.cube.stellar, rows, np.float64) * (1.0 + self.cube.redshift)
        left = data - stellar if stellar.size else data
        polynomial, continuum = np.zeros((len(rows), 0)), np.zeros_like(data)
        if self.degree is not None:
            fit = pseudo_continuum(
                self.rest,
                left,
                self.rest_lines,
                self.guess_sigma,
                self.config.continuum,
                self.degree,
                single_precision=is_single(self.cube),
            )
            polynomial, continuum = fit.coefficients, fit.continuum
        good = ~spaxels.bad & np.isfinite(continuum)
        lowest = np.where(good, data, np.inf).min(axis=1)
        constant = lowest == np.where(good, data, -np.inf).max(axis=1)
        values = np.where(good, left - continuum, 0.0)
        ivar, noise = self._weights(spaxels.variance, values, good, np.zeros_like(good))
        ivar[constant] = 0.0
        background = np.nan_to_num(continuum + stellar if stellar.size else continuum)
        pad = [(0, 0), (0, self.n_pix - len(self.rest))]
        values, ivar, background = (np.pad(array, pad) for array in (values, ivar, background))
        return CompatPrepared(
            values=values,
            residual=values,
            ivar=ivar,
            background=background,
            polynomial=polynomial,
            noise=noise,
            constant=constant,
            dropped_variance=spaxels.dropped_variance,
            moved_weight=np.zeros((len(rows), 0)),
            moved_inverse=np.zeros((len(rows), 0, 0)),
            moved_extra=np.zeros(len(rows)),
            data=data,
            continuum=continuum,
            stellar=stellar,
        )


def is_single(cube: Cube) -> bool:
    """Whether the data are 32-bit floats."""
    return np.dtype(cube.values.dtype) == np.float32


def raw_data(cube: Cube, rows: np.ndarray) -> np.ndarray:
    """Return the data of some spaxels times ``1 + z``, flagged pixels and NaN as they are, (n, wave) float64.

    32-bit data are multiplied in 32 bits, as IFSCube does.
    """
    data = gather(cube.values, rows)
    factor = data.dtype.type(1.0 + cube.redshift) if data.dtype.kind == "f" else 1.0 + cube.redshift
    return (data * factor).astype(np.float64)


def start_amplitudes(cube: Cube, keywords: Iterable[str]) -> dict[str, float]:
    """Return the guessed amplitude of each keyword: one number for the whole cube (kept fault), continuum included.

    Parameters
    ----------
    cube : Cube
        Cut to the fitting window.
    keywords : iterable of str
        Among ``peak``, ``mean`` and ``median``: of the good pixels, before `optimize_fit` narrows them.
    """
    keywords = set(keywords)
    peak, total, count = -np.inf, 0.0, 0
    kept: list[np.ndarray] = []
    # A row of the image at a time: a whole cube need not fit into memory.
    for y in range(cube.shape[1]):
        rows = np.arange(y * cube.shape[2], (y + 1) * cube.shape[2])
        good = raw_data(cube, rows)[~cube.spaxels(rows).bad]
        if good.size:
            peak, total, count = max(peak, float(good.max())), total + float(good.sum()), count + good.size
            if "median" in keywords:
                kept.append(good)
    found = {
        "peak": peak,
        "mean": total / max(count, 1),
        "median": float(np.median(np.concatenate(kept))) if kept else np.nan,
    }
    return {keyword: found[keyword] for keyword in keywords}
