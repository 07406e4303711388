"""`extract_sources`: the steps from a cube and a catalogue to spectra of sources."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from astropy.wcs import WCS

from ifujax.data.cube import Cube
from ifujax.data.image import Image
from ifujax.data.spaxels import as_variance, flagged
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.extraction import flags
from ifujax.extraction.catalog import Catalog, CatalogSource
from ifujax.extraction.classic import StampCube, classic_products, white_image
from ifujax.extraction.config import ExtractionConfig
from ifujax.extraction.images import labels_on_cube, on_cube
from ifujax.extraction.masks import source_masks
from ifujax.extraction.results import Extraction, SourceResult, snr_of
from ifujax.extraction.scene.scene import Scene, SceneOptions, extract_scene, step_of
from ifujax.extraction.scene.shapes import ImageShape, is_point, shape_of
from ifujax.extraction.segmentation import segment
from ifujax.extraction.sextractor_file import DetectionOptions
from ifujax.extraction.stamps import Stamp
from ifujax.images.regrid import images_aligned
from ifujax.progress import Progress

_SHOWN = 3.0
"""Standard deviations above the sky at which an object in an image is a source's shape."""
_BLENDED = 1.5
_MISFIT, _RESIDUAL = 4.0, 0.05
"""chi2 per degree of freedom in a source's core, and share of its light left there, above which it is no point, or not alone."""


