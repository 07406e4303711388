"""DS9 regions: which pixels of an image they leave. Shapes and their geometry are those of the package ``regions``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from ifujax.errors import DataError, UsageError
from ifujax.io.region_lines import FRAMES, Declared, parse_lines


@dataclass(frozen=True)
class RegionList:
    """The shapes of a region file, in its order.

    Attributes
    ----------
    shapes : tuple of Declared
    source : str
        Name of the file, for messages.
    """

    shapes: tuple[Declared, ...]
    source: str = "regions"

    def __len__(self) -> int:
        return len(self.shapes)


Source = str | Path | Iterable[str]


def read_regions(source: Source) -> RegionList:
    """Read a DS9 region file, or its lines.

    Circles, ellipses, boxes, polygons and the annuli of the first three, in image or physical pixels (1-based; the default
    until a system is named), fk4 (b1950), fk5 (j2000), icrs, galactic or ecliptic. A leading ``-``, or ``include=0``, excludes.
    Comments, ``global`` lines and properties of display are ignored.

    Parameters
    ----------
    source : str, Path or iterable of str
        Name of a file, or lines.

    Raises
    ------
    DataError
        If the file can't be read.
    UsageError
        For a shape or coordinate system that can't be honoured, with the line's number, and if there is no shape at all.

    Examples
    --------
    >>> read_regions(["fk5", "circle(338.2376, -60.5661, 3\\")", "-circle(338.2400, -60.5650, 1\\")"]).shapes[1].include
    False
    """
    if isinstance(source, str | Path):
        name, lines = str(source), _read_lines(Path(source))
    else:
        name, lines = "regions", [line for text in source for line in str(text).splitlines() or [""]]
    shapes = parse_lines(lines, name)
    if not shapes:
        raise UsageError(f"{name} must hold a shape; got {len(lines)} lines without any. Add one, such as circle(100,80,20).")
    return RegionList(tuple(shapes), name)


def region_mask(
    source: RegionList | Source, celestial: WCS | None, shape: tuple[int, int], header: fits.Header | None = None
) -> np.ndarray:
    """Return which pixels regions leave out: those outside all that include (if any does), and inside any that excludes.

    A pixel is inside if its centre is.

    Parameters
    ----------
    source : RegionList, str, Path or iterable of str
        As `read_regions` takes or returns.
    celestial : `~astropy.wcs.WCS` or None
        Coordinates of the image; only needed for regions on the sky.
    shape : (ny, nx)
    header : `~astropy.io.fits.Header`, optional
        Its LTV and LTM cards define physical pixels; these are image pixels where there are none.

    Returns
    -------
    (y, x) bool array
        True = masked.

    Raises
    ------
    DataError, UsageError
        As `read_regions`, and DataError if the image lacks the coordinates that a region needs.
    """
    regions = source if isinstance(source, RegionList) else read_regions(source)
    y, x = np.indices(shape, dtype=np.float64)
    physical = _Physical.of(header)
    included, excluded = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for each in regions.shapes:
        of = physical if each.system == "physical" else _Physical()
        target = included if each.include else excluded
        target |= _contains(each, celestial, of, x, y)
    if not any(each.include for each in regions.shapes):
        return excluded
    return ~included | excluded


def circle_mask(celestial: WCS | None, shape: tuple[int, int], ra: float, dec: float, radius: float) -> np.ndarray:
    """Return which pixels have their centre outside a circle on the sky.

    Parameters
    ----------
    celestial : `~astropy.wcs.WCS`
    shape : (ny, nx)
    ra, dec : float
        Degrees, in the image's own system.
    radius : float
        Arcsec.

    Returns
    -------
    (y, x) bool array
        True = outside.

    Raises
    ------
    UsageError
        For a position or radius that can't be.
    DataError
        If the image has no coordinates on the sky.
    """
    if not (np.isfinite([ra, dec, radius]).all() and abs(dec) <= 90 and radius > 0):
        raise UsageError(
            f"the circle must have a position and a positive radius; got {ra}, {dec}, {radius}. Give deg, deg, arcsec."
        )
    wcs = _on_sky(celestial, "a circle on the sky")
    y, x = np.indices(shape, dtype=np.float64)
    longitude, latitude = (np.deg2rad(each) for each in wcs.all_pix2world(x, y, 0))
    half_a, half_d = (longitude - np.deg2rad(ra)) / 2, (latitude - np.deg2rad(dec)) / 2
    # Haversines: full precision at small separations, where the cosine has none.
    square = np.sin(half_d) ** 2 + np.cos(latitude) * np.cos(np.deg2rad(dec)) * np.sin(half_a) ** 2
    return ~(2 * np.arcsin(np.sqrt(np.clip(square, 0, 1))) <= np.deg2rad(radius / 3600))


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} must be a readable region file; got: {reason}. Check the path; give lines as a list.") from error


@dataclass(frozen=True)
class _Physical:
    """Physical pixels: ``image = scale * physical + start`` along each axis (1-based; LTM and LTV of IRAF)."""

    scale: tuple[float, float] = (1.0, 1.0)
    start: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, header: fits.Header | None) -> _Physical:
        cards: Any = {} if header is None else header
        if any(cards.get(card, 0.0) for card in ("LTM1_2", "LTM2_1")):
            raise DataError("the image must not be rotated against its physical pixels; got LTM1_2 or LTM2_1. Use image or fk5.")
        scale = [float(cards.get(f"LTM{i}_{i}", 1.0)) or 1.0 for i in (1, 2)]
        start = [float(cards.get(f"LTV{i}", 0.0)) for i in (1, 2)]
        return cls((scale[0], scale[1]), (start[0], start[1]))

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Physical pixels, less 1, of 0-based image pixels."""
        (scale_x, scale_y), (start_x, start_y) = self.scale, self.start
        return (x + 1 - start_x) / scale_x - 1, (y + 1 - start_y) / scale_y - 1


