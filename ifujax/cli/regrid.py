"""The command ``ifujax regrid``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ifujax.cli.inputs import holds_cube, in_stated_unit
from ifujax.cli.job import Job, Run
from ifujax.cli.options import DirectoryOption, OverwriteOption, QuietOption, UnitOption
from ifujax.cli.outputs import Outputs, require_distinct, stem
from ifujax.errors import DataError, UsageError

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.data.image import Image


def regrid(
    muse: Annotated[Path, typer.Argument(metavar="MUSE", help="Image or cube of MUSE: its pixels and its unit are taken over.")],
    hst: Annotated[list[Path], typer.Argument(metavar="HST...", help="FITS images of HST: plain, .gz, .bz2 or .fz.")],
    field: Annotated[
        str | None,
        typer.Option("--field", metavar="NAME", help="Name of the field, in the products' names.", show_default="MUSE's"),
    ] = None,
    unit: UnitOption = None,
    directory: DirectoryOption = Path("."),
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put HST images on the pixels of a MUSE image, in its flux unit.

    The HST image is low-passed for the coarser pixels and sampled at their centres, whatever its orientation. Counts per second
    become flux densities by PHOTFLAM of its header, or by the table of ACS filters. The products go to the current folder as
    hst_<FILTER>_for_<field>.fits, with extensions DATA, STAT (if HST has a variance) and DQ (if it has gaps).

    \b
    Example:
      ifujax regrid IMAGE_UDF-01.fits hst_f606w.fits hst_f775w.fits --field UDF-01
      writes hst_F606W_for_UDF-01.fits and hst_F775W_for_UDF-01.fits

    HST images should have pixels of 0.03 to 0.05 arcsec. fit-photometry takes them as they are, too: this is for
    --method fourier, and for looking at both images side by side.

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command.
    """
    from ifujax.images.filters import hst_filter_info
    from ifujax.io.images import read_image_header

    name = stem(muse) if field is None else field
    if not name or "/" in name or name != name.strip():
        raise UsageError(f"--field must be a name for files; got {name!r}. Use letters and digits.")
    filters = [hst_filter_info(read_image_header(path)) for path in hst]
    plans = [Outputs({"product": directory / f"hst_{each.name}_for_{name}.fits"}) for each in filters]
    require_distinct([muse, *hst], plans, "field", "give images of one filter one after the other, with another --field")
    job = Job(hst, plans, overwrite=overwrite, quiet=quiet, unit="images")
    job.run(partial(_regrid_one, like=_read_muse(muse, unit)))


def _read_muse(path: Path, unit: str | None) -> Image | Cube:
    from ifujax.io.cubes import read_cube
    from ifujax.io.images import read_image

    found = in_stated_unit(read_cube(path), unit, path) if holds_cube(path) else in_stated_unit(read_image(path), unit, path)
    if not found.unit:
        raise DataError(f"{path} must have a flux unit; got no BUNIT. Say --unit '10**(-20)*erg/s/cm**2/Angstrom' if that is it.")
    return found


def _regrid_one(run: Run, like: Image | Cube) -> str:
    """Read, regrid and write one HST image; return what was done."""
    import numpy as np

    from ifujax.images.filters import hst_filter_info
    from ifujax.images.regrid import regrid_like, rescale_like
    from ifujax.io.images import read_image, write_image

    image = read_image(run.path)
    known = hst_filter_info(image)
    made = rescale_like(regrid_like(image, like), like, filter_info=known)
    cards = {
        "FILTER": (known.name, "Filter of HST"),
        "PHOTFLAM": (known.photflam, "[erg/s/cm2/A] of 1 count/s, as it was"),
        "PHOTPLAM": (known.pivot, "[Angstrom] Pivot wavelength"),
    }
    run.write("product", lambda draft: write_image(draft, replace(made, cards={**made.cards, **cards})))
    covered = float(np.isfinite(made.values).mean())
    pixels = f"{made.shape[0]} x {made.shape[1]} pixels (y, x)"
    return f"{run.path.name}: {known.name}, on {pixels}, {100 * covered:.0f} % of them covered"
