"""Chunks gathered into arrays over all spaxels."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.residuals import N_SUMS
from ifujax.lines.chunk import ChunkFitter, ChunkResult
from ifujax.lines.noise import noise_scale, residual_bits


class Collection:
    """The results of all spaxels of a cube, filled chunk by chunk; those that were never fitted are skipped."""

    def __init__(self, fitter: ChunkFitter) -> None:
        n = fitter.cube.n_spaxels
        n_lines, n_quantities = len(fitter.setup.model.names), len(fitter.quantities)
        self.quantities = fitter.quantities
        self.own = [fitter.setup.model.parameters(i) for i in range(n_lines)]
        draws = 0 if fitter.config.fit.fixed else fitter.config.fit.monte_carlo
        self.all = ChunkResult(
            solution=np.full((n, len(fitter.setup.model.parameter_names)), np.nan),
            values=np.full((n, n_lines, n_quantities), np.nan),
            errors=np.full((n, n_lines, n_quantities), np.nan),
            linear=np.full((n, fitter.n_linear), np.nan),
            status=np.full(n, bits.SKIPPED.value, np.int32),
            warn=np.zeros(n, np.int32),
            line_warn=np.zeros((n, n_lines), np.int32),
            chi2=np.full(n, np.nan),
            n_good=np.zeros(n, np.int32),
            n_iter=np.zeros(n, np.int32),
            noise=np.full(n, np.nan),
            fitted=np.zeros((n, -(-fitter.cube.shape[0] // 8)), np.uint8),
            unseen=np.zeros((n, n_lines), bool),
            residuals=np.full((n, N_SUMS), np.nan, np.float32),
            draws=np.full((n, draws, n_lines, n_quantities), np.nan) if draws else np.zeros((n, 0, n_lines, n_quantities)),
        )

    def put(self, rows: np.ndarray, chunk: ChunkResult) -> None:
        """Take the results of some spaxels (flat indices)."""
        for item in fields(ChunkResult):
            getattr(self.all, item.name)[rows] = getattr(chunk, item.name)

    def of(self, rows: np.ndarray) -> ChunkResult:
        """Return the results of some spaxels."""
        return self.all.of(rows)

    def spread(self, bins: np.ndarray, rows: np.ndarray, skipped: np.ndarray) -> None:
        """Give every spaxel of a bin the results of the one that was fitted.

        Parameters
        ----------
        bins : (y, x) int array
            Negative = no bin.
        rows : array of int
            The fitted spaxels, one of each bin.
        skipped : (n,) bool array
            Spaxels that are left out whatever their bin is.
        """
        flat = bins.ravel()
        order = rows[np.argsort(flat[rows], kind="stable")]
        members = np.flatnonzero((flat >= 0) & ~skipped & np.isin(flat, flat[rows]))
        self.put(members, self.of(order[np.searchsorted(flat[order], flat[members])]))

    def conclude(self, fitter: ChunkFitter) -> None:
        """Apply what concerns finished fits: scaled errors, thresholds, advisory bits."""
        found, options = self.all, fitter.config.fit
        if options.noise != "given":
            found.errors[...] *= noise_scale(fitter, found)[:, None, None]
        found.warn[...] |= residual_bits(fitter, found)
        flux, error = (array[:, :, self.quantities.index("flux")] for array in (found.values, found.errors))
        fitted = found.status == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            weak = fitted[:, None] & ~(np.abs(flux / error) > 3)
            faint = fitted[:, None] & ~(np.abs(flux / error) >= options.sig_threshold)
        width = found.values[:, :, self.quantities.index("equivalent_width")]
        dark = fitted[:, None] & np.isnan(width) & np.isfinite(flux)
        found.line_warn[dark] |= bits.CONTINUUM_NOT_POSITIVE.value
        found.warn[dark.any(axis=1)] |= bits.CONTINUUM_NOT_POSITIVE.value
        if options.fixed:
            return  # nothing was fitted: no errors, no thresholds
        found.line_warn[weak] |= bits.NO_DETECTION.value
        found.warn[weak.all(axis=1)] |= bits.NO_DETECTION.value
        lost = np.zeros_like(faint)
        if options.test_jacobian:
            for i, names in enumerate(self.own):
                own = [self.quantities.index(name) for name in names]
                lost[:, i] |= np.isnan(found.errors[:, i, own]).any(axis=1)
        if options.sig_threshold > 0:
            lost |= faint
        found.values[lost], found.errors[lost] = np.nan, np.nan
