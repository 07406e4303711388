"""The command ``ifujax fit-photometry``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifujax.cli.display import Display
from ifujax.cli.job import Job
from ifujax.cli.options import (
    CacheOption,
    DeviceOption,
    DirectoryOption,
    OverwriteOption,
    QuietOption,
    ThreadsOption,
    UnitOption,
    as_given,
)
from ifujax.cli.outputs import Outputs, require_distinct, stem
from ifujax.cli.photometry_job import Fits, Products, run_each
from ifujax.cli.photometry_options import (
    EllipticalOption,
    FixBetaOption,
    FixBgOption,
    FixDxOption,
    FixDyOption,
    FixFWHMOption,
    FixScaleOption,
    HSTBetaErrorOption,
    HSTBetaOption,
    HSTFWHMErrorOption,
    HSTFWHMOption,
    HSTSampledOption,
    InitDxOption,
    InitDyOption,
    IntegratePixelsOption,
    LossOption,
    MarginOption,
    MethodOption,
    MinScaleOption,
    NoiseOption,
    RotationOption,
    SamplingOption,
    SegmentOption,
    TaperOption,
    fit_options,
    word_or_none,
)
from ifujax.cli.runtime import prepare
from ifujax.errors import UsageError


def fit_photometry(
    context: typer.Context,
    hst: Annotated[Path, typer.Argument(metavar="HST", help="Image of HST, with its own pixels or on those of MUSE.")],
    muse: Annotated[list[Path], typer.Argument(metavar="MUSE...", help="Images of MUSE: plain, .gz, .bz2 or .fz.")],
    regions: Annotated[
        str | None,
        typer.Option(
            "--regions",
            metavar="none|star|notstar|FILE",
            help="What to compare; FILE: DS9 regions. By default star, if there is --star.",
        ),
    ] = None,
    star: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--star", metavar="RA DEC RADIUS", help="Also fit this star (degrees, degrees, arcsec) with a profile."),
    ] = None,
    extramask: Annotated[
        str | None,
        typer.Option("--extramask", metavar="FILE", parser=word_or_none, help="Image whose non-zero pixels are left out."),
    ] = None,
    segment: SegmentOption = False,
    fix_scale: FixScaleOption = None,
    fix_bg: FixBgOption = None,
    fix_dx: FixDxOption = None,
    fix_dy: FixDyOption = None,
    fix_fwhm: FixFWHMOption = None,
    fix_beta: FixBetaOption = None,
    init_dx: InitDxOption = None,
    init_dy: InitDyOption = None,
    min_scale: MinScaleOption = 0.0,
    hst_fwhm: HSTFWHMOption = 0.085,
    hst_beta: HSTBetaOption = 1.6,
    hst_fwhm_error: HSTFWHMErrorOption = 0.0,
    hst_beta_error: HSTBetaErrorOption = 0.0,
    hst_sampled: HSTSampledOption = 0.0,
    margin: MarginOption = 2.0,
    taper: TaperOption = None,
    method: MethodOption = "forward",
    elliptical: EllipticalOption = False,
    rotation: RotationOption = False,
    integrate_pixels: IntegratePixelsOption = False,
    noise: NoiseOption = None,
    loss: LossOption = None,
    sampling: SamplingOption = None,
    unit: UnitOption = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Write everything, errors too: .ecsv, .fits or .json.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write <prefix>_image, _hst_model and _residual.fits: data, model, difference.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write <prefix>_aligned.fits: position, background and scale as those of HST.")
    ] = False,
    resample: Annotated[bool, typer.Option("--resample", help="--apply by moving the pixels: as --position resample.")] = False,
    position: Annotated[
        Literal["crpix", "crval", "resample"] | None,
        typer.Option("--position", help="How positions are corrected; --apply goes with it.", show_default="crpix"),
    ] = None,
    hardcopy: Annotated[
        str | None,
        typer.Option(
            "--hardcopy", metavar="EXT", parser=word_or_none, help="Write <prefix>_image_fit.EXT, _star_fit.EXT: png, pdf, ..."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Of figures.", show_default="MUSE's name")] = None,
    display: Annotated[bool, typer.Option("--display", help="Show figures; wait until they are closed.")] = False,
    nowait: Annotated[bool, typer.Option("--nowait", help="Don't wait.")] = False,
    directory: DirectoryOption = Path("."),
    overwrite: OverwriteOption = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also print errors, correlations and chi2.")] = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find PSF, flux scale, background and pointing of MUSE images by comparing them with an HST image.

    Prints a table, a line an image, and one for the star with --star:  MUSE = HST * scale + offset,  and HST features are moved
    by the x- and y-offset to lie on those of MUSE. Files are called after each MUSE image, <prefix> being its name without .fits.

    \b
    Examples:
      ifujax fit-photometry hst_f606w.fits IMAGE_UDF-01.fits --table udf01.ecsv --hardcopy png
                     PSF and pointing with errors; HST may have its own pixels and be in counts per second
      ifujax fit-photometry hst_F606W_for_UDF-01.fits IMAGE_UDF-01.fits --fix_beta 2.5 --method fourier
                     as the command of imphot does it; HST from ifujax regrid
      ifujax fit-photometry hst_f606w.fits exposure*.fits --star 53.1579 -27.7692 3 --apply
                     many exposures, by a star and what is around it; writes them corrected

    Options may be written with _ or -. A value none means that it isn't given.

    Exit code: 0 done, 1 something is wrong with a file or a fit failed, 2 something is wrong with the command.
    """
    prepare(device, threads, not no_cache)
    from ifujax.photometry.inputs import check_star, load_image
    from ifujax.photometry.products import table_format

    check_star(star)
    if resample and position not in (None, "resample"):
        raise UsageError(f"--position must be resample, or left out, with --resample; got {position}.")
    options, of_star = fit_options(context.params)
    products = Products(
        save=save,
        position="resample" if resample else position or ("crpix" if apply else None),
        hardcopy=hardcopy,
        star=star is not None,
        title=None if title is None or title.strip().lower() == "none" else title,
        cards={"HSTIMAGE": (hst.name, "Image of HST")},
        overwrite=overwrite,
    )
    prefixes = [directory / stem(path) for path in muse]
    plans, common = [products.plan(prefix) for prefix in prefixes], Outputs({"table": table})
    if table is not None:
        table_format(table)
    read = [hst, *muse, *([] if extramask is None else [Path(extramask)])]
    require_distinct(read, [*plans, common], "MUSE image", "use --directory or another name")
    job = Job(muse, plans, overwrite=overwrite, quiet=quiet, unit="images", common=common)
    screen = Display(wait=not nowait) if display else None
    mask = None if extramask is None else load_image(extramask)
    fits = Fits(load_image(hst), options, of_star, regions, star, mask, unit)
    run_each(job, fits, products, prefixes, verbose=verbose, display=screen, command=as_given(context))
