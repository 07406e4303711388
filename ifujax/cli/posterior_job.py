"""What ``ifujax sample`` does with one input: fit it, draw, and write draws, percentiles and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ifujax.cli.inputs import holds_cube, read_cube_as, read_spectrum_as
from ifujax.cli.job import Run
from ifujax.cli.line_job import line_identity
from ifujax.cli.outputs import Outputs, require_distinct, require_single, stem
from ifujax.cli.spaxels import Choice
from ifujax.errors import UsageError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.data.cube import Cube
    from ifujax.lines.config import LineFitConfig

SUFFIX = "_posterior"
"""What is added to the input's name."""
CHAINS = 4
"""Draws are dealt to this many chains, whatever made them."""
BPT = "bpt-n2"
"""What `ifujax.sample` calls both axes of the [N II] diagram."""
_DPI = 120


def check_draws(draws: int, seed: int) -> None:
    """Raise UsageError for numbers that can't be."""
    if draws < 1:
        raise UsageError(f"--draws must be {CHAINS} or more; got {draws}. 1000 are enough for percentiles of 2.5 % and more.")
    if draws % CHAINS:
        above = -(-draws // CHAINS) * CHAINS
        raise UsageError(f"--draws must be a multiple of the {CHAINS} chains; got {draws}. Say --draws {above}.")
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed must be a whole number from 0 to {2**32 - 1}; got {seed}.")


def plan_posteriors(files: Sequence[Path], output: Path | None, *, fits: bool, plot: bool) -> list[Outputs]:
    """Name the files of every input's posteriors: ``draws``, ``percentiles``, ``page``.

    Raises
    ------
    UsageError
        For a name that doesn't end in .nc, and for two files of one name.
    """
    require_single(files, "file", {"--output": output})
    if output is not None and output.suffix != ".nc":
        raise UsageError(f"--output must end in .nc; got {output}. The other files are named after it.")
    plans = []
    for path in files:
        product = output or Path(f"{stem(path)}{SUFFIX}.nc")
        plans.append(
            Outputs(
                {
                    "draws": product,
                    "percentiles": product.with_suffix(".fits") if fits else None,
                    "page": product.with_suffix(".png") if plot else None,
                }
            )
        )
    require_distinct(files, plans, "file", "use --output")
    return plans


@dataclass(frozen=True)
class Quantities:
    """Derived quantities that options ask for, as they were written."""

    ratios: tuple[str, ...] = ()
    bpt: bool = False
    widths: tuple[str, ...] = ()

    def resolve(self, names: Sequence[str]) -> dict[str, Any]:
        """Return arguments of `ifujax.sample`, for lines of these names.

        Raises
        ------
        UsageError
            For other lines.
        """
        ratios: list[Any] = [_pair(text, names) for text in self.ratios]
        return {
            "ratios": [*ratios, *([BPT] if self.bpt else [])],
            "widths": [_group(text, names) for text in self.widths] or None,
        }


@dataclass(frozen=True)
class PosteriorWork:
    """Reading, fitting, sampling and writing of one file.

    Attributes
    ----------
    config : LineFitConfig
    quantities : Quantities
    choice : Choice
        Of spaxels.
    method, draws, seed, chunk_size, device
        As the options.
    spectrum : bool, optional
        What the files are; seen from the files themselves by default.

    Raises
    ------
    UsageError
        For lines that the configuration doesn't have.
    """

    config: LineFitConfig
    quantities: Quantities
    choice: Choice
    method: str
    draws: int
    seed: int
    chunk_size: int | None = None
    device: str | None = None
    spectrum: bool | None = None
    _seen: dict[Path, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._options()

    def _options(self) -> dict[str, Any]:
        """Return the arguments of `ifujax.sample`, but for those of files."""
        numbers = {"method": self.method, "draws": self.draws, "seed": self.seed, "chunk_size": self.chunk_size}
        return {**numbers, **self.quantities.resolve(self.config.model.names)}

    def _is_spectrum(self, path: Path) -> bool:
        if path not in self._seen:  # a compressed file is read to its end for this
            self._seen[path] = self.spectrum if self.spectrum is not None else not holds_cube(path, self.config.loading.scidata)
        is_spectrum = self._seen[path]
        if is_spectrum and self.choice:
            raise UsageError(
                f"--spaxels, --region and --where must be left out for a spectrum; got {path}. Is it a cube? Say --cube."
            )
        return is_spectrum

    def identify(self, path: Path) -> dict[str, str]:
        """Return what the draws of the file at `path` depend on."""
        return line_identity(
            path,
            self.config,
            device=self.device,
            spectrum=self._is_spectrum(path),
            method=self.method,
            draws=self.draws,
            seed=self.seed,
            chunk_size=self.chunk_size,
            chosen_spaxels=self.choice.identity(),
            ratios=self.quantities.ratios + ((BPT,) if self.quantities.bpt else ()),
            widths=self.quantities.widths,
        )

    def summary(self, run: Run) -> str:
        """Fit, sample and write a file; return what was found."""
        config, is_spectrum = self.config, self._is_spectrum(run.path)
        run.progress("read", 0, 1)
        read = read_spectrum_as if is_spectrum else read_cube_as
        data: Any = read(run.path, config.loading)
        chosen = None if is_spectrum else self.choice.map(data.shape[1:])
        options = self._options()
        from ifujax.lines.posteriors.run import sample as draw  # jax and all the rest: not before the file is known to be good
        from ifujax.lines.run import fit_cube
        from ifujax.lines.spectrum import fit_spectrum

        _check_before_fitting(data.as_cube() if is_spectrum else data, config, options["ratios"])
        kept: dict[str, Any] = {"progress": run.progress, "checkpoint": run.store}
        with run.counting_compilation():
            if is_spectrum:
                fit: Any = fit_spectrum(data, config)
            else:
                fit = fit_cube(_left(data, config, chosen), config, chunk_size=self.chunk_size, **kept)
            found: list[Any] = []
            run.write("draws", lambda draft: found.append(draw(fit, store=draft, where=chosen, **kept, **options)))
        run.progress("write", 0, 1)
        posterior = _moved(found[0], run.outputs["draws"])
        run.write("percentiles", posterior.write)
        run.write("page", lambda draft: _figure(posterior).savefig(draft, format="png", dpi=_DPI))
        if is_spectrum:
            return f"{posterior.describe()}\n  {run.times}"
        return f"{run.path.name}: fit: {fit.summary()}\n{run.path.name}: posteriors: {posterior.summary()}, {run.times}"


def _moved(posterior: Any, path: Path) -> Any:
    """Return a posterior that knows its file of draws by the name that it has now."""
    if hasattr(posterior, "as_cube"):
        return replace(posterior, as_cube=replace(posterior.as_cube, store=path))
    return replace(posterior, store=path)


def _figure(posterior: Any) -> Figure:
    """Return a page of maps, or, of a spectrum, its parameters in pairs."""
    return posterior.plot() if hasattr(posterior, "as_cube") else posterior.plot_page()


def _check_before_fitting(cube: Cube, config: LineFitConfig, ratios: Sequence[Any]) -> None:
    """Raise UsageError now for what `ifujax.sample` would refuse after the fit."""
    import numpy as np

    from ifujax.lines.posteriors.default_priors import default_priors
    from ifujax.lines.posteriors.quantities import ratio_pairs
    from ifujax.lines.setup import prepare as set_up

    for option, given in (("ifscube_compat", config.fit.ifscube_compat), ("fixed", config.fit.fixed)):
        if given:
            raise UsageError(f"[fit] {option} must be no for posteriors; got yes. Remove it from the configuration.")
    cube = cube if config.fit.window is None else cube.cut(*config.fit.window)
    setup = set_up(config, cube.rest_edges, cube.redshift)
    default_priors(setup, np.ones((1, cube.shape[0])), np.diff(cube.rest_edges)).of(setup.space)
    declared: Any = SimpleNamespace(lines=setup.model.names, setup=setup)  # as much of a fit as tells the lines
    ratio_pairs(declared, ratios)


def _left(cube: Cube, config: LineFitConfig, chosen: Any) -> Cube:
    """Return the cube with all but the chosen spaxels masked, where a fit needs no others."""
    fit = config.fit
    if chosen is None or cube.bins is not None or fit.refit or fit.coherence > 0 or fit.individual_spec is not None:
        return cube
    mask = ~chosen if cube.spatial_mask is None else ~chosen | cube.spatial_mask
    return replace(cube, spatial_mask=mask)


def _pair(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Read ``n2b/ha``; names of lines may hold a slash themselves."""
    cuts = [(text[:i].strip(), text[i + 1 :].strip()) for i, letter in enumerate(text) if letter == "/"]
    if not cuts:
        raise UsageError(f"--ratio must be two lines with a slash between; got {text!r}. Say --ratio n2/ha.")
    for pair in cuts:
        if pair[0] in names and pair[1] in names:
            return pair
    wrong = next(name for name in cuts[0] if name not in names)
    raise UsageError("--ratio: " + unknown("line", wrong, names))


def _group(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Read ``ha`` or ``ha+ha_broad``; a name may hold a plus sign itself."""
    if text.strip() in names:
        return (text.strip(),)
    group = tuple(name.strip() for name in text.split("+"))
    for name in group:
        if name not in names:
            raise UsageError("--width: " + unknown("line", name, names))
    return group
