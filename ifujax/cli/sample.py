"""The command ``ifujax sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifujax.cli.job import Job
from ifujax.cli.options import (
    CacheOption,
    ChunkOption,
    ConfigOption,
    DeviceOption,
    LockOption,
    NoResumeOption,
    OverwriteOption,
    QuietOption,
    ThreadsOption,
    single_config,
)
from ifujax.cli.posterior_job import PosteriorWork, Quantities, check_draws, plan_posteriors
from ifujax.cli.runtime import prepare
from ifujax.cli.spaxels import Choice, RegionOption, SpaxelsOption, WhereOption


def sample(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="FITS cubes or spectra: plain, .gz, .bz2 or .fz.")],
    config: ConfigOption,
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
    overwrite: OverwriteOption = False,
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
    path = single_config(config)
    choice = Choice.of(spaxels, region, where)
    check_draws(draws, seed)
    plans = plan_posteriors(files, output, fits=fits, plot=plot)
    prepare(device, threads, not no_cache)
    from ifujax.lines.dialect import read_config

    settings = read_config(path)
    wanted = Quantities(tuple(ratio or ()), bpt, tuple(width or ()))
    work = PosteriorWork(settings, wanted, choice, method, draws, seed, chunk_size, device, spectrum)
    overwrite = overwrite or settings.output.overwrite
    Job(files, plans, overwrite=overwrite, quiet=quiet, lock=lock, resume=not no_resume).run(work.summary, work.identify)
