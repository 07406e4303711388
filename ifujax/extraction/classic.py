"""The products of AutoSpec for one source: its spectra and maps, from a stamp, masks and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ifujax.extraction.config import ExtractionConfig, aperture_name
from ifujax.extraction.masks import SourceMasks, disc_mask, reference_disc
from ifujax.extraction.spectra import (
    SourceSpectrum,
    Voxels,
    continuum_of_reference,
    continuum_residuals,
    correlation_map,
    image_profile,
    mean_spectrum,
    polynomial_basis,
    sum_spectrum,
    weighted_spectra,
)
from ifujax.extraction.stamps import Stamp


@dataclass(frozen=True)
class StampCube:
    """The stamp of a source cut out of a cube.

    Parameters
    ----------
    stamp : Stamp
    wavelength : (wave,) array
        Angstrom.
    values, variance : (wave, y, x) arrays
        `variance` is None where the cube has none; bad voxels may hold anything.
    bad : (wave, y, x) bool array
        Voxels outside the field included.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    """

    stamp: Stamp
    wavelength: np.ndarray
    values: np.ndarray
    variance: np.ndarray | None
    bad: np.ndarray
    step: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x)."""
        return self.stamp.shape

    def voxels(self) -> Voxels:
        return Voxels.of(self.values, self.variance, self.bad)


@dataclass
class ClassicProducts:
    """What AutoSpec makes of a source, by AutoSpec's names.

    Attributes
    ----------
    spectra : dict of str to SourceSpectrum
    maps : dict of str to (y, x) array
        Of the cross-correlations.
    masks : dict of str to (y, x) bool array
    cubes : dict of str to (wave, y, x) array
        Without continuum.
    reference : str
        The image or aperture that was the reference.
    fell_back : bool
        It isn't the one asked for.
    """

    spectra: dict[str, SourceSpectrum] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    cubes: dict[str, np.ndarray] = field(default_factory=dict)
    reference: str = ""
    fell_back: bool = False


