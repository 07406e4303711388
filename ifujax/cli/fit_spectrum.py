"""The command ``ifujax fit-spectrum``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifujax.cli.job import Job
from ifujax.cli.line_job import configurations, plan_outputs, spectrum_work
from ifujax.cli.options import (
    CacheOption,
    ConfigOption,
    LockOption,
    NoiseOption,
    OverwriteOption,
    PrecisionOption,
    ProductOption,
    QuietOption,
    ThreadsOption,
    single_config,
)
from ifujax.cli.runtime import prepare


def fit_spectrum(
    spectra: Annotated[list[Path], typer.Argument(metavar="SPECTRUM...", help="FITS spectra: plain, .gz, .bz2 or .fz.")],
    config: ConfigOption,
    overwrite: OverwriteOption = False,
    plot: Annotated[bool, typer.Option("-p", "--plot", help="Also draw the fit (PNG) beside the product.")] = False,
    focused_plot: Annotated[
        bool, typer.Option("-f", "--focused-plot", help="As -p, but only the wavelengths about the lines.")
    ] = False,
    output: ProductOption = None,
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
    (settings,) = configurations([single_config(config)], noise)
    plans = plan_outputs(spectra, settings.output, output=output, plot=plot or focused_plot, kind="spectrum")
    job = Job(spectra, plans, overwrite=overwrite or settings.output.overwrite, quiet=quiet, lock=lock)
    job.run(spectrum_work(settings, precision, focused_plot))
