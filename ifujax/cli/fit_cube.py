"""The command ``ifujax fit-cube``."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ifujax.cli.messages import report
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.runtime import compilation_time, prepare
from ifujax.errors import DataError, UsageError

if TYPE_CHECKING:
    from ifujax.lines.config import LineFitConfig, OutputOptions
    from ifujax.lines.results import CubeFit

DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="cpu|gpu|cpu:N", help="Where to compute; cpu:4 shows jax four devices.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", metavar="N", help="Processor cores to use; all by default.")]
ChunkOption = Annotated[
    int | None, typer.Option("--chunk-size", metavar="N", help="Spaxels in memory at a time; the results don't depend on it.")
]
PrecisionOption = Annotated[
    Literal["float64", "float32"], typer.Option("--precision", help="float32 is for GPUs; float64 is right anywhere.")
]
CacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Don't keep compiled programs for the next run (in your cache folder).")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but warnings and errors.")]


@dataclass(frozen=True)
class Outputs:
    """The files that one cube's fit makes; None for those not asked for."""

    product: Path | None = None
    maps: Path | None = None
    page: Path | None = None

    def check(self, overwrite: bool) -> None:
        """Raise DataError now for what could not be written after the fit."""
        from ifujax.io.output import check_output

        for path in (self.product, self.maps, self.page):
            if path is None:
                continue
            try:
                check_output(path, overwrite)
            except UsageError as error:
                # What lies on the disk is data here: exit code 1.
                raise DataError(str(error)) from None

    @property
    def written(self) -> list[Path]:
        return [path for path in (self.product, self.maps, self.page) if path is not None]


def fit_cube(
    cubes: Annotated[list[Path], typer.Argument(metavar="CUBE...", help="FITS cubes: plain, .gz, .bz2 or .fz.")],
    config: Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="Configuration, in the style of IFSCube.")],
    overwrite: Annotated[bool, typer.Option("-o", "--overwrite", help="Replace products that exist.")] = False,
    plot: Annotated[
        bool, typer.Option("-p", "--plot", help="Also draw a page of maps and example spectra (PNG) beside the product.")
    ] = False,
    maps: Annotated[
        Path | None, typer.Option("--maps", metavar="FILE", help="Also write one named 2-D image per quantity and error.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Name of the product; wins over out_image.")
    ] = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    chunk_size: ChunkOption = None,
    precision: PrecisionOption = "float64",
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit emission lines in every spaxel of one or more cubes.

    The product goes to the current folder, as the cube's name with _linefit added, unless the configuration or --output names
    it. Several cubes are fitted one after the other with the same configuration.

    \b
    Example:
      ifujax fit-cube mycube.fits -c halpha.cfg --maps maps.fits -p

    \b
    halpha.cfg, to start from (comments stand on lines of their own):
      [loading]
      scidata: DATA
      variance: STAT
      redshift: 0.0859
      [fit]
      fitting_window: 6450:6650
      fit_continuum: yes
      [continuum]
      degree: 2
      [ha]
      rest_wavelength: 6562.80
      amplitude: peak, 0:
      velocity: 0, -600:600
      sigma: 120, 20:500
      k_group: 0
      [n2b]
      rest_wavelength: 6583.46
      amplitude: peak, 0:
      k_group: 0

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command or the configuration. A spaxel
    that could not be fitted is no error: see STATUS in the product.
    """
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"--chunk-size must be 1 or more; got {chunk_size}.")
    prepare(device, threads, not no_cache)
    from ifujax.lines.dialect import read_config

    settings = read_config(config)
    plans = plan_outputs(cubes, settings.output, output=output, maps=maps, plot=plot)
    overwrite = overwrite or settings.output.overwrite
    for plan in plans:
        plan.check(overwrite)
    failed = False
    for path, plan in zip(cubes, plans):
        try:
            _, line = fit_one(path, settings, plan, overwrite, precision, chunk_size, quiet)
        except (DataError, OSError) as error:
            if len(cubes) == 1:
                raise
            report("error", f"{path}: {error}")  # the other cubes may well be good
            failed = True
            continue
        if not quiet:
            typer.echo(f"{path.name}: {line}")
            for each in plan.written:
                typer.echo(f"  wrote {each}")
    if failed:
        raise typer.Exit(1)


def fit_one(
    path: Path,
    config: LineFitConfig,
    outputs: Outputs,
    overwrite: bool,
    precision: str = "float64",
    chunk_size: int | None = None,
    quiet: bool = False,
    line: str | None = None,
) -> tuple[CubeFit, str]:
    """Read, fit and write one cube; return the fit and a line that sums it up. The page shows `line`, or the strongest."""
    from ifujax.io.cubes import read_cube
    from ifujax.io.output import atomic_path

    began = time.monotonic()
    with ProgressReporter(quiet) as progress:
        progress("read", 0, 1)
        cube = read_cube(path, **asdict(config.loading))
        from ifujax.lines.run import fit_cube as fit_lines  # jax and all the rest: not before the file is known to be good

        with compilation_time() as compiled:
            fit = fit_lines(cube, config, progress=progress, precision=precision, chunk_size=chunk_size)
        progress("write", 0, 1)
        if outputs.product is not None:
            fit.write(outputs.product, overwrite=overwrite)
        if outputs.maps is not None:
            fit.write_maps(outputs.maps, overwrite=overwrite)
        if outputs.page is not None:
            page = fit.plot_page(line)
            with atomic_path(outputs.page, overwrite) as temporary:
                page.savefig(temporary, format="png", dpi=120)
    everything = time.monotonic() - began
    seconds = f"{compiled.seconds:.1f} s of them compiling ({everything:.1f} s with reading and writing)"
    return fit, f"{fit.summary()}, {seconds}"


def plan_outputs(
    cubes: Sequence[Path], options: OutputOptions, *, output: Path | None = None, maps: Path | None = None, plot: bool = False
) -> list[Outputs]:
    """Name the files of every cube.

    Raises
    ------
    UsageError
        If two cubes would write to one file, a product would replace its own input, or nothing would be written.
    """
    if len(cubes) > 1:
        for option, value in (("--output", output), ("--maps", maps), ("[fit] out_image", options.out_image)):
            if value is not None:
                raise UsageError(f"{option} must be given with one cube only; got {len(cubes)} cubes. Leave it out.")
    if not options.write_fits and output is None and maps is None and not plot:
        raise UsageError("a product must be asked for; got write_fits: no, and neither --maps nor -p. Set write_fits: yes.")
    plans = []
    for path in cubes:
        product = output or Path(options.out_image or product_name(path, options.suffix))
        plan = Outputs(
            product=product if options.write_fits or output is not None else None,
            maps=maps,
            page=product.with_name(_stem(product) + ".png") if plot else None,
        )
        taken = [each.resolve() for other in plans for each in other.written] + [each.resolve() for each in cubes]
        for number, each in enumerate(plan.written):
            if each.resolve() in taken or each.resolve() in [one.resolve() for one in plan.written[:number]]:
                raise UsageError(
                    f"each product must have a name of its own, different from the inputs; got {each} twice. "
                    "Rename a cube, or use --output or another suffix."
                )
        plans.append(plan)
    return plans


def product_name(cube: Path, suffix: str) -> str:
    """Return the cube's name without folder and FITS endings, with `suffix` and ``.fits`` added."""
    return f"{_stem(cube)}{suffix}.fits"


def _stem(path: Path) -> str:
    return re.sub(r"(?i)(\.(fits|fit|fts))?(\.(gz|bz2|fz))?$", "", path.name, count=1) or path.name
