"""What ``ifujax extract`` does: from the parameter file and options to the files of every source."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ifujax.cli.job import Job, Run
from ifujax.cli.messages import report
from ifujax.cli.outputs import Outputs
from ifujax.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.data.image import Image
    from ifujax.extraction.catalog import Catalog
    from ifujax.extraction.config import ExtractionConfig
    from ifujax.extraction.param_file import ParameterFile
    from ifujax.extraction.results import SourceResult
    from ifujax.extraction.scene.psf import FieldPSF
    from ifujax.extraction.scene.scene import SceneOptions
    from ifujax.extraction.sextractor_file import DetectionOptions

PARAMETERS = Path("param.py")
SUMMARY = "summary.ecsv"


@dataclass(frozen=True)
class Request:
    """The command as it was given; None where nothing was."""

    cube: Path | None
    catalog: Path | None
    param: Path | None
    only: str | None
    mode: str | None
    apertures: str | None
    images: tuple[Path, ...]
    segmentations: tuple[Path, ...]
    detection: tuple[str, ...]
    psf: str | None
    extensions: str | None
    output: Path | None
    prefix: str | None
    plots: bool | None
    plot_format: str
    colormap: str | None
    origin: Mapping[str, str | None]
    changes: Mapping[str, object]
    scene: Mapping[str, object]


@dataclass(frozen=True)
class _Plan:
    """What is to be done."""

    settings: ParameterFile
    cube: Path
    catalog: Catalog
    catalog_path: Path
    detection: dict[str, DetectionOptions]
    scene: SceneOptions
    plot_format: str


def run_extraction(request: Request, *, overwrite: bool, resume: bool, quiet: bool) -> None:
    """Extract the sources of a catalogue and write their files.

    Raises
    ------
    UsageError, DataError
        For what is wrong with the command or a file, before anything is written.
    typer.Exit
        With code 1 if no source could be extracted.
    """
    plan = _plan(request)
    output, prefix = plan.settings.output, plan.settings.prefix
    if output.exists() and not output.is_dir():
        raise DataError(f"--output must be a folder; got the file {output}. Choose another name.")
    output.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {"summary": output / SUMMARY}
    for source in plan.catalog.sources:
        files[f"source {source.id}"] = output / f"{prefix}{source.id}.fits"
        if plan.settings.plots:
            files[f"page {source.id}"] = output / f"{prefix}{source.id}.{plan.plot_format}"
    job = Job([plan.cube], [Outputs(files, folder=output)], overwrite=overwrite, quiet=quiet, resume=resume, unit="sources")

    def identify(path: Path) -> dict[str, str]:
        from ifujax.cli.resume import run_identity

        settings = plan.settings
        inputs = {"input": path, "catalogue": plan.catalog_path}
        inputs |= {f"image {k}": each for k, each in enumerate((*settings.images, *settings.segmentations))}
        facts = {"settings": repr((settings.config, settings.from_catalog, settings.origin, plan.scene, plan.detection))}
        return run_identity(inputs, facts)

    # A list of all files would be as long as the catalogue: the work says where they are
    with job.hold(plan.cube, job.plans[0], identify(plan.cube)) as run:
        text, good = _extract(run, plan)
    if not quiet:
        typer.echo(text)
    if not good:
        raise typer.Exit(1)


def _extract(run: Run, plan: _Plan) -> tuple[str, int]:
    """Do the work; return what to say, and how many sources could be extracted."""
    from ifujax.extraction.figures import source_figure
    from ifujax.extraction.products import source_hdus
    from ifujax.extraction.results import summary_table
    from ifujax.extraction.run import each_source, extractor_of, fit_scene
    from ifujax.plotting.style import save

    settings, config = plan.settings, plan.settings.config
    cube = _read_cube(plan)
    images = dict(_named_images(settings.images))
    maps = dict(_named_images(settings.segmentations))
    extractor = extractor_of(cube, config, images, maps, plan.detection)
    scene = None
    if config.scene:
        run.progress.unit = "wavelengths"
        scene = fit_scene(extractor, plan.catalog, plan.scene, run.progress)
        run.progress.unit = "sources"
    results: list[SourceResult] = []
    total = len(plan.catalog)
    for result in each_source(extractor, plan.catalog, scene, from_catalog=settings.from_catalog):
        name = result.source.id
        if result.status == 0:
            if not run.finished(f"source {name}"):
                hdus = source_hdus(result, settings.origin, plan.cube.name)
                run.write(f"source {name}", lambda draft, hdus=hdus: hdus.writeto(draft, checksum=True))
            if settings.plots and not run.finished(f"page {name}"):
                figure = source_figure(result, settings.colormap)
                run.write(f"page {name}", lambda draft, figure=figure: save(figure, draft, dpi=100))
        results.append(result.without_arrays())  # a catalogue may be long
        run.progress("extract", min(len(results), total), max(total, 1))
    table = summary_table(results)
    if scene is not None:
        psf = scene.scene.psf
        numbers = {
            "fwhm_arcsec": psf.fwhm, "beta": psf.beta, "slope_per_1000A": psf.slope, "wavelength": psf.wavelength,
            "dx_arcsec": psf.dx, "dy_arcsec": psf.dy,
        }  # fmt: skip
        table.meta.update(psf={name: round(value, 5) for name, value in numbers.items()})  # type: ignore[union-attr]
    run.write("summary", lambda draft: table.write(draft, format="ascii.ecsv"))
    _write_log(settings.output, results)
    for result in [each for each in results if each.status]:
        report("warning", f"source {result.source.id}: {result.reason}")
    good = sum(result.status == 0 for result in results)
    lines = [f"{plan.cube.name}: {good} of {len(results)} sources extracted in {run.elapsed:.1f} s"]
    if scene is not None:
        psf, fit = scene.scene.psf, scene.scene.psf_fit
        how = "given" if fit is None else "assumed" if fit.assumed else f"+- {fit.errors['fwhm']:.3f}"
        lines.append(f"  PSF: FWHM {psf.fwhm:.3f} arcsec ({how}) at {psf.wavelength:.0f} Angstrom, beta {psf.beta:.2f}")
    lines.append(f"  wrote {settings.output}: {settings.prefix}<ID>.fits, {SUMMARY}")
    return "\n".join(lines), good


def _write_log(folder: Path, results: list[SourceResult]) -> None:
    """Write AutoSpec's log: a line a source."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    lines = [f"# Log file: {time.ctime()}", "# ifujax extract", ""]
    for result in results:
        said = f"Error, {result.reason}" if result.status else f"Extracted Successfully in {result.seconds:.2f}s"
        lines.append(f"{result.source.id}: {said}")
    path = logs / f"{time.strftime('%d%b%Y_%H%M%S')}.log"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plan(request: Request) -> _Plan:
    """Bring the parameter file and the options together."""
    from ifujax.extraction.catalog import read_catalog
    from ifujax.extraction.scene.scene import SceneOptions

    settings = _settings(request)
    for note in settings.notes:
        report("warning", note)
    if settings.cube is None:
        raise UsageError("CUBE must be given, or DATACUBE in the parameter file; got neither.")
    if settings.catalog is None:
        raise UsageError("--catalog must be given, or CATALOG in the parameter file; got neither.")
    for path in (settings.cube, *settings.images, *settings.segmentations):
        if not path.is_file():
            raise DataError(f"{path} must be a file; got none of that name. Check the path.")
    catalog = read_catalog(settings.catalog)
    if request.only is not None:
        catalog = _some(catalog, request.only)
    scene = SceneOptions(**request.scene, psf=None if request.psf is None else _psf(request.psf))  # type: ignore[arg-type]
    return _Plan(
        settings,
        settings.cube,
        catalog,
        settings.catalog,
        _detection(request.detection, settings.cube),
        scene,
        request.plot_format,
    )


