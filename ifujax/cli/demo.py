"""The command ``ifujax demo``: a real MUSE cube, fitted from nothing, and what was found in plain words."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ifujax.cli.job import Job
from ifujax.cli.line_job import CubeWork
from ifujax.cli.options import CacheOption, DeviceOption, QuietOption, ThreadsOption
from ifujax.cli.outputs import Outputs
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.runtime import prepare
from ifujax.errors import DataError

if TYPE_CHECKING:
    from ifujax.lines.results import CubeFit

DETECTED = 5.0
"""Flux of H-alpha over its error above which a spaxel counts as detected."""


def demo(
    directory: Annotated[
        Path, typer.Option("--directory", metavar="DIR", help="Where the files go; made if it isn't there.")
    ] = Path("ifujax-demo"),
    overwrite: Annotated[bool, typer.Option("-o", "--overwrite", help="Replace files of an earlier run.")] = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit H-alpha, [N II] and [S II] in a real MUSE cube, and say what was found.

    The cube is a piece of the core of the galaxy cluster Abell 478 (40 x 40 spaxels). It is fetched from PyPI once (60 MB, in
    the wheel of mpdaf) and kept in your cache folder. The configuration is written beside the results, to be changed and used
    with ifujax fit-cube.

    \b
    Example:
      ifujax demo --directory abell478
    """
    prepare(device, threads, not no_cache)
    from ifujax.io.demo import minicube_path
    from ifujax.io.output import atomic_path, check_output
    from ifujax.lines.dialect import read_config

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DataError(f"--directory must be a folder; got the file {directory}. Choose another name.") from None
    recipe = directory / "halpha.cfg"
    names = {"product": "minicube_linefit.fits", "maps": "minicube_maps.fits", "page": "minicube_linefit.png"}
    outputs = Outputs({kind: directory / name for kind, name in names.items()})
    outputs.check(overwrite)
    if overwrite or not recipe.exists():
        check_output(recipe, overwrite)
        with atomic_path(recipe, overwrite) as temporary:
            temporary.write_text((files("ifujax.cli") / "demo.cfg").read_text(encoding="utf-8"), encoding="utf-8")
    with ProgressReporter(quiet) as progress:
        cube = minicube_path(progress)
    work = CubeWork(read_config(recipe), line="ha")
    with Job([cube], [outputs], overwrite=overwrite, quiet=quiet).hold(cube, outputs, work.identify(cube)) as run:
        fit = cast("CubeFit", work.fit(run))
    if quiet:
        return
    typer.echo(f"{cube.name}: {fit.summary()}, {run.times}")
    typer.echo("")
    typer.echo(describe_gas(fit))
    typer.echo("")
    typer.echo(f"Look at        {outputs['page']}")
    typer.echo(f"All results    {outputs['product']}")
    typer.echo(f"Maps           {outputs['maps']} (one named image per quantity: DS9, QFitsView, Cubeviz)")
    typer.echo(f"Configuration  {recipe}")
    typer.echo(f"Try            ifujax fit-cube {cube} -c {recipe} -p")


def describe_gas(fit: CubeFit) -> str:
    """Return some sentences about the gas that H-alpha shows; the lines must be named ``ha``, ``n2b``, ``s2a`` and ``s2b``."""
    import numpy as np

    from ifujax.io.units import fits_unit
    from ifujax.lines.figures import amount_text

    usable = fit.status == 0
    detected = usable & (np.nan_to_num(fit["ha", "snr"]) > DETECTED)
    count = int(detected.sum())
    share = f"{count:,} of {detected.size:,} spaxels"
    if count == 0:
        return f"H-alpha is detected (flux above {DETECTED:g} times its error) in none of {detected.size:,} spaxels."
    flux, error = fit["ha", "flux"], fit.error["ha", "flux"]
    velocity, dispersion = fit["ha", "velocity"][detected], fit["ha", "velocity_dispersion"][detected]
    y, x = np.unravel_index(int(np.argmax(np.where(detected, flux, -np.inf))), flux.shape)
    low, middle, high = np.percentile(velocity, [5, 50, 95])
    span = f"from {low:+.0f} to {high:+.0f} km/s (5 to 95 % of the spaxels; median {middle:+.0f} km/s)"
    total = float(np.nansum(flux[detected]))
    amount = amount_text(total, float(np.sqrt(np.nansum(error[detected] ** 2))), fits_unit(fit.cube.unit, times="Angstrom"))
    nitrogen = float(np.nansum(fit["n2b", "flux"][detected])) / total
    sulphur = float(np.nansum((fit["s2a", "flux"] + fit["s2b", "flux"])[detected])) / total
    return "\n".join(
        (
            f"H-alpha is detected (flux above {DETECTED:g} times its error) in {share}. In these:",
            f"- its velocity relative to z = {fit.cube.redshift:g} runs {span};",
            f"- its velocity dispersion, the instrument's width taken off, has a median of {np.median(dispersion):.0f} km/s;",
            f"- its flux adds up to {amount}, and is highest at x = {x}, y = {y} (counted from 0);",
            f"- the flux ratios [N II] 6583 / H-alpha and [S II] 6716+6731 / H-alpha are {nitrogen:.2f} and {sulphur:.2f}.",
        )
    )
