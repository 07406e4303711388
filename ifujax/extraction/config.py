"""What the user declares of an extraction: AutoSpec's settings and those of the scene model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from ifujax.errors import UsageError, unknown

ObjectMask = Literal["union", "inter"]
OBJECT_MASKS = ("union", "inter")


@dataclass(frozen=True)
class ExtractionConfig:
    """Settings of `extract_sources`; names in capitals are AutoSpec's.

    Parameters
    ----------
    size : float
        Side of the stamp of a source, arcsec (SIZE).
    apertures : sequence of float
        Radii in arcsec of aperture spectra (APER).
    reference : str
        The spectrum that the cross-correlation starts from (REF): the name of an image, a radius of `apertures`, or "" for white
        light. What isn't there falls back to white light, and the summary says so.
    object_mask : "union" or "inter"
        How the objects of several segmentation maps become one (OBJ_MASK).
    use_images : bool
        Whether the white-light image and the extra images are segmented (USE_IMGS); otherwise only the user's maps count.
    sky_subtraction : bool
        Subtract the mean of the pixels without objects from the classic spectra (SKY_SUB).
    cross_correlation, continuum_subtraction : bool
        XCOR, CONT_SUB.
    continuum_degree : int
        Of the polynomials that are subtracted before the second cross-correlation (CONT_POLY).
    max_distance : float
        Arcsec from a source within which its object must lie. Farther ones belong to somebody else.
    rescue_radius : float
        Radius in arcsec of the disc that stands for the object of a source that no map shows; the source is flagged.
    plain_apertures : bool
        Aperture spectra of whole discs. AutoSpec cuts them by the object mask, as is done without this.
    scene : bool
        Also fit the scene model, and write its spectra.
    scene_images : bool
        Whether sources that the first extra image shows to be no points are seen in the scene as they are there.
    image_fwhm : float
        Of the PSF of that image, arcsec.
    name_prefix : str
        Of the names of spectra and images: ``MUSE_TOT``, ``MUSE_WHITE``.
    keep_cubes, keep_images, keep_segmentations, keep_masks, keep_maps, keep_spectra : bool
        What stays in the files (OUT_SUB, OUT_IMG, OUT_SEG, OUT_MASK, OUT_XCOR, OUT_SPEC).

    Raises
    ------
    UsageError
        For values out of range.

    Examples
    --------
    >>> ExtractionConfig(size=4.0, apertures=(0.6, 1.0)).reference_aperture is None
    True
    >>> ExtractionConfig(apertures=(0.6, 1.0), reference="0.6").reference_aperture
    0.6
    """

    size: float = 5.0
    apertures: tuple[float, ...] = ()
    reference: str = ""
    object_mask: ObjectMask = "inter"
    use_images: bool = True
    sky_subtraction: bool = True
    cross_correlation: bool = True
    continuum_subtraction: bool = True
    continuum_degree: int = 5
    max_distance: float = 0.8
    rescue_radius: float = 0.6
    plain_apertures: bool = False
    scene: bool = True
    scene_images: bool = True
    image_fwhm: float = 0.1
    name_prefix: str = "MUSE_"
    keep_cubes: bool = False
    keep_images: bool = True
    keep_segmentations: bool = True
    keep_masks: bool = True
    keep_maps: bool = True
    keep_spectra: bool = True

    def __post_init__(self) -> None:
        radii = (self.apertures,) if isinstance(self.apertures, (int, float)) else tuple(self.apertures)
        object.__setattr__(self, "apertures", tuple(float(radius) for radius in radii))
        _check_positive("size", self.size, "arcsec")
        for radius in self.apertures:
            _check_positive("apertures", radius, "arcsec")
        names = [aperture_name(radius) for radius in self.apertures]
        if len(set(names)) < len(names):
            raise UsageError(f"apertures must differ; got {', '.join(names)} arcsec. Leave one out.")
        _check_positive("image_fwhm", self.image_fwhm, "arcsec")
        _check_positive("max_distance", self.max_distance, "arcsec")
        _check_positive("rescue_radius", self.rescue_radius, "arcsec")
        if self.object_mask not in OBJECT_MASKS:
            raise UsageError(unknown("object_mask", str(self.object_mask), OBJECT_MASKS))
        if not (isinstance(self.continuum_degree, int) and 0 <= self.continuum_degree <= 30):
            raise UsageError(f"continuum_degree must be a whole number from 0 to 30; got {self.continuum_degree!r}.")

    @property
    def reference_aperture(self) -> float | None:
        """The radius that `reference` names, arcsec, or None for an image."""
        text = self.reference.strip()
        if text and set(text) <= set("0123456789."):
            try:
                return float(text)
            except ValueError:
                return None
        return None

    def with_changes(self, **changes: object) -> ExtractionConfig:
        """Return a copy with other settings, checked.

        Raises
        ------
        UsageError
            For a setting that there isn't, or a value out of range.
        """
        names = [each.name for each in fields(self)]
        for name in changes:
            if name not in names:
                raise UsageError(unknown("setting", name, names))
        return replace(self, **changes)  # type: ignore[arg-type]


def aperture_name(radius: float) -> str:
    """Return the name of an aperture in names of spectra: one decimal, as AutoSpec has it, or as many as it takes.

    >>> aperture_name(1), aperture_name(0.65)
    ('1.0', '0.65')
    """
    return f"{radius:.1f}" if abs(radius - round(radius, 1)) < 1e-9 else f"{radius:g}"


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names with a number added to those that occur again.

    >>> unique_names(["HST", "HST", "G"])
    ['HST', 'HST_2', 'G']
    """
    seen: dict[str, int] = {}
    given = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        given.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return given


def _check_positive(name: str, value: float, unit: str) -> None:
    if not (isinstance(value, (int, float, np.floating)) and np.isfinite(value) and value > 0):
        raise UsageError(f"{name} must be a positive number of {unit}; got {value!r}.")
