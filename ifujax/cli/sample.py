"""The command ``ifujax sample``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ifujax.cli.fit_cube import CacheOption, ChunkOption, DeviceOption, LockOption, NoResumeOption, QuietOption, ThreadsOption
from ifujax.cli.inputs import holds_cube, read_cube_as, read_spectrum_as
from ifujax.cli.outputs import Keeping, Outputs, held, process_each, require_distinct, require_single, stem, write_output
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.resume import run_identity
from ifujax.cli.runtime import compilation_time, prepare
from ifujax.cli.spaxels import Choice, RegionOption, SpaxelsOption, WhereOption
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


def sample(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="FITS cubes or spectra: plain, .gz, .bz2 or .fz.")],
    config: Annotated[list[Path], typer.Option("-c", "--config", metavar="FILE", help="Configuration, in the style of IFSCube.")],
    method: Annotated[
        Literal["auto", "importance", "nuts"],
        typer.Option("--method", help="auto: importance sampling, and NUTS for the spaxels where that is not good enough."),
    ] = "auto",
    draws: Annotated[int, typer.Option("--draws", metavar="N", help="Draws of each spaxel; a multiple of 4.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another seed, other draws; the same, the same draws.")] = 0,
    spaxels: SpaxelsOption = None,
    region: RegionOption = None,
    where: WhereOption = None,
    ratio: Annotated[
        list[str] | None,
        typer.Option("--ratio", metavar="LINE/LINE", help="Also the decimal logarithm of a flux ratio; may be given again."),
    ] = None,
    bpt: Annotated[bool, typer.Option("--bpt", help="Also log [N II]/Ha and log [O III]/Hb, for the [N II] diagram.")] = False,
    width: Annotated[
        list[str] | None,
        typer.Option("--width", metavar="LINE[+LINE]", help="Also W80 of a line, or of several as one; may be given again."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.nc", help="Name of the file of draws; the others are named after it.")
    ] = None,
    fits: Annotated[bool, typer.Option("--fits/--no-fits", help="Write maps of percentiles (FITS).")] = True,
    plot: Annotated[
        bool, typer.Option("-p", "--plot", help="Also draw a page of maps (PNG); of a spectrum, its parameters in pairs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("-o", "--overwrite", help="Replace products that exist.")] = False,
    spectrum: Annotated[
        bool | None, typer.Option("--spectrum/--cube", help="What the files are; seen from the files themselves by default.")
    ] = None,
    lock: LockOption = False,
    no_resume: NoResumeOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    chunk_size: ChunkOption = None,
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw from the posterior of every spaxel: what the data and the priors allow, not only the best fit and its errors.

    Each file is fitted first, as fit-cube and fit-spectrum do. The draws go to mycube_posterior.nc in the current folder
    (netCDF: ArviZ and xarray read it), maps of percentiles to mycube_posterior.fits. One thousand draws of three lines
    take about 100 kB a spaxel: --spaxels, --region and --where choose some.

    \b
    Example:
      ifujax sample mycube.fits -c halpha.cfg --region 10:20,5:15 -p
      ifujax sample mycube.fits -c halpha.cfg --where faint.fits --ratio n2b/ha --width ha --draws 4000
      ifujax sample nucleus.fits -c halpha.cfg -p

    Priors are uniform within the bounds of the configuration, and very wide for what has no bounds: fluxes and the
    continuum. Velocities and sigmas need bounds on both sides, or a prior:

    \b
      [ha]
      rest_wavelength: 6562.80
      amplitude: peak, 0:
      velocity: 0, -600:600
      sigma: 120, 20:500
      prior: velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5)

    Every spaxel is labelled with what made its draws (1: importance sampling, 2: NUTS) and with a status: 0 means that
    the diagnostics are good. See docs/posteriors.rst.

    A run that was stopped, however hard, goes on where it was when the same command is given again.

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command or the configuration. A spaxel
    without trustworthy draws is no error: see its status.
    """
    if len(config) != 1:
        raise UsageError(f"--config must be given once; got {len(config)} configurations. Run the command once for each.")
    choice = Choice.of(spaxels, region, where)
    asked = Asked(method, draws, seed, chunk_size, choice, tuple(ratio or ()), bpt, tuple(width or ()))
    plans = plan_posteriors(files, output, fits=fits, plot=plot)
    prepare(device, threads, not no_cache)
    from ifujax.lines.dialect import read_config

    settings = read_config(config[0])
    asked.check(settings)
    overwrite = overwrite or settings.output.overwrite
    for plan in plans:
        plan.check(overwrite or lock)  # with --lock, what exists is skipped at its turn
    keeping = Keeping(resume=not no_resume, lock_files=lock, device=device)

    def process(path: Path, plan: Outputs) -> str:
        return _sample_one(path, settings, asked, plan, overwrite, spectrum, keeping, quiet)

    process_each(files, plans, process, lock=lock, quiet=quiet)


