"""An HST image on the pixels of a MUSE image, in its unit; and whether two images share a grid."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from astropy import units

from ifujax.data.cube import Cube
from ifujax.data.image import Image
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.images.filters import HstFilter, hst_filter_info
from ifujax.images.geometry import PixelMap, celestial_of, has_data
from ifujax.images.lowpass import lowpass_sample
from ifujax.io.units import parsed_unit

_FLUX = units.erg / units.s / units.cm**2 / units.AA
_MARGIN = 12
"""MUSE pixels around its image that are taken of the HST image: farther than the filter reaches."""
_TOTALS = ("count", "counts", "electron", "electrons", "dn", "adu")


def images_aligned(first: Image | Cube, second: Image | Cube, tolerance: float = 0.01) -> bool:
    """Whether two images have the same pixels: shapes are equal, corners and centres at the same place on the sky.

    Parameters
    ----------
    first, second : Image or Cube
        With celestial coordinates. FK5 of equinox 2000 and ICRS count as one system.
    tolerance : float
        Arcsec.

    Raises
    ------
    DataError
        If one has no celestial coordinates.
    """
    one, other = _outline(first), _outline(second)
    if one.shape != other.shape:
        return False
    ny, nx = one.shape
    x, y = np.array([0, nx - 1, 0, nx - 1, nx // 2]), np.array([0, 0, ny - 1, ny - 1, ny // 2])
    ra, dec, ra2, dec2 = np.deg2rad([*celestial_of(one).wcs_pix2world(x, y, 0), *celestial_of(other).wcs_pix2world(x, y, 0)])
    # Not ra - ra2 alone: it may differ by a turn.
    across = 2 * np.sin((ra - ra2) / 2) * np.cos(dec)
    return bool(np.all(np.hypot(across, dec - dec2) <= np.deg2rad(tolerance / 3600)))


def rescale_like(hst: Image, muse: Image | Cube | str, *, filter_info: HstFilter | None = None) -> Image:
    """Return an HST image in the flux unit of a MUSE image.

    Counts (electrons) per second become flux densities by PHOTFLAM (see `hst_filter_info`); an image that is in a unit of flux
    density already is converted. The variance follows.

    Parameters
    ----------
    hst : Image
        Per pixel, whatever its pixels.
    muse : Image, Cube or str
        Its unit, or a unit such as ``10**(-20)*erg/s/cm**2/Angstrom``.
    filter_info : HstFilter, optional
        Instead of the one that the header names.

    Raises
    ------
    DataError
        If `muse` has no unit of flux density per wavelength, or `hst` holds counts that aren't per second.
    UsageError
        If the filter isn't known.
    """
    if filter_info is not None and not isinstance(filter_info, HstFilter):
        raise UsageError(f"filter_info must be what hst_filter_info returns; got {filter_info!r}.")
    unit = muse if isinstance(muse, str) else muse.unit
    wanted = parsed_unit(unit) if unit else None
    if wanted is None or not wanted.is_equivalent(_FLUX):
        raise DataError(
            f"muse must have a unit of flux density such as 10**(-20)*erg/s/cm**2/Angstrom; got {unit or 'none'}. "
            "Add BUNIT to its header, or say the unit."
        )
    own = parsed_unit(hst.unit) if hst.unit else None
    if own is not None and own.is_equivalent(_FLUX):
        factor = float(own.to(wanted))
    else:
        if hst.unit.strip().lower() in _TOTALS:
            raise DataError(
                f"hst must be in counts per second or a unit of flux density; got {hst.unit}. "
                "Divide it by its exposure time, and change BUNIT."
            )
        known = hst_filter_info(hst) if filter_info is None else filter_info
        factor = known.photflam * float(_FLUX.to(wanted))  # type: ignore[union-attr]
    variance = None if hst.variance is None else hst.variance * factor**2
    return replace(hst, values=hst.values * factor, variance=variance, unit=unit)


def regrid_like(hst: Image, muse: Image | Cube) -> Image:
    """Return an HST image on the pixels of a MUSE image: low-passed, sampled, its flux conserved.

    The low-pass filter is a Blackman window in radial frequency that ends at the highest frequency that the MUSE pixels can show,
    as MPDAF uses it for the same purpose. It is applied on the HST pixels, whatever their orientation; light beyond the edges of
    the MUSE image is taken in. Values are per MUSE pixel: multiplied by the ratio of pixel areas.

    Parameters
    ----------
    hst : Image
        Values of 0 (below 1e-10) are pixels without data.
    muse : Image or Cube
        Only its grid is used.

    Returns
    -------
    Image
        NaN where HST has no data within the pixel; the unit and header of `hst`, the coordinates of `muse`.

    Warns
    -----
    IfujaxWarning
        If the HST pixels aren't smaller than those of MUSE.

    Raises
    ------
    DataError
        If the images don't overlap, one has no celestial coordinates, or their coordinate systems differ.
    """
    target = _outline(muse)
    mapped = PixelMap.between(target, hst, margin=_MARGIN)
    ratio = float(np.sqrt(mapped.area))
    if ratio < 1.0:
        message = (
            f"the pixels of {hst.name or 'the HST image'} are {1 / ratio:.2g} times as wide as those of "
            f"{target.name or 'the MUSE image'}: its light is interpolated, its PSF hardly known. Use smaller pixels."
        )
        warnings.warn(message, IfujaxWarning, stacklevel=2)
    cut = _overlap(mapped, hst, target)
    values = hst.values[cut]
    good = has_data(values)
    if not good.any():
        raise _no_overlap(hst, target)
    variance = None
    if hst.variance is not None:
        good &= np.isfinite(hst.variance[cut])
        variance = hst.variance[cut]
    y, x = np.indices(target.shape, dtype=np.float64)
    at_x, at_y = mapped(x, y)
    positions = (at_x - cut[1].start, at_y - cut[0].start)
    sampled = lowpass_sample(values, variance, good, positions, mapped.jacobian)
    if not sampled.good.any():
        raise _no_overlap(hst, target)
    area = mapped.area
    return Image(
        values=sampled.values * area,
        variance=None if sampled.variance is None else sampled.variance * area**2,
        unit=hst.unit,
        title=hst.title,
        celestial=target.celestial,
        cards={
            **hst.cards,
            "REGRID": ("blackman", "Low-passed, then sampled on other pixels"),
            "REGRATIO": (area, "Original pixels in one of these"),
        },
        name=hst.name,
        header=hst.header,
    )


def _outline(of: Image | Cube) -> Image:
    """An image of the same grid, without pixels."""
    name = of.name if isinstance(of, Image) else "" if of.path is None else of.path.name
    return Image(values=np.broadcast_to(0.0, of.shape[-2:]), celestial=of.celestial, name=name)


def _overlap(mapped: PixelMap, hst: Image, muse: Image) -> tuple[slice, slice]:
    """The part of the HST image that the MUSE image and its surroundings see."""
    (ny, nx), parts = muse.shape, []
    edge_x, edge_y = np.linspace(-_MARGIN, nx - 1 + _MARGIN, 9), np.linspace(-_MARGIN, ny - 1 + _MARGIN, 9)
    found = mapped(*np.meshgrid(edge_x, edge_y))
    for at, size in zip((found[1], found[0]), hst.shape):
        first, last = max(0, int(np.floor(at.min()))), min(size, int(np.ceil(at.max())) + 1)
        if first >= last:
            raise _no_overlap(hst, muse)
        parts.append(slice(first, last))
    return parts[0], parts[1]


def _no_overlap(hst: Image, muse: Image) -> DataError:
    return DataError(
        f"the images must overlap; got {hst.name or 'an HST image'} without data in {muse.name or 'the MUSE image'}. "
        "Check their coordinates."
    )