def _settings(request: Request) -> ParameterFile:
    from ifujax.extraction.config import ExtractionConfig
    from ifujax.extraction.param_file import ParameterFile, extensions_of, radii_of, read_param_file

    path = request.param
    if path is None and request.cube is None:
        if not PARAMETERS.is_file():
            raise UsageError(
                "CUBE must be given, or a param.py of AutoSpec be in this folder; got neither. See ifujax extract --help."
            )
        path = PARAMETERS
    if path is not None:
        found = read_param_file(path)
    else:
        found = ParameterFile(
            ExtractionConfig(), False, None, None, (), (), (), Path("output"), "Source_", True, "viridis",
            {"FROM": "", "FROM_V": "", "CUBE": "", "CUBE_V": ""},
        )  # fmt: skip
    changes = dict(request.changes)
    if request.apertures is not None:
        changes["apertures"] = radii_of(request.apertures, "--aper")
    config: ExtractionConfig = found.config.with_changes(**changes)
    given = {name: value for name, value in request.origin.items() if value is not None}
    return replace(
        found,
        config=config,
        from_catalog=found.from_catalog if request.mode is None else request.mode == "cat",
        cube=request.cube or found.cube,
        catalog=request.catalog or found.catalog,
        extensions=found.extensions if request.extensions is None else extensions_of(request.extensions.split(","), "--data-ext"),
        images=request.images or found.images,
        segmentations=request.segmentations or found.segmentations,
        output=request.output or found.output,
        prefix=found.prefix if request.prefix is None else request.prefix,
        plots=found.plots if request.plots is None else request.plots,
        colormap=request.colormap or found.colormap,
        origin={**found.origin, **given},
    )


