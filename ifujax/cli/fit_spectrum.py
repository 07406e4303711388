"""The command ``ifujax fit-spectrum``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifujax.cli.fit_cube import CacheOption, LockOption, NoiseOption, PrecisionOption, QuietOption, ThreadsOption, with_noise
from ifujax.cli.inputs import read_spectrum_as
from ifujax.cli.outputs import Outputs, plan_outputs, process_each
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.runtime import prepare
from ifujax.errors import UsageError
from ifujax.io.locks import lock_file, output_lock

if TYPE_CHECKING:
    from ifujax.lines.config import LineFitConfig


def fit_spectrum(
    spectra: Annotated[list[Path], typer.Argument(metavar="SPECTRUM...", help="FITS spectra: plain, .gz, .bz2 or .fz.")],
    config: Annotated[list[Path], typer.Option("-c", "--config", metavar="FILE", help="Configuration, in the style of IFSCube.")],
    overwrite: Annotated[bool, typer.Option("-o", "--overwrite", help="Replace products that exist.")] = False,
    plot: Annotated[bool, typer.Option("-p", "--plot", help="Also draw the fit (PNG) beside the product.")] = False,
    focused_plot: Annotated[
        bool, typer.Option("-f", "--focused-plot", help="As -p, but only the wavelengths about the lines.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Name of the product; wins over out_image.")
    ] = None,
    noise: NoiseOption = None,
    lock: LockOption = False,
    threads: ThreadsOption = None,
    precision: PrecisionOption = "float64",
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit emission lines in one or more spectra.

    The product goes to the current folder, as the spectrum's name with _linefit added, unless the configuration or --output
    names it. What was found is printed. Several spectra are fitted one after the other with the same configuration.

    \b
    Example:
      ifujax fit-spectrum nucleus.fits -c halpha.cfg --focused-plot

    \b
    halpha.cfg, to start from (comments stand on lines of their own):
      [loading]
      scidata: SCI
      variance: VAR
      redshift: 0.0037
      [fit]
      fitting_window: 6450:6650
      fit_continuum: yes
      [continuum]
      degree: 1
      [ha]
      rest_wavelength: 6562.80
      amplitude: peak, 0:
      velocity: 0, -600:600
      sigma: 120, 20:500

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command or the configuration.
    """
    prepare("cpu", threads, not no_cache)
    from ifujax.lines.dialect import read_config

    if len(config) != 1:
        raise UsageError(f"--config must be given once; got {len(config)} configurations. Run the command once for each.")
    settings = with_noise(read_config(config[0]), noise)
    plans = plan_outputs(spectra, settings.output, output=output, plot=plot or focused_plot, kind="spectrum")
    overwrite = overwrite or settings.output.overwrite
    for plan in plans:
        plan.check(overwrite or lock)  # with --lock, what exists is skipped at its turn

    def fit(path: Path, plan: Outputs) -> str:
        with _held(plan.written, lock):
            plan.check(overwrite)
            return _fit_one(path, settings, plan, overwrite, precision, quiet, focused_plot)

    process_each(spectra, plans, fit, lock=lock, quiet=quiet)


@contextmanager
def _held(outputs: list[Path], lock_files: bool) -> Iterator[None]:
    """Keep other runs from these outputs; with `lock_files` by IFSCube's lock file too."""
    with ExitStack() as stack:
        held = [stack.enter_context(output_lock(path)) for path in outputs]
        if lock_files and outputs:
            stack.enter_context(lock_file(outputs[0], held[0]))
        yield


def _fit_one(
    path: Path,
    config: LineFitConfig,
    outputs: Outputs,
    overwrite: bool,
    precision: str,
    quiet: bool,
    focused: bool,
) -> str:
    """Read, fit and write one spectrum; return what was found."""
    from ifujax.io.output import atomic_path

    began = time.monotonic()
    with ProgressReporter(quiet) as progress:
        progress("read", 0, 1)
        spectrum = read_spectrum_as(path, config.loading)
        from ifujax.lines.spectrum import fit_spectrum as fit_lines  # jax: not before the file is known to be good

        progress("compile", 0, 1)
        fit = fit_lines(spectrum, config, precision=precision)
        progress("write", 0, 1)
        if outputs.product is not None:
            fit.write(outputs.product, overwrite=overwrite)
        if outputs.page is not None:
            figure = fit.plot(focused=focused)
            with atomic_path(outputs.page, overwrite) as temporary:
                figure.savefig(temporary, format="png", dpi=120)
    return f"{fit.describe()}\n  {time.monotonic() - began:.1f} s with compiling, reading and writing"
