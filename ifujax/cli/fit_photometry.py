"""The command ``ifujax fit-photometry``."""

from __future__ import annotations

import math
import shlex
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ifujax.cli.display import Display
from ifujax.cli.fit_cube import CacheOption, DeviceOption, QuietOption, ThreadsOption
from ifujax.cli.outputs import Outputs, require_distinct, stem
from ifujax.cli.photometry_job import Job, Wanted, run_each
from ifujax.cli.regrid import DirectoryOption, UnitOption
from ifujax.cli.runtime import prepare
from ifujax.errors import IfujaxWarning, UsageError


def _number(text: str) -> float | None:
    """Understand a number, or "none"."""
    if text.strip().lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"must be a number or none; got {text!r}.")
    return value


def _word(text: str) -> str | None:
    return None if text.strip().lower() in ("none", "") else text


def _held(name: str, meaning: str) -> Any:
    return typer.Option(f"--fix-{name}", metavar="VALUE", parser=_number, help=f"Hold {meaning}; none: fit it.")


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
        str | None, typer.Option("--extramask", metavar="FILE", parser=_word, help="Image whose non-zero pixels are left out.")
    ] = None,
    segment: Annotated[bool, typer.Option("--segment", help="Compare only where HST shows sources (--method fourier).")] = False,
    fix_scale: Annotated[float | None, _held("scale", "MUSE / HST")] = None,
    fix_bg: Annotated[float | None, _held("bg", "the background, in the unit of MUSE")] = None,
    fix_dx: Annotated[float | None, _held("dx", "the shift MUSE less HST along x, arcsec")] = None,
    fix_dy: Annotated[float | None, _held("dy", "the shift along y, arcsec")] = None,
    fix_fwhm: Annotated[float | None, _held("fwhm", "the FWHM of the PSF, arcsec")] = None,
    fix_beta: Annotated[float | None, _held("beta", "the exponent of the PSF")] = None,
    init_dx: Annotated[
        float | None, typer.Option("--init-dx", metavar="ARCSEC", parser=_number, help="Where the search for the shift begins.")
    ] = None,
    init_dy: Annotated[
        float | None, typer.Option("--init-dy", metavar="ARCSEC", parser=_number, help="The same along y.")
    ] = None,
    min_scale: Annotated[float, typer.Option("--min-scale", metavar="VALUE", help="Least MUSE / HST.")] = 0.0,
    hst_fwhm: Annotated[
        float, typer.Option("--hst-fwhm", metavar="ARCSEC", help="PSF of HST, before regridding; by default that of ACS.")
    ] = 0.085,
    hst_beta: Annotated[float, typer.Option("--hst-beta", metavar="VALUE", help="Its exponent.")] = 1.6,
    hst_fwhm_error: Annotated[
        float, typer.Option("--hst-fwhm-error", metavar="ARCSEC", help="1 sigma of --hst-fwhm: goes into all errors.")
    ] = 0.0,
    hst_beta_error: Annotated[
        float, typer.Option("--hst-beta-error", metavar="VALUE", help="1 sigma of --hst-beta, likewise.")
    ] = 0.0,
    hst_sampled: Annotated[
        float,
        typer.Option(
            "--hst-sampled",
            metavar="ARCSEC",
            help="Pixels, before any regridding, at whose centres the PSF of HST is sampled; 0: they sample it finely enough.",
        ),
    ] = 0.0,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", metavar="ARCSEC", help="Reach of the search for the shift; with fourier, room around the images."
        ),
    ] = 2.0,
    taper: Annotated[
        int | None,
        typer.Option("--taper", metavar="PIXELS", help="Width of soft edges (--method fourier).", show_default="9"),
    ] = None,
    method: Annotated[
        Literal["forward", "fourier"],
        typer.Option("--method", help="fourier: as imphot did it; needs HST on the pixels of MUSE."),
    ] = "forward",
    elliptical: Annotated[bool, typer.Option("--elliptical", help="Also fit ellipticity and angle of the PSF.")] = False,
    rotation: Annotated[bool, typer.Option("--rotation", help="Also fit a rotation of MUSE.")] = False,
    integrate_pixels: Annotated[
        bool, typer.Option("--integrate-pixels", help="FWHM of the PSF before the pixels of MUSE average it.")
    ] = False,
    noise: Annotated[
        Literal["variance", "scaled", "correlated"] | None,
        typer.Option(
            "--noise",
            help="The noise: the variances; these times the reduced chi2; or with the correlation of neighbours too.",
            show_default="variance",
        ),
    ] = None,
    loss: Annotated[
        Literal["gaussian", "student_t"] | None,
        typer.Option(
            "--loss",
            help="What is minimised: chi2, or that of Student's t, which pixels far off hardly pull at.",
            show_default="gaussian",
        ),
    ] = None,
    sampling: Annotated[
        Literal["auto", "native", "regridded"] | None,
        typer.Option("--sampling", help="Whether HST has its own pixels.", show_default="auto: by their size"),
    ] = None,
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
            "--hardcopy", metavar="EXT", parser=_word, help="Write <prefix>_image_fit.EXT, _star_fit.EXT: png, pdf, ..."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Of figures.", show_default="MUSE's name")] = None,
    display: Annotated[bool, typer.Option("--display", help="Show figures; wait until they are closed.")] = False,
    nowait: Annotated[bool, typer.Option("--nowait", help="Don't wait.")] = False,
    directory: DirectoryOption = Path("."),
    overwrite: Annotated[bool, typer.Option("-o", "--overwrite", help="Replace products that exist.")] = False,
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
    from ifujax.models.psf import SMALLEST_BETA, MoffatPSF
    from ifujax.photometry.config import PhotometryOptions
    from ifujax.photometry.inputs import check_star, load_image
    from ifujax.photometry.products import write_table

    check_star(star)
    if not (0 < hst_fwhm < math.inf and SMALLEST_BETA <= hst_beta < math.inf):
        raise UsageError(
            f"--hst-fwhm must be positive and --hst-beta {SMALLEST_BETA} or more; got {hst_fwhm:g} and {hst_beta:g}."
        )
    if resample and position not in (None, "resample"):
        raise UsageError(f"--position must be resample, or left out, with --resample; got {position}.")
    fourier = method == "fourier"
    psf_error = None if fourier or not (hst_fwhm_error or hst_beta_error) else (hst_fwhm_error, hst_beta_error)
    psf = MoffatPSF(hst_fwhm, hst_beta)
    # What images alone take, and only forward
    of_forward: dict[str, Any] = {} if fourier else {
        "hst_psf": MoffatPSF(hst_fwhm, hst_beta, sampled=hst_sampled), "hst_psf_error": psf_error,
        "sampling": sampling or "auto", "noise": noise or "variance", "loss": loss or "gaussian",
    }  # fmt: skip
    of_fourier: dict[str, Any] = {"hst_psf": psf, "taper": taper, "segment": segment} if fourier else {}
    options = PhotometryOptions(
        fix_scale=fix_scale, fix_bg=fix_bg, fix_dx=fix_dx, fix_dy=fix_dy, fix_fwhm=fix_fwhm, fix_beta=fix_beta,
        init_dx=init_dx, init_dy=init_dy, min_scale=min_scale, margin=margin, integrate_pixels=integrate_pixels,
        elliptical=elliptical, rotation=rotation, method=method, **of_forward, **of_fourier,
    )  # fmt: skip
    of_star = PhotometryOptions(
        fix_fwhm=fix_fwhm, fix_beta=fix_beta, hst_psf=psf, integrate_pixels=integrate_pixels,
        sampling=sampling or "auto", noise=noise or "variance",
    )  # fmt: skip
    _notice(
        method,
        {"--taper": taper is not None, "--segment": segment},
        {
            "--noise": noise is not None,
            "--sampling": sampling is not None,
            "--loss": loss is not None,
            "--hst-sampled": bool(hst_sampled),
            "--hst-fwhm-error, --hst-beta-error": bool(hst_fwhm_error or hst_beta_error),
        },
        " on images" if star is not None and fourier else "",
    )
    wanted = Wanted(
        save=save,
        position="resample" if resample else position or ("crpix" if apply else None),
        hardcopy=hardcopy,
        star=star is not None,
        title=None if title is None or title.strip().lower() == "none" else title,
        cards={"HSTIMAGE": (hst.name, "Image of HST")},
        overwrite=overwrite,
    )
    prefixes = [directory / stem(path) for path in muse]
    _check_outputs([wanted.plan(prefix) for prefix in prefixes], table, [hst, *muse], extramask, overwrite)
    screen = Display(wait=not nowait) if display else None
    job = Job(load_image(hst), options, of_star, regions, star, None if extramask is None else load_image(extramask), unit)
    results, failed = run_each(job, wanted, muse, prefixes, verbose=verbose, quiet=quiet, display=screen)
    if table is not None and any(not result.status for result in results):
        write_table(results, table, overwrite, _command(context))
        if not quiet:
            typer.echo(f"wrote {table}", err=True)
    if failed:
        raise typer.Exit(1)


