"""The command ``ifujax fit-cube``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifujax.cli.job import Job
from ifujax.cli.line_job import CubeWork, configurations
from ifujax.cli.options import (
    CacheOption,
    ChunkOption,
    DeviceOption,
    LockOption,
    NoiseOption,
    NoResumeOption,
    OverwriteOption,
    PrecisionOption,
    ProductOption,
    QuietOption,
    ThreadsOption,
)
from ifujax.cli.runtime import prepare
from ifujax.cli.select import CandidatesOption, Selection, SelectOption, ThresholdOption


def fit_cube(
    cubes: Annotated[list[Path], typer.Argument(metavar="CUBE...", help="FITS cubes: plain, .gz, .bz2 or .fz.")],
    config: Annotated[
        list[Path],
        typer.Option("-c", "--config", metavar="FILE", help="Configuration, in the style of IFSCube; two or more with --select."),
    ],
    overwrite: OverwriteOption = False,
    plot: Annotated[
        bool, typer.Option("-p", "--plot", help="Also draw a page of maps and example spectra (PNG) beside the product.")
    ] = False,
    maps: Annotated[
        Path | None, typer.Option("--maps", metavar="FILE", help="Also write one named 2-D image per quantity and error.")
    ] = None,
    output: ProductOption = None,
    select: SelectOption = None,
    threshold: ThresholdOption = None,
    candidates: CandidatesOption = False,
    noise: NoiseOption = None,
    lock: LockOption = False,
    no_resume: NoResumeOption = False,
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
      ifujax fit-cube mycube.fits -c one.cfg -c two.cfg --select bic    how many components, spaxel by spaxel

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

    A run that was stopped, however hard, goes on where it was when the same command is given again.

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command or the configuration. A spaxel
    that could not be fitted is no error: see STATUS in the product.
    """
    prepare(device, threads, not no_cache)
    every = configurations(config, noise)
    selection = Selection.of(every, select, threshold, candidates=candidates, maps=maps)
    work = CubeWork(every[0], selection, precision, chunk_size, device)
    names = selection.names if selection is not None and candidates else ()
    plans = work.plan(cubes, output=output, maps=maps, plot=plot, candidates=names)
    overwrite = overwrite or all(each.output.overwrite for each in every)
    Job(cubes, plans, overwrite=overwrite, quiet=quiet, lock=lock, resume=not no_resume).run(work.summary, work.identify)
