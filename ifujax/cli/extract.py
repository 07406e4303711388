"""The command ``ifujax extract``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifujax.cli.options import CacheOption, DeviceOption, NoResumeOption, OverwriteOption, QuietOption, ThreadsOption
from ifujax.cli.runtime import prepare


def extract(
    cube: Annotated[
        Path | None,
        typer.Argument(metavar="[CUBE]", help="FITS cube; without it the parameter file says which.", show_default=False),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option("--catalog", "--cat", metavar="FILE", help="Sources: id, ra, dec [size ref]; text, CSV, FITS, ECSV."),
    ] = None,
    param: Annotated[
        Path | None,
        typer.Option("--param", metavar="FILE", help="AutoSpec's parameter file.", show_default="param.py, without CUBE"),
    ] = None,
    only: Annotated[str | None, typer.Option("--id", metavar="ID,ID", help="Only these sources.")] = None,
    mode: Annotated[
        Literal["param", "cat"] | None, typer.Option("--mode", help="cat: sizes and references of the catalogue count.")
    ] = None,
    size: Annotated[float | None, typer.Option("--size", metavar="ARCSEC", help="Side of the stamps.", show_default="5")] = None,
    aper: Annotated[str | None, typer.Option("--aper", metavar="R,R", help="Radii of apertures, arcsec.")] = None,
    ref: Annotated[
        str | None,
        typer.Option("--ref", metavar="NAME", help="Reference: an image, a radius of --aper.", show_default="white light"),
    ] = None,
    img: Annotated[list[Path] | None, typer.Option("--img", metavar="FILE", help="An extra image; may be given again.")] = None,
    seg: Annotated[
        list[Path] | None, typer.Option("--seg", metavar="FILE", help="A segmentation map of yours; may be given again.")
    ] = None,
    use_imgs: Annotated[
        bool | None,
        typer.Option("--use-imgs/--no-use-imgs", help="Find objects in white light and images, too.", show_default="yes"),
    ] = None,
    obj_mask: Annotated[
        Literal["union", "inter", "UNION", "INTER"] | None,
        typer.Option("--obj-mask", help="How the objects of several maps become one.", show_default="inter"),
    ] = None,
    detection: Annotated[
        list[str] | None,
        typer.Option(
            "--sex",
            metavar="[NAME=]FILE",
            help="Detection settings, a default.sex; of one image: HST=hst.sex.",
            show_default="default.sex, if there is one",
        ),
    ] = None,
    sky_sub: Annotated[
        bool | None, typer.Option("--sky-sub/--no-sky-sub", help="Subtract a local sky.", show_default="yes")
    ] = None,
    xcor: Annotated[bool | None, typer.Option("--xcor/--no-xcor", help="Cross-correlation.", show_default="yes")] = None,
    cont_sub: Annotated[
        bool | None, typer.Option("--cont-sub/--no-cont-sub", help="Also without continua.", show_default="yes")
    ] = None,
    cont_poly: Annotated[
        int | None, typer.Option("--cont-poly", metavar="N", help="Degree of continua.", show_default="5")
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option("--max-distance", metavar="ARCSEC", help="Farther objects are others.", show_default="0.8")
    ] = None,
    plain_aper: Annotated[bool, typer.Option("--plain-aper", help="Whole apertures, not cut by the object mask.")] = False,
    scene: Annotated[bool, typer.Option("--scene/--no-scene", help="Also fit all sources together (SPE_SCENE).")] = True,
    psf: Annotated[
        str | None,
        typer.Option(
            "--psf", metavar="FWHM,BETA|FILE", help="PSF: numbers, or a table of fit-photometry.", show_default="fitted"
        ),
    ] = None,
    scene_imgs: Annotated[
        bool | None,
        typer.Option("--scene-imgs/--no-scene-imgs", help="Extended sources look as in the first --img.", show_default="yes"),
    ] = None,
    img_fwhm: Annotated[
        float | None, typer.Option("--img-fwhm", metavar="ARCSEC", help="PSF of the first --img.", show_default="0.1, as HST")
    ] = None,
    offset: Annotated[bool, typer.Option("--offset/--no-offset", help="Fit an offset of the catalogue for the scene.")] = True,
    refraction: Annotated[bool, typer.Option("--refraction", help="Positions drift with wavelength.")] = False,
    elliptical: Annotated[bool, typer.Option("--elliptical", help="Fit the PSF's ellipticity.")] = False,
    sky_degree: Annotated[
        int | None, typer.Option("--sky-degree", metavar="N", help="Of the scene's sky over the field.", show_default="chosen")
    ] = None,
    nonnegative: Annotated[bool, typer.Option("--non-negative", help="No scene flux below 0; faint ones get biased.")] = False,
    data_ext: Annotated[
        str | None, typer.Option("--data-ext", metavar="DATA[,VAR[,DQ]]", help="Extensions of the cube.", show_default="found")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder of the products; made.", show_default="output")
    ] = None,
    pre_out: Annotated[
        str | None, typer.Option("--pre-out", metavar="TEXT", help="Of their names.", show_default="Source_")
    ] = None,
    name_prefix: Annotated[
        str | None, typer.Option("--name-prefix", metavar="TEXT", help="Of names of spectra and images.", show_default="MUSE_")
    ] = None,
    plots: Annotated[
        bool | None, typer.Option("--plots/--no-plots", help="A page about each source.", show_default="yes")
    ] = None,
    plot_format: Annotated[Literal["png", "jpg", "pdf"], typer.Option("--plot-format", help="Of these pages.")] = "png",
    cmap: Annotated[str | None, typer.Option("--cmap", metavar="NAME", help="Colours of images.", show_default="viridis")] = None,
    out_sub: Annotated[bool | None, typer.Option("--out-sub/--no-out-sub", help="Keep cubes.", show_default="no")] = None,
    out_img: Annotated[bool | None, typer.Option("--out-img/--no-out-img", help="Keep images.", show_default="yes")] = None,
    out_seg: Annotated[
        bool | None, typer.Option("--out-seg/--no-out-seg", help="Keep maps of objects.", show_default="yes")
    ] = None,
    out_mask: Annotated[bool | None, typer.Option("--out-mask/--no-out-mask", help="Keep masks.", show_default="yes")] = None,
    out_xcor: Annotated[
        bool | None, typer.Option("--out-xcor/--no-out-xcor", help="Keep cross-correlation maps.", show_default="yes")
    ] = None,
    out_spec: Annotated[
        bool | None,
        typer.Option("--out-spec/--no-out-spec", help="Keep all spectra, not the final ones only.", show_default="yes"),
    ] = None,
    orig_from: Annotated[str | None, typer.Option("--orig-from", metavar="TEXT", help="FROM of the headers.")] = None,
    orig_fromv: Annotated[str | None, typer.Option("--orig-fromv", metavar="TEXT", help="FROM_V.")] = None,
    orig_cube: Annotated[str | None, typer.Option("--orig-cube", metavar="TEXT", help="CUBE.", show_default="the file")] = None,
    orig_cubev: Annotated[str | None, typer.Option("--orig-cubev", "--orign-cubev", metavar="TEXT", help="CUBE_V.")] = None,
    overwrite: OverwriteOption = False,
    no_resume: NoResumeOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Extract the spectra of catalogue sources from a cube, deblended.

    Alone, in a folder with AutoSpec's param.py, it makes AutoSpec's products; options win over that file, which is read, not
    run. Every source gets a file Source_<ID>.fits in the format of MPDAF, a page with its images and spectra, and a row in
    summary.ecsv: success, signal to noise, contamination by neighbours, flags and reasons.

    Beside AutoSpec's spectra there is SPE_SCENE: all sources are fitted together at every wavelength, each a point seen
    through a PSF that is fitted to them, above a common sky. It is deblended, and its flux is the whole one.

    \b
    Example:
      ifujax extract
      ifujax extract mycube.fits --catalog sources.csv --aper 0.6,1.0 --output spectra
      ifujax extract mycube.fits --catalog sources.fits --img hst.fits --ref hst --id 207,208

    A run that was stopped goes on where it was when the same command is given again.

    Exit code: 0 done, 1 something is wrong with a file or no source could be extracted, 2 something is wrong with the command.
    A single source that fails is no error: see the summary.
    """
    prepare(device, threads, not no_cache)
    from ifujax.cli.extraction_job import Request, run_extraction

    changes = {
        "size": size, "reference": ref, "use_images": use_imgs, "object_mask": obj_mask and obj_mask.lower(),
        "sky_subtraction": sky_sub, "cross_correlation": xcor, "continuum_subtraction": cont_sub, "continuum_degree": cont_poly,
        "max_distance": max_distance, "plain_apertures": plain_aper or None, "scene": scene, "scene_images": scene_imgs,
        "image_fwhm": img_fwhm, "name_prefix": name_prefix,
        "keep_cubes": out_sub, "keep_images": out_img, "keep_segmentations": out_seg, "keep_masks": out_mask,
        "keep_maps": out_xcor, "keep_spectra": out_spec,
    }  # fmt: skip
    scene_changes = {
        "offset": offset, "refraction": refraction, "ellipticity": elliptical, "sky_degree": sky_degree,
        "nonnegative": nonnegative,
    }  # fmt: skip
    request = Request(
        cube=cube, catalog=catalog, param=param, only=only, mode=mode, apertures=aper, images=tuple(img or ()),
        segmentations=tuple(seg or ()), detection=tuple(detection or ()), psf=psf, extensions=data_ext, output=output,
        prefix=pre_out, plots=plots, plot_format=plot_format, colormap=cmap,
        origin={"FROM": orig_from, "FROM_V": orig_fromv, "CUBE": orig_cube, "CUBE_V": orig_cubev},
        changes={name: value for name, value in changes.items() if value is not None},
        scene={name: value for name, value in scene_changes.items() if value is not None},
    )  # fmt: skip
    run_extraction(request, overwrite=overwrite, resume=not no_resume, quiet=quiet)