def _check_outputs(plans: list[Outputs], table: Path | None, inputs: list[Path], extramask: str | None, overwrite: bool) -> None:
    """Raise now for what could not be written after the fit."""
    from ifujax.photometry.products import table_format

    if table is not None:
        table_format(table)
        plans = [*plans, Outputs(product=table)]
    if extramask is not None:
        inputs = [*inputs, Path(extramask)]
    require_distinct(inputs, plans, "MUSE image", "use --directory or another name")
    for plan in plans:
        plan.check(overwrite, made=lambda _: False)


def _notice(method: str, of_fourier: dict[str, bool], of_forward: dict[str, bool], where: str) -> None:
    """Say which options belong to the other method; fits of stars take some of them all the same: `where`."""
    other, given = ("fourier", of_fourier) if method == "forward" else ("forward", of_forward)
    names = [name for name, is_given in given.items() if is_given]
    if names:
        verb = "has" if len(names) == 1 else "have"
        warnings.warn(
            f"{', '.join(names)} {verb} no effect{where} with --method {method}, only with --method {other}.",
            IfujaxWarning,
            stacklevel=2,
        )


def _command(context: typer.Context) -> str:
    """Return the command as it was given, options first."""
    options, arguments = [], []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[parameter.name or ""]
        values = ["none"] if value is None else list(value) if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            arguments += values
        else:
            options += [parameter.opts[-1]] + ([] if value is True else values)
    return shlex.join(str(each) for each in ["ifujax", context.info_name, *options, *arguments])