def _on_sky(celestial: WCS | None, what: str) -> WCS:
    if celestial is None or not celestial.has_celestial:
        raise DataError(f"the image must have coordinates on the sky for {what}; got none. Use regions in image pixels.")
    return celestial


def _contains(declared: Declared, celestial: WCS | None, physical: _Physical, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from regions import PixCoord  # slow to import, and seldom needed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        region = _region(declared, celestial, float(np.sqrt(abs(np.prod(physical.scale)))))
        return np.asarray(region.contains(PixCoord(*physical(x, y))), dtype=bool)


def _region(declared: Declared, celestial: WCS | None, ratio: float) -> Any:
    """The region in 0-based pixels, each `ratio` pixels of the image wide."""
    from regions import PixCoord

    on_sky = declared.system in FRAMES
    scale = float("nan")
    if on_sky or any(length.angular for length in declared.lengths):
        wcs = _on_sky(celestial, f"{declared.text!r} ({declared.where})")
        scale = float(np.sqrt(proj_plane_pixel_area(wcs))) * 3600 * ratio  # arcsec
    first, second = (np.array(each) for each in zip(*declared.points))
    if not on_sky:
        centre: Any = PixCoord(first - 1, second - 1)
        sizes: list[Any] = [each.value / scale if each.angular else each.value for each in declared.lengths]
        return _build(declared, centre, sizes, pixel=True)
    centre = SkyCoord(first, second, unit="deg", frame=FRAMES[declared.system])
    sizes = [(each.value if each.angular else each.value * scale) * units.arcsec for each in declared.lengths]
    return _build(declared, centre, sizes, pixel=False).to_pixel(celestial)


def _build(declared: Declared, centre: Any, sizes: Sequence[Any], pixel: bool) -> Any:
    """Make the region of package ``regions``; annuli reach from their first to their last size."""
    import regions

    def kind(name: str) -> Any:
        return getattr(regions, f"{name}{'Pixel' if pixel else 'Sky'}Region")

    if declared.shape == "polygon":
        return kind("Polygon")(centre)
    centre, angle = centre[0], declared.angle * units.deg
    if declared.shape in ("circle", "annulus"):
        if len(sizes) == 1:
            return kind("Circle")(centre, sizes[0])
        return kind("CircleAnnulus")(centre, sizes[0], sizes[-1])
    name = "Ellipse" if declared.shape == "ellipse" else "Rectangle"
    factor = 2 if declared.shape == "ellipse" else 1  # DS9 gives the radii of an ellipse, the sides of a box
    widths, heights = [factor * each for each in sizes[::2]], [factor * each for each in sizes[1::2]]
    if len(widths) == 1:
        return kind(name)(centre, widths[0], heights[0], angle)
    return kind(f"{name}Annulus")(centre, widths[0], widths[-1], heights[0], heights[-1], angle)