def _some(catalog: Catalog, only: str) -> Catalog:
    """Return the sources of a catalogue that were asked for."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    known = {source.id: source for source in catalog.sources} | {name: None for name, _ in catalog.rejected}
    for name in wanted:
        if name not in known:
            raise UsageError(unknown("--id", name, known))
    return replace(
        catalog,
        sources=tuple(source for source in catalog.sources if source.id in wanted),
        rejected=tuple(row for row in catalog.rejected if row[0] in wanted),
    )


def _psf(text: str) -> FieldPSF:
    """Understand ``0.7,2.8``, or read a table of fit-photometry."""
    from ifujax.extraction.scene.psf import FieldPSF, read_psf

    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return read_psf(text)
    if len(numbers) not in (2, 3, 4) or not (numbers[0] > 0 and numbers[1] > 1):
        raise UsageError(
            f"--psf must be FWHM (arcsec), beta (above 1), its slope per 1000 Angstrom and the wavelength of both; got {text!r}."
        )
    return FieldPSF(*numbers)


def _detection(given: tuple[str, ...], cube: Path) -> dict[str, DetectionOptions]:
    """Read detection settings, of all images ("") or by name; a default.sex in the folder counts."""
    from ifujax.extraction.sextractor_file import read_sextractor_file

    default = Path("default.sex")
    pairs = [each.partition("=")[::2] if "=" in each else ("", each) for each in given]
    if not any(name == "" for name, _ in pairs) and default.is_file():
        pairs.append(("", str(default)))
    found = {}
    for name, path in pairs:
        found[name], notes = read_sextractor_file(path)
        for note in notes:
            report("warning", note)
    return found


def _named_images(paths: tuple[Path, ...]) -> list[tuple[str, Image]]:
    """Read images; their names are those of their files, in capitals."""
    from ifujax.extraction.config import unique_names
    from ifujax.io.images import base_name, read_image

    return list(zip(unique_names([base_name(path).upper() for path in paths]), [read_image(path) for path in paths], strict=True))


def _read_cube(plan: _Plan) -> Cube:
    """Read the cube, its planes as the settings name them."""
    from ifujax.io.cubes import read_cube

    named: dict[str, Any] = dict(zip(("scidata", "variance", "flags"), plan.settings.extensions))
    if str(named.get("variance", "")).upper() == "IVAR":
        named["ivar"] = named.pop("variance")
    elif str(named.get("variance", "")).upper() in ("ERR", "ERROR", "SIGMA"):
        named["error"] = named.pop("variance")
    return read_cube(plan.cube, redshift=0.0, **named)