def white_image(cube: StampCube) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean over wavelength and its variance, (y, x): NaN, with variance 0, where no voxel is good."""
    good = ~cube.bad
    number = good.sum(axis=0).astype(float)
    number[number == 0] = np.nan
    white = np.where(good, cube.values, 0.0).sum(axis=0) / number
    if cube.variance is None:
        return white, None
    variance = np.where(good, cube.variance, 0.0).sum(axis=0) / number**2
    return white, np.nan_to_num(variance)


def classic_products(
    cube: StampCube, white: np.ndarray, images: Mapping[str, np.ndarray], masks: SourceMasks, config: ExtractionConfig
) -> ClassicProducts:
    """Return AutoSpec's spectra and maps of a source.

    Parameters
    ----------
    cube : StampCube
    white : (y, x) array
        `white_image` of the stamp.
    images : mapping of str to (y, x) array
        The extra images that cover the source, on the pixels of the stamp.
    masks : SourceMasks
    config : ExtractionConfig

    Notes
    -----
    A map of a cross-correlation is NaN where a pixel has a bad voxel within the field, as AutoSpec's is; such pixels weigh
    nothing in the spectrum that follows from it. The map without continua leaves bad voxels out.
    """
    made = ClassicProducts()
    voxels = cube.voxels()
    chosen = masks.chosen(config.object_mask)
    made.masks = {"MASK_SKY": masks.sky, "MASK_UNION": masks.union, "MASK_INTER": masks.inter}
    suffix = "_SKYSUB" if config.sky_subtraction else ""
    sky = mean_spectrum(voxels, masks.sky) if config.sky_subtraction else None
    if sky is not None:
        made.spectra[f"{config.name_prefix}SKY"] = sky

    def without_sky(mask: np.ndarray) -> Voxels:
        inside = voxels.within(mask)
        return inside if sky is None else inside.less(sky)

    inside = without_sky(chosen)
    made.spectra[f"{config.name_prefix}TOT{suffix}"] = sum_spectrum(inside)
    steps = cube.step
    for radius in config.apertures:
        disc = disc_mask(cube.shape, cube.stamp.position, (radius / steps[0], radius / steps[1]))
        cut = disc if config.plain_apertures else disc & chosen
        made.spectra[f"{config.name_prefix}APER_{aperture_name(radius)}{suffix}"] = sum_spectrum(without_sky(cut))
    weights = {f"{config.name_prefix}WHITE": white, **images}
    profiles = np.stack([image_profile(image, chosen) for image in weights.values()])
    for name, spectrum in zip(weights, weighted_spectra(inside, profiles), strict=True):
        made.spectra[f"{name}{suffix}"] = spectrum
    made.reference, made.fell_back = _reference(config, made.spectra, weights, suffix)
    if config.cross_correlation:
        _cross_correlate(made, cube, voxels, chosen, white, without_sky, suffix, config)
    return made


def _reference(
    config: ExtractionConfig, spectra: Mapping[str, SourceSpectrum], weights: Mapping[str, np.ndarray], suffix: str
) -> tuple[str, bool]:
    """The name of the reference spectrum, without its suffix, and whether it is another than was asked for."""
    white = f"{config.name_prefix}WHITE"
    radius = config.reference_aperture
    if radius is not None:
        name = f"{config.name_prefix}APER_{aperture_name(radius)}"
        found = spectra.get(f"{name}{suffix}")
        usable = found is not None and bool(np.any(np.nan_to_num(found.values) != 0))
        return (name, False) if usable else (white, True)
    wanted = config.reference.strip().upper().removesuffix(".FITS")
    if not wanted:
        return white, False
    for name in weights:
        if name.upper() == wanted:
            return name, False
    return white, True


def _cross_correlate(
    made: ClassicProducts,
    cube: StampCube,
    voxels: Voxels,
    chosen: np.ndarray,
    white: np.ndarray,
    without_sky: Callable[[np.ndarray], Voxels],
    suffix: str,
    config: ExtractionConfig,
) -> None:
    """Add the maps of both cross-correlations and their spectra."""
    reference = made.spectra[f"{made.reference}{suffix}"]
    where = chosen
    if config.reference_aperture is not None and not made.fell_back:
        reach = (config.reference_aperture / cube.step[0], config.reference_aperture / cube.step[1])
        where = reference_disc(cube.shape, reach, np.isfinite(white))
        name = aperture_name(config.reference_aperture)
        made.masks[f"MASK_APER_{name}_SKY"], made.masks[f"MASK_APER_{name}_OBJ"] = ~where, where
        made.spectra[f"{config.name_prefix}TOT{suffix}"] = sum_spectrum(without_sky(where))
    incomplete = _incomplete(cube)
    plain = correlation_map(voxels, reference.values).reshape(cube.shape)
    made.maps["CROSS_CORRELATION"] = np.where(incomplete, np.nan, plain)
    if config.continuum_subtraction:
        continuum = continuum_of_reference(reference, cube.wavelength, config.continuum_degree)
        residual = SourceSpectrum(reference.values - continuum, reference.variance)
        made.spectra[f"{made.reference}_CONTSUB{suffix}"] = residual
        basis = polynomial_basis(len(cube.wavelength), config.continuum_degree)
        made.maps["CROSS_CORRELATION_CONTSUB"] = correlation_map(voxels, residual.values, basis).reshape(cube.shape)
        if config.keep_cubes:
            made.cubes[f"{config.name_prefix}CONTSUB"] = continuum_residuals(voxels, basis).reshape(cube.values.shape)
    profiles = np.stack([image_profile(image, where) for image in made.maps.values()])
    for name, spectrum in zip(made.maps, weighted_spectra(without_sky(where), profiles), strict=True):
        made.spectra[f"{name}{suffix}"] = spectrum


def _incomplete(cube: StampCube) -> np.ndarray:
    """Pixels of the field with a bad voxel, but not those without any good one, which count as 0."""
    return np.asarray(cube.bad.any(axis=0) & ~cube.bad.all(axis=0))