@dataclass(frozen=True)
class Asked:
    """What the options ask for.

    Raises
    ------
    UsageError
        For numbers that can't be.
    """

    method: str
    draws: int
    seed: int
    chunk_size: int | None
    choice: Choice
    ratios: tuple[str, ...]
    bpt: bool
    widths: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UsageError(
                f"--draws must be {CHAINS} or more; got {self.draws}. 1000 are enough for percentiles of 2.5 % and more."
            )
        if self.draws % CHAINS:
            above = -(-self.draws // CHAINS) * CHAINS
            raise UsageError(f"--draws must be a multiple of the {CHAINS} chains; got {self.draws}. Say --draws {above}.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be a whole number from 0 to {2**32 - 1}; got {self.seed}.")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise UsageError(f"--chunk-size must be 1 or more; got {self.chunk_size}.")

    def check(self, config: LineFitConfig) -> None:
        """Raise UsageError for lines that the configuration doesn't have."""
        self.options(config)

    def options(self, config: LineFitConfig) -> dict[str, Any]:
        """Return the arguments of `ifujax.sample`, but for those of files."""
        names = config.model.names
        ratios: list[Any] = [_pair(text, names) for text in self.ratios]
        return {
            "method": self.method,
            "draws": self.draws,
            "seed": self.seed,
            "ratios": [*ratios, *([BPT] if self.bpt else [])],
            "widths": [_group(text, names) for text in self.widths] or None,
            "chunk_size": self.chunk_size,
        }

    def identity(self) -> dict[str, object]:
        """Return what draws depend on, for `run_identity`."""
        return {
            "method": self.method,
            "draws": self.draws,
            "seed": self.seed,
            "chunk_size": self.chunk_size,
            "chosen_spaxels": self.choice.identity(),
            "ratios": self.ratios + ((BPT,) if self.bpt else ()),
            "widths": self.widths,
        }


def plan_posteriors(files: Sequence[Path], output: Path | None, *, fits: bool, plot: bool) -> list[Outputs]:
    """Name the files of every input's posteriors.

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
                product=product,
                maps=product.with_suffix(".fits") if fits else None,
                page=product.with_suffix(".png") if plot else None,
            )
        )
    require_distinct(files, plans, "file", "use --output")
    return plans


def _sample_one(
    path: Path,
    config: LineFitConfig,
    asked: Asked,
    outputs: Outputs,
    overwrite: bool,
    spectrum: bool | None,
    keeping: Keeping,
    quiet: bool,
) -> str:
    """Read, fit, sample and write one file; return what was found."""
    began = time.monotonic()
    is_spectrum = spectrum if spectrum is not None else not holds_cube(path, config.loading.scidata)
    if is_spectrum and asked.choice:
        raise UsageError(
            f"--spaxels, --region and --where must be left out for a spectrum; got {path}. Is it a cube? Say --cube."
        )
    identity = run_identity(path, config, device=keeping.device, spectrum=is_spectrum, **asked.identity())
    with held(path.name, outputs, identity, overwrite, keeping, quiet) as store, ProgressReporter(quiet) as progress:
        progress("read", 0, 1)
        read = read_spectrum_as if is_spectrum else read_cube_as
        data: Any = read(path, config.loading)
        chosen = None if is_spectrum else asked.choice.map(data.shape[1:])
        options = asked.options(config)
        from ifujax.lines.posteriors.run import sample as draw  # jax and all the rest: not before the file is known to be good
        from ifujax.lines.run import fit_cube
        from ifujax.lines.spectrum import fit_spectrum

        _check_before_fitting(data.as_cube() if is_spectrum else data, config, options["ratios"])
        with compilation_time() as compiled:
            if is_spectrum:
                fit: Any = fit_spectrum(data, config)
            else:
                fit = fit_cube(
                    _left(data, config, chosen), config, progress=progress, chunk_size=asked.chunk_size, checkpoint=store
                )
            options |= {"progress": progress, "checkpoint": store, "where": chosen}
            found: list[Any] = []
            write_output(outputs.product, overwrite, store, lambda draft: found.append(draw(fit, store=draft, **options)))
        progress("write", 0, 1)
        posterior = _moved(found[0], outputs.product)
        write_output(outputs.maps, overwrite, store, posterior.write)
        write_output(outputs.page, overwrite, store, lambda draft: _figure(posterior).savefig(draft, format="png", dpi=120))
    everything = time.monotonic() - began
    seconds = f"{compiled.seconds:.1f} s of them compiling ({everything:.1f} s with reading and writing)"
    if is_spectrum:
        return f"{posterior.describe()}\n  {seconds}"
    return f"{path.name}: fit: {fit.summary()}\n{path.name}: posteriors: {posterior.summary()}, {seconds}"


def _moved(posterior: Any, path: Path | None) -> Any:
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