@dataclass(frozen=True)
class Extractor:
    """Everything that the sources of one cube share.

    Parameters
    ----------
    cube : Cube
    config : ExtractionConfig
    images, segmentations : mapping of str to (y, x) array
        On the pixels of the cube.
    detection : DetectionOptions or mapping of str to DetectionOptions
        For all images, or by the name of the image ("" for the others).
    lowpassed : frozenset of str
        Images that were brought to these pixels.
    image_fwhm : float
        Arcsec: the PSF of the first image.
    """

    cube: Cube
    config: ExtractionConfig
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    segmentations: Mapping[str, np.ndarray] = field(default_factory=dict)
    detection: DetectionOptions | Mapping[str, DetectionOptions] = DetectionOptions()
    lowpassed: frozenset[str] = frozenset()
    image_fwhm: float = 0.1

    @property
    def step(self) -> tuple[float, float]:
        """Width of a pixel (y, x), arcsec."""
        return step_of(self.cube)

    def pixel(self, source: CatalogSource) -> tuple[float, float]:
        """Return the place (x, y) of a source, 0-based pixels; DataError where it has none."""
        if self.cube.celestial is None:
            raise DataError("the cube must have celestial coordinates; got none. Add CRVAL, CRPIX, CD and CTYPE cards.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x, y = self.cube.celestial.wcs_world2pix([source.ra], [source.dec], 0)
        if not (np.isfinite(x[0]) and np.isfinite(y[0])):
            raise DataError(
                f"the source must lie near the field; got RA {source.ra:.5f}, Dec {source.dec:.5f}, which is far away."
            )
        return float(x[0]), float(y[0])

    def classic(self, source: CatalogSource, config: ExtractionConfig) -> SourceResult:
        """Return AutoSpec's products of one source."""
        began = time.perf_counter()
        warn = 0
        x, y = self.pixel(source)
        size = config.size
        if config.apertures and 2 * max(config.apertures) > size:
            size, warn = 2 * max(config.apertures), warn | flags.STAMP_ENLARGED.value
        stamp = Stamp.about((y, x), size, self.step)
        cube = self.cut(stamp)
        if cube.bad.all():
            return SourceResult(source, flags.NO_DATA.value, warn, flags.NO_DATA.sentence, config)
        if cube.variance is None:
            warn |= flags.NO_VARIANCE.value
        white, white_variance = white_image(cube)
        images = {}
        for name, image in self.images.items():
            cut = stamp.cut(image, np.nan)
            if np.isfinite(cut).any():
                images[name] = cut
            else:
                warn |= flags.IMAGE_MISSING.value
        segmentations = {f"SEG_{name}": stamp.cut(labels, 0) for name, labels in self.segmentations.items()}
        if config.use_images or not segmentations:
            for name, image in {f"{config.name_prefix}WHITE": white, **images}.items():
                segmentations[f"SEG_{name}"] = segment(image, self.options_of(name))
        pixel = 0.5 * sum(self.step)
        masks = source_masks(
            segmentations, stamp.position, stamp.shape, config.max_distance / pixel, config.rescue_radius / pixel
        )
        if masks.rescued:
            warn |= flags.RESCUED.value
        products = classic_products(cube, white, images, masks, config)
        if products.fell_back:
            warn |= flags.OTHER_REFERENCE.value
        suffix = "_SKYSUB" if config.sky_subtraction else ""
        reference = products.spectra.get(f"{products.reference}{suffix}")
        return SourceResult(
            source=source, status=0, warn=warn, reason="", config=config, cube=cube if config.keep_cubes else None, white=white,
            white_variance=white_variance, images=images, segmentations=segmentations, classic=products,
            celestial=self.celestial(stamp), wavelength=self.cube.wavelength, unit=self.cube.unit, medium=self.cube.medium,
            seconds=time.perf_counter() - began,
            numbers={"snr_reference": snr_of(reference), "pixels": float(masks.chosen(config.object_mask).sum())},
        )  # fmt: skip

    def shapes(self, x: np.ndarray, y: np.ndarray) -> dict[int, ImageShape]:
        """Return the sources at some pixels that the first extra image shows to be no points."""
        if not self.images:
            return {}
        name, image = next(iter(self.images.items()))
        labels = segment(image, replace(self.options_of(name), threshold=max(self.options_of(name).threshold, _SHOWN)))
        sky = np.isfinite(image) & (labels == 0)
        level = float(np.median(image[sky])) if sky.any() else 0.0
        pixel = min(self.step)
        found = {}
        for k in range(len(x)):
            shape = shape_of(
                image - level, labels, x[k], y[k], self.step, 2.0 * pixel, fwhm=self.image_fwhm, lowpassed=name in self.lowpassed
            )
            if shape is not None and not is_point(shape):
                found[k] = shape
        return found

    def options_of(self, name: str) -> DetectionOptions:
        """Return how objects are found in an image."""
        if isinstance(self.detection, DetectionOptions):
            return self.detection
        return self.detection.get(name, self.detection.get("", DetectionOptions()))

    def cut(self, stamp: Stamp) -> StampCube:
        """Return the stamp of the cube; DataError where it lies outside."""
        cube = self.cube
        inside, place = stamp.slices((cube.shape[1], cube.shape[2]))
        shape = (cube.shape[0], *stamp.shape)
        values, bad = np.zeros(shape), np.ones(shape, dtype=bool)
        where = (slice(None), *place)
        values[where] = cube.values[(slice(None), *inside)]
        bad[where] = ~np.isfinite(values[where])
        if cube.flags is not None:
            bad[where] |= flagged(np.asarray(cube.flags[(slice(None), *inside)]), cube.flag_bits, cube.flags_zero_is_bad)
        if cube.spatial_mask is not None:
            bad[where] |= cube.spatial_mask[inside]
        variance = None
        if cube.uncertainty is not None and cube.uncertainty_kind is not None:
            variance = np.zeros(shape)
            plane = np.asarray(cube.uncertainty[(slice(None), *inside)], dtype=np.float64)
            variance[where] = as_variance(plane, cube.uncertainty_kind)
            if cube.uncertainty_kind == "ivar":
                bad |= ~(np.isfinite(variance) & (variance > 0))
        return StampCube(stamp, cube.wavelength, values, variance, bad, self.step)

    def celestial(self, stamp: Stamp) -> WCS | None:
        """Return the coordinates of a stamp."""
        if self.cube.celestial is None:
            return None
        moved = self.cube.celestial.deepcopy()
        moved.wcs.crpix = [moved.wcs.crpix[0] - stamp.first[1], moved.wcs.crpix[1] - stamp.first[0]]
        moved.array_shape = stamp.shape
        return moved


def extractor_of(
    cube: Cube,
    config: ExtractionConfig,
    images: Mapping[str, Image] | None = None,
    segmentations: Mapping[str, Image] | None = None,
    detection: DetectionOptions | Mapping[str, DetectionOptions] = DetectionOptions(),
) -> Extractor:
    """Return what extracts any sources of a cube, with images and maps brought to its pixels.

    Raises
    ------
    DataError
        For images that don't overlap the cube.
    """
    images = images or {}
    return Extractor(
        cube,
        config,
        {name: on_cube(image, cube) for name, image in images.items()},
        {name: labels_on_cube(labels, cube) for name, labels in (segmentations or {}).items()},
        detection,
        frozenset(name for name, image in images.items() if not images_aligned(image, cube)),
        config.image_fwhm,
    )


def extract_sources(
    cube: Cube,
    catalog: Catalog | Sequence[CatalogSource],
    config: ExtractionConfig = ExtractionConfig(),
    *,
    images: Mapping[str, Image] | None = None,
    segmentations: Mapping[str, Image] | None = None,
    detection: DetectionOptions | Mapping[str, DetectionOptions] = DetectionOptions(),
    scene: SceneOptions = SceneOptions(),
    from_catalog: bool = False,
    progress: Progress | None = None,
) -> Extraction:
    """Extract the spectra of catalogue sources from a cube.

    Each source gets AutoSpec's products (sums, apertures, image-weighted and cross-correlated spectra) and, with
    ``config.scene``, the spectrum of the scene model, in which all sources are fitted together: that one is deblended, and its
    flux is the whole one.

    Parameters
    ----------
    cube : Cube
    catalog : Catalog or sequence of CatalogSource
        `read_catalog`.
    config : ExtractionConfig
    images : mapping of str to Image, optional
        Extra images that weight spectra and are segmented.
    segmentations : mapping of str to Image, optional
        Maps of objects, 0 for sky.
    detection : DetectionOptions, or mapping of str to these
        How objects are found in images.
    scene : SceneOptions
    from_catalog : bool
        Whether the sizes and references of the catalogue count; its other settings always do.
    progress : callable, optional
        ``progress("extract", done, total)`` counts sources.

    Returns
    -------
    Extraction
        Sources that can't be extracted are in there, with their reason.

    Raises
    ------
    UsageError
        Without any source.
    DataError
        If the cube has no celestial coordinates, or images don't overlap it.
    """
    listed = catalog if isinstance(catalog, Catalog) else Catalog(tuple(catalog))
    if not len(listed) and not listed.rejected:
        raise UsageError("catalog must hold a source; got none.")
    extractor = extractor_of(cube, config, images, segmentations, detection)
    fitted = fit_scene(extractor, listed, scene, progress) if config.scene else None
    results = []
    total = len(listed)
    for done, result in enumerate(each_source(extractor, listed, fitted, from_catalog=from_catalog), 1):
        results.append(result)
        if progress is not None and done <= total:
            progress("extract", done, total)
    return Extraction(tuple(results), None if fitted is None else fitted.scene, listed.notes)


@dataclass(frozen=True, eq=False)
class FittedScene:
    """A scene, the places of the catalogue's sources in it, and the bits that concern all of them."""

    scene: Scene
    place: Mapping[str, int]
    warn: int


def fit_scene(
    extractor: Extractor, catalog: Catalog, options: SceneOptions, progress: Progress | None = None
) -> FittedScene | None:
    """Fit the scene of all sources that lie in the field; None where none does."""
    n_y, n_x = extractor.cube.shape[1:]
    x, y, place = [], [], {}
    for source in catalog.sources:
        try:
            at_x, at_y = extractor.pixel(source)
        except DataError:
            continue
        if -0.5 < at_x < n_x - 0.5 and -0.5 < at_y < n_y - 0.5:
            place[source.id] = len(x)
            x.append(at_x)
            y.append(at_y)
    if not x:
        return None
    shapes = extractor.shapes(np.array(x), np.array(y)) if extractor.config.scene_images else {}
    found = extract_scene(extractor.cube, x, y, options, step=extractor.step, shapes=shapes, progress=progress)
    warn = 0
    if found.psf_fit is not None:
        if found.psf_fit.assumed:
            warn |= flags.PSF_ASSUMED.value
        elif np.hypot(found.psf.dx, found.psf.dy) > 0.5 * found.psf.fwhm:
            warn |= flags.CATALOG_MOVED.value
    return FittedScene(found, place, warn)


def each_source(
    extractor: Extractor,
    catalog: Catalog,
    scene: FittedScene | None,
    *,
    from_catalog: bool = False,
    skip: Collection[str] = (),
) -> Iterator[SourceResult]:
    """Yield the result of one source after the other, failures included, then the rows that can't be used.

    Parameters
    ----------
    skip : collection of str
        Sources that are left out.
    """
    names = {} if scene is None else {k: name for name, k in scene.place.items()}
    for source in catalog.sources:
        if source.id in skip:
            continue
        config = extractor.config
        try:
            config = _own_settings(config, source, from_catalog)
            result = extractor.classic(source, config)
        except (DataError, UsageError, np.linalg.LinAlgError, ValueError) as error:
            outside = "must lie in the field" in str(error)
            status = flags.OFF_FIELD.value if outside else flags.FAILED.value
            yield SourceResult(source, status, 0, str(error), config)
            continue
        if scene is not None and source.id in scene.place and result.status == 0:
            result = _with_scene(result, scene, names)
        yield result
    for name, reason in catalog.rejected:
        yield SourceResult(CatalogSource(name, np.nan, np.nan), flags.BAD_ROW.value, 0, reason, extractor.config)


def _own_settings(config: ExtractionConfig, source: CatalogSource, from_catalog: bool) -> ExtractionConfig:
    changes: dict[str, object] = {}
    if from_catalog:
        if source.size is not None:
            changes["size"] = source.size
        if source.reference is not None:
            changes["reference"] = source.reference
    for name, value in source.settings.items():
        text = str(value).strip()
        if text.lower() not in ("", "-", "nan", "none", "--"):
            changes[name] = _as_setting(name, text, getattr(config, name))
    return config.with_changes(**changes) if changes else config


def _as_setting(name: str, text: str, like: object) -> object:
    """A cell of a catalogue as a value of a setting."""
    try:
        if isinstance(like, bool):
            known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            return known[text.lower()]
        if isinstance(like, tuple):
            return tuple(float(cell) for cell in text.strip("()[]").replace(";", ",").split(",") if cell.strip())
        if isinstance(like, int):
            return int(float(text))
        if isinstance(like, float):
            return float(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name} must be a {type(like).__name__}, as in the settings; got {text!r} in the catalogue.") from None
    return text


def _with_scene(result: SourceResult, fitted: FittedScene, names: Mapping[int, str]) -> SourceResult:
    """Add the scene's spectra of a source, its numbers and bits."""
    scene, k = fitted.scene, fitted.place[result.source.id]
    spectrum = scene.spectrum(k)
    warn = result.warn | fitted.warn
    numbers: dict[str, float] = {
        "snr_scene": snr_of(spectrum),
        "flux_scene": float(np.nanmedian(spectrum.values)) if np.isfinite(spectrum.values).any() else np.nan,
        "contamination": float(scene.contamination[k]),
        "inflation": float(scene.inflation[k]),
        "misfit": float(scene.misfit[k]),
        "residual": float(scene.residual[k]),
    }
    if len(scene.x) > 1:
        others = np.abs(scene.correlation[k]).copy()
        others[k] = -1.0
        other = int(np.argmax(np.nan_to_num(others, nan=-1.0)))
        if others[other] > 0.01:
            numbers["neighbour"] = names[other]  # type: ignore[assignment]
            numbers["correlation"] = float(scene.correlation[k, other])
    if scene.twins[k]:
        warn |= flags.DUPLICATE.value
    if numbers["inflation"] > _BLENDED:
        warn |= flags.BLENDED.value
    if numbers["misfit"] > _MISFIT and numbers["residual"] > _RESIDUAL:
        warn |= flags.SCENE_MISFIT.value
    spectra = {"SCENE": spectrum, "HORNE": scene.horne[k]}
    return replace(result, scene=spectra, warn=warn, numbers={**result.numbers, **numbers})


def warn_of_failures(results: Sequence[SourceResult]) -> None:
    """Warn of sources that could not be extracted."""
    failed = [result for result in results if result.status]
    if failed:
        listed = ", ".join(result.source.id for result in failed[:5]) + ("..." if len(failed) > 5 else "")
        warnings.warn(f"{len(failed)} of {len(results)} sources could not be extracted: {listed}.", IfujaxWarning, stacklevel=2)
