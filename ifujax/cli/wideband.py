"""The command ``ifujax wideband``."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ifujax.cli.job import Job, Run
from ifujax.cli.options import DirectoryOption, OverwriteOption, QuietOption
from ifujax.cli.outputs import Outputs, require_distinct, stem
from ifujax.errors import UsageError

if TYPE_CHECKING:
    import numpy as np


def wideband(
    curve: Annotated[
        Path, typer.Argument(metavar="CURVE", help="Filter curve: text in two columns, wavelength and sensitivity.")
    ],
    cubes: Annotated[list[Path], typer.Argument(metavar="CUBE...", help="FITS cubes: plain, .gz, .bz2 or .fz.")],
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="NAME", help="Begins the products' names.", show_default="CURVE's name")
    ] = None,
    wave_units: Annotated[
        str, typer.Option("--wave-units", metavar="UNIT", help="Unit of the curve's wavelengths: Angstrom, nm, um.")
    ] = "Angstrom",
    interpolation: Annotated[
        Literal["linear", "cubic"], typer.Option("--interpolation", help="Between the curve's points.")
    ] = "linear",
    photon_weighting: Annotated[
        bool, typer.Option("--photon-weighting", help="Weigh by curve times wavelength, as a detector counts photons.")
    ] = False,
    directory: DirectoryOption = Path("."),
    overwrite: OverwriteOption = False,
    nprocess: Annotated[int, typer.Option("--nprocess", hidden=True, help="Of no effect: for the sake of older scripts.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Make the image that a filter would have made of a cube.

    Each plane is weighted with the exact integral of the filter's curve over it. The image, DATA with STAT (and DQ if pixels are
    masked), goes to the current folder as <prefix>_<cube>.fits, "cube" or "datacube" in the cube's name replaced by "image". The
    prefix is the name of CURVE up to its first dot. Wavelengths of the curve must be in the medium of the cube (MUSE: air).

    \b
    Example:
      ifujax wideband F775W.dat DATACUBE_UDF-01.fits
      writes F775W_IMAGE_UDF-01.fits

    \b
    F775W.dat, its beginning:
      # Angstrom  sensitivity
      6800.0      0.0002
      6805.0      0.0004

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command.
    """
    from ifujax.images.wideband import read_filter_curve

    start = curve.name.partition(".")[0] if prefix is None else prefix
    if "/" in start:
        raise UsageError(f"--prefix must be the beginning of a file name; got {start!r}. Say where with --directory.")
    plans = [Outputs({"product": directory / image_name(path, start)}) for path in cubes]
    require_distinct([curve, *cubes], plans, "cube", "use another --prefix")
    make = partial(
        _make_one,
        points=read_filter_curve(curve),
        unit=wave_units,
        interpolation=interpolation,
        photon_weighting=photon_weighting,
        name=curve.name,
    )
    Job(cubes, plans, overwrite=overwrite, quiet=quiet, unit="cubes").run(make)


def image_name(cube: Path, prefix: str) -> str:
    """Return the product's name: the first ``datacube`` or ``cube`` of the cube's becomes ``image``, in capitals if that is.

    Examples
    --------
    >>> image_name(Path("DATACUBE_UDF-01.fits"), "F775W")
    'F775W_IMAGE_UDF-01.fits'
    """
    name = re.sub(r"(?i)datacube|cube", lambda found: "IMAGE" if found[0].isupper() else "image", stem(cube), count=1)
    return f"{prefix}_{name}.fits"


def _make_one(
    run: Run,
    *,
    points: tuple[np.ndarray, np.ndarray],
    unit: str,
    interpolation: Literal["linear", "cubic"],
    photon_weighting: bool,
    name: str,
) -> str:
    """Read a cube, make and write its image; return what was done."""
    from dataclasses import replace

    from ifujax.images.wideband import bandpass_image
    from ifujax.io.cubes import read_cube
    from ifujax.io.images import write_image

    image = bandpass_image(
        read_cube(run.path), *points, unit=unit, interpolation=interpolation, photon_weighting=photon_weighting
    )
    cards = {**image.cards, "WLPRCURV": (name[:60], "Curve of the filter")}
    run.write("product", lambda draft: write_image(draft, replace(image, cards=cards)))
    return f"{run.path.name}: {image.shape[0]} x {image.shape[1]} pixels (y, x) through {name}"
