"""`sample`: from a fit to draws of the posteriors of its spaxels."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference import status as bits
from ifujax.inference.sampling.options import Method, SamplingOptions
from ifujax.io.output import check_output
from ifujax.lines.ifscube.fitter import CompatFitter
from ifujax.lines.posteriors.chunks import ChunkSampler, problem
from ifujax.lines.posteriors.quantities import quantities_of, ratio_pairs
from ifujax.lines.posteriors.results import CubePosterior, fingerprint
from ifujax.lines.posteriors.sampled import Layout, Sampled, check_memory
from ifujax.lines.posteriors.selection import Chosen, Where
from ifujax.lines.posteriors.spectrum import SpectrumPosterior
from ifujax.lines.posteriors.store import DrawsFile, layout_of
from ifujax.lines.results import CubeFit
from ifujax.lines.selection.results import ComponentFit
from ifujax.lines.spectrum import SpectrumFit
from ifujax.progress import Progress

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore

_CHUNK, _LEAST_CHUNK = 256, 8
"""Spaxels between two looks at the progress, and two chunks that are kept; importance sampling takes as many as the latter
together."""
_CHUNK_DRAWS = _CHUNK * 4000
"""Draws of a chunk at most, so that memory does not grow with those of a spaxel."""


@overload
def sample(fit: CubeFit, *, where: Where = None, **options: Any) -> CubePosterior: ...
@overload
def sample(fit: SpectrumFit, **options: Any) -> SpectrumPosterior: ...
def sample(  # pyright: ignore[reportInconsistentOverload] - spelled out once
    fit: CubeFit | SpectrumFit,
    *,
    method: Method = "auto",
    draws: int = 1000,
    seed: int = 0,
    where: Where = None,
    ratios: Sequence[tuple[str, str] | str] | str = (),
    widths: Sequence[str | Sequence[str]] | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    chunk_size: int | None = None,
    max_khat: float = 0.7,
    min_ess: float = 200.0,
    sampling: SamplingOptions | None = None,
    progress: Progress | None = None,
    checkpoint: ChunkStore | None = None,
) -> CubePosterior | SpectrumPosterior:
    """Draw from the posteriors of fitted spaxels.

    The likelihood is that of the fit: the same pixels, the same noise. Parameters are uniform within their bounds where no
    prior was declared; strengths and continua without bounds have weak priors of a thousand and more times their noise
    (`ifujax.lines.posteriors.default_priors`). A continuum that was frozen (``mode: rejection``, or given) stays frozen, and
    so do stellar models: what they might be wrong by is not in the posterior. The noise is that of the fit's errors: scaled by
    the root of the reduced chi2, or correlated along wavelength too, where ``noise`` says so. Bounds that a fit drew closer
    about neighbours count as they were declared.

    Parameters
    ----------
    fit : CubeFit or SpectrumFit
    method : "auto", "importance" or "nuts"
        Importance sampling, and NUTS where that does not suffice; or one of the two for all spaxels.
    draws : int
        Of each spaxel.
    seed : int
        The draws of a spaxel depend on this and on its own position, not on which others are sampled.
    where : bool array (y, x), or sequence of (x, y), optional
        Spaxels to sample; by default all that have a fit.
    ratios : sequence of (numerator, denominator), optional
        Lines whose flux ratios are wanted, as decimal logarithms. ``"bpt-n2"`` stands for [N II] over H-alpha and
        [O III] over H-beta.
    widths : sequence of lines, or of tuples of components of a line, optional
        Whose W80 is wanted, of the observed profile. By default the groups and the percentage of the configuration's
        ``[velocity_width]``.
    store : path, optional
        A netCDF file to write the draws to, one spaxel after the other, instead of holding them in memory.
    overwrite : bool
        Replace that file.
    chunk_size : int, optional
        Spaxels between two steps of `progress` and `checkpoint`. The draws do not depend on it. By default 256; fewer with
        more than 4000 draws, so that memory stays what it is up to 128000 draws.
    max_khat, min_ess : float
        Importance sampling is accepted below this Pareto k-hat, draws of either method above this effective number.
    sampling : SamplingOptions, optional
        Further options of the samplers; `method`, `draws`, `max_khat` and `min_ess` are taken from the call.
    progress : callable, optional
        Called with (stage, done, total): "sample" counts spaxels, "nuts" those of one chunk.
    checkpoint : ChunkStore, optional
        Where finished chunks are kept, and found again by the next run.

    Returns
    -------
    CubePosterior or SpectrumPosterior

    Raises
    ------
    UsageError
        For a fit that can't be sampled, parameters that have neither bounds nor a prior, or draws beyond what memory should
        hold.
    DataError
        If none of the spaxels has a fit.

    Examples
    --------
    >>> fit = ifujax.fit_cube(cube, ifujax.read_config("halpha.cfg"))  # doctest: +SKIP
    >>> post = ifujax.sample(fit, where=fit["ha", "snr"] > 3, ratios=[("n2", "ha")])  # doctest: +SKIP
    >>> post["ha", "velocity"], post.error["ha", "velocity"], post.upper_limit("n2", "flux")  # doctest: +SKIP
    """
    began = time.perf_counter()
    cube_fit = _as_cube_fit(fit, where)
    options = replace(sampling or SamplingOptions(), method=method, draws=draws, max_khat=max_khat, min_ess=min_ess)
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"chunk_size must be 1 or more; got {chunk_size}.")
    quantities, groups = quantities_of(cube_fit, widths)
    layout = Layout.of(cube_fit.setup.model, ratio_pairs(cube_fit, ratios), groups, options.chains, draws // options.chains)
    chosen = Chosen.of(cube_fit, where)
    if store is None:
        check_memory(layout, len(chosen.rows), "Give store='posteriors.nc' to keep them on disk, or fewer spaxels with where=.")
    else:
        if Path(store).suffix == ".zarr":
            raise UsageError(f"store must be a netCDF file; got {store}. Name it {Path(store).with_suffix('.nc')}.")
        check_output(store, overwrite)
    sampler = ChunkSampler(cube_fit, quantities, layout, options, seed)
    problem(cube_fit, chosen.rows[:1])  # what is wrong with the priors is said before the work begins
    _warn_of_estimated_noise(cube_fit, chosen)
    collected = Sampled.empty(layout, len(chosen.rows), with_draws=store is None)
    total, chunk = len(chosen.rows), chunk_size or _chunk_of(draws)
    if progress is not None:
        progress("compile", 0, total)
    path = None if store is None else Path(store)
    post = CubePosterior(cube_fit, layout, chosen, collected, sampling=options, seed=seed, store=path, seconds=0.0)
    with ExitStack() as stack:
        file = None
        if store is not None:
            file = stack.enter_context(DrawsFile(store, layout_of(post), chosen, overwrite=overwrite))
        for first in range(0, total, chunk):
            rows = chosen.rows[first : first + chunk]
            part = _sample_or_recall(sampler, rows, first, total, progress, checkpoint)
            collected.put(slice(first, first + len(rows)), part)
            if file is not None:
                file.put(first, part)
            cube_fit.cube.release()
    post = replace(post, seconds=time.perf_counter() - began, written=None if path is None else fingerprint(path))
    return post if isinstance(fit, CubeFit) else SpectrumPosterior(fit, post)


def _chunk_of(draws: int) -> int:
    """Return how many spaxels are sampled between two steps: whole blocks of importance sampling."""
    return min(max(_CHUNK_DRAWS // draws // _LEAST_CHUNK, 1) * _LEAST_CHUNK, _CHUNK)


def _as_cube_fit(fit: Any, where: Where) -> CubeFit:
    if isinstance(fit, ComponentFit):
        listed = ", ".join(f"fit.fits[{k}] is {name}" for k, name in enumerate(fit.names))
        raise UsageError(
            f"fit must be a CubeFit or a SpectrumFit; got a ComponentFit. Sample its candidates one by one ({listed}), each "
            "where it was chosen: sample(fit.fits[k], where=fit.choice == k)."
        )
    if isinstance(fit, SpectrumFit):
        if where is not None:
            raise UsageError("where must not be given for a spectrum; got it. Leave it out.")
        fit = fit.as_cube
    if not isinstance(fit, CubeFit):
        from ifujax.lines.products.loaded import LoadedFit

        what = "a LoadedFit, which holds no data" if isinstance(fit, LoadedFit) else type(fit).__name__
        raise UsageError(f"fit must be a CubeFit or a SpectrumFit; got {what}. Fit the data again, and sample that fit.")
    if isinstance(fit.fitter, CompatFitter):
        raise UsageError(
            "fit must be made without ifscube_compat, whose model is no likelihood; got one with it. Fit again without it."
        )
    if fit.config.fit.fixed:
        raise UsageError("fit must have fitted something; got one with fixed: yes. Fit again without it.")
    return fit


def _warn_of_estimated_noise(fit: CubeFit, chosen: Chosen) -> None:
    if (fit.found.warn[chosen.rows] & bits.NOISE_ESTIMATED.value).any():
        warnings.warn(
            "no variance plane: the posteriors rest on the noise that was estimated from each spaxel's line-free pixels, and "
            "take it for known.",
            IfujaxWarning,
            stacklevel=3,
        )


def _sample_or_recall(
    sampler: ChunkSampler,
    rows: np.ndarray,
    first: int,
    total: int,
    progress: Progress | None,
    checkpoint: ChunkStore | None,
) -> Sampled:
    """Sample a chunk, or take it from where an earlier run kept it."""
    report = None if progress is None else _reporter(progress, sampler.sampling.method, first, total)
    name = f"sample-{first:09d}-{sampler.fingerprint(rows)}"
    kept = None if checkpoint is None else checkpoint.get(name)
    part = sampler(rows, report) if kept is None else Sampled.from_arrays(kept)
    if checkpoint is not None and kept is None:
        checkpoint.put(name, part.arrays())
    if progress is not None:
        progress("sample", first + len(rows), total)
    return part


def _reporter(progress: Progress, method: str, first: int, total: int) -> Progress:
    """Return what counts the spaxels of a chunk as a part of all; those that NUTS takes over are counted by themselves."""

    def report(stage: str, done: int, of: int) -> None:
        if stage == "nuts" and method == "auto":
            progress("nuts", done, of)
        else:
            progress("sample", first + done, total)

    return report
