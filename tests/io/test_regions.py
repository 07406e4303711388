"""DS9 regions: which pixels they leave, and that none is dropped without a word."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.errors import DataError, UsageError
from ifujax.io.regions import circle_mask, read_regions, region_mask

SHAPE = (60, 80)
STEP = 0.2  # arcsec
Y, X = np.indices(SHAPE)


def sky(angle: float = 0.0, ra: float = 338.2376336, dec: float = -60.5661) -> WCS:
    """Pixels of 0.2 arcsec; the tangent point is the centre of pixel (40, 30), counted from 1."""
    turn, degrees = np.deg2rad(angle), STEP / 3600
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [40.0, 30.0]
    wcs.wcs.cd = degrees * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def kept(*lines: str, celestial: WCS | None = None, header: fits.Header | None = None) -> np.ndarray:
    return ~region_mask(list(lines), celestial, SHAPE, header)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Pixels within a circle about (x, y), counted from 1."""
    return np.hypot(X + 1 - x, Y + 1 - y) < radius


@pytest.mark.parametrize(
    "lines",
    [
        ("circle(31, 21, 7.5)",),
        ("physical", "circle(31,21,7.5)"),
        ("image;circle 31 21 7.5",),
        ("+circle(31,21,7.5)",),
        ("  CIRCLE ( 31 , 21 , 7.5 )  # color=red text={a;b} width=2",),
        ("# Region file format: DS9 version 4.1", "global color=green dash=0 include=1", "IMAGE", "circle(31i,21p,7.5i)"),
        ("circle(31,21,7.5) # a comment; with a semicolon",),
        ("fk5;image;circle(31,21,7.5)",),
    ],
)
def test_a_circle_in_pixels(lines):
    np.testing.assert_array_equal(kept(*lines), disc(31, 21, 7.5))


def test_include_and_exclude():
    inside, hole = disc(31, 21, 9.5), disc(35, 21, 4.5)
    both = "circle(31,21,9.5); -circle(35,21,4.5)"
    np.testing.assert_array_equal(kept(both), inside & ~hole)
    np.testing.assert_array_equal(kept("-circle(35,21,4.5)"), ~hole)
    np.testing.assert_array_equal(kept("circle(35,21,4.5) # include=0"), ~hole)
    np.testing.assert_array_equal(kept("global include=0", "circle(35,21,4.5)"), ~hole)
    np.testing.assert_array_equal(kept("circle(31,21,9.5)", "circle(60,40,3.5)"), inside | disc(60, 40, 3.5))
    # One that includes and lies elsewhere leaves nothing: the whole image is not what was asked for.
    assert not kept("circle(5000,5000,3)").any()


def test_shapes():
    box = (abs(X + 1 - 31) < 10.25) & (abs(Y + 1 - 21) < 5.25)
    np.testing.assert_array_equal(kept("box(31,21,20.5,10.5,0)"), box)
    np.testing.assert_array_equal(kept("box(31,21,20.5,10.5)"), box)
    np.testing.assert_array_equal(kept("box(31,21,10.5,20.5,90)"), box)
    np.testing.assert_array_equal(kept("polygon(20.75,15.75, 41.25,15.75, 41.25,26.25, 20.75,26.25)"), box)
    u, v = X + 1 - 31, Y + 1 - 21
    np.testing.assert_array_equal(kept("ellipse(31,21,10.1,4.1,0)"), (u / 10.1) ** 2 + (v / 4.1) ** 2 < 1)
    a, b = (u + v) / np.sqrt(2), (v - u) / np.sqrt(2)
    np.testing.assert_array_equal(kept("ellipse(31,21,10.1,4.1,45)"), (a / 10.1) ** 2 + (b / 4.1) ** 2 < 1)
    ring = disc(31, 21, 12.5) & ~disc(31, 21, 5.5)
    np.testing.assert_array_equal(kept("annulus(31,21,5.5,12.5)"), ring)
    np.testing.assert_array_equal(kept("annulus(31,21,5.5,8,12.5)"), ring)  # rings next to each other
    np.testing.assert_array_equal(kept("annulus(31,21,5.5,12.5,n=4)"), ring)
    np.testing.assert_array_equal(kept("annulus(31,21,0,12.5)"), disc(31, 21, 12.5))
    np.testing.assert_array_equal(kept("ellipse(31,21,5.5,5.5,12.5,12.5,0)"), ring)
    hole = (abs(X + 1 - 31) < 3.25) & (abs(Y + 1 - 21) < 2.25)
    np.testing.assert_array_equal(kept("box(31,21,6.5,4.5,20.5,10.5,0)"), box & ~hole)


CENTRE = SkyCoord(338.2376336, -60.5661, unit="deg", frame="icrs")


def position(frame: str, style: str = "decimal") -> str:
    at = CENTRE.transform_to(frame)
    angles = at.spherical.lon, at.spherical.lat
    if style == "decimal":
        return ",".join(f"{angle.deg:.12f}" for angle in angles)
    separator = {"colons": ":", "letters": "fromunit", "blanks": " "}[style]
    return ",".join(
        angle.to_string(unit=unit, sep=separator, precision=6) for angle, unit in zip(angles, ("hourangle", "deg"), strict=True)
    )


@pytest.mark.parametrize(
    "line",
    [
        f'icrs;circle({position("icrs")},1.5")',
        f"fk5;circle({position('fk5')},0.025')",
        f'J2000;circle({position("fk5", "colons")},1.5")',
        f"fk5;circle({position('fk5', 'letters')},{1.5 / 3600})",
        f"fk5;circle({position('fk5', 'blanks')},{1.5 / 3600}d)",
        f'fk4;circle({position("fk4")},1.5")',
        f'b1950;circle({position("fk4", "colons")},1.5")',
        f'galactic;circle({position("galactic")},1.5")',
        f'ecliptic;circle({position("barycentricmeanecliptic")},1.5")',
        f"icrs;circle({position('icrs')},7.5p)",
        'circle(40,30,1.5")',
        f"icrs;circle({np.deg2rad(338.2376336):.15f}r,{np.deg2rad(-60.5661):.15f}r,{np.deg2rad(1.5 / 3600):.9e}r)",
    ],
)
@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_a_circle_on_the_sky(line, angle):
    """RA of nine digits and more, in every system: six digits would move it by 1.8 arcsec."""
    np.testing.assert_array_equal(kept(line, celestial=sky(angle)), disc(40, 30, 7.5))


def test_angles_turn_with_the_image():
    upright = kept(f'icrs;ellipse({position("icrs")},3",1",20)', celestial=sky())
    np.testing.assert_array_equal(upright, kept("ellipse(40,30,15,5,20)"))
    turned = kept(f'icrs;ellipse({position("icrs")},3",1",20)', celestial=sky(30.0))
    along = np.cov(X[turned], Y[turned])
    # North lies 30 degrees clockwise of up, and DS9's angles are counted from there.
    assert np.rad2deg(0.5 * np.arctan2(2 * along[0, 1], along[0, 0] - along[1, 1])) == pytest.approx(20 - 30, abs=1.0)


def test_system_stays_from_line_to_line():
    found = read_regions(
        ["fk5", "# comment", 'circle(10,20,3")', "", "image; circle(1,2,3)", "circle(4,5,6); galactic", 'circle(1,2,3")']
    )
    assert [each.system for each in found.shapes] == ["fk5", "image", "image", "galactic"]
    assert [each.where for each in found.shapes] == [f"regions, line {n}" for n in (3, 5, 6, 7)]
    assert len(found) == 4


def test_physical_pixels():
    header = fits.Header({"LTV1": -100.0, "LTV2": -50.0, "LTM1_1": 0.5, "LTM2_2": 0.5})
    # image = 0.5 physical - 100
    np.testing.assert_array_equal(kept("circle(262,142,15)", header=header), disc(31, 21, 7.5))
    np.testing.assert_array_equal(kept("image;circle(31,21,7.5)", header=header), disc(31, 21, 7.5))
    with pytest.raises(DataError, match="rotated"):
        kept("circle(1,1,9)", header=fits.Header({"LTM1_2": 0.1}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("point(1,2)", "have an area; got 'point(1,2)' (f.reg, line 3)"),
        ("# color=x; panda(1,2,3,4,5,6,7,8)", None),
        ("panda(1,2,3,4,5,6,7,8)", "a shape that is known here"),
        ("circel(1,2,3)", "Did you mean 'circle'?"),
        ("linear;circle(1,2,3)", "coordinate system that is known here; got 'linear' (f.reg, line 3)"),
        ("wcsb", "got 'wcsb' (f.reg, line 3)"),
        ("tile 2", "got 'tile 2'"),
        ("circle(1,2)", "one radius after its position, not 0"),
        ("circle(1,2,3,4)", "one radius after its position, not 2"),
        ("circle(1,2,-3)", "not negative"),
        ("circle(1,2,0)", "above 0"),
        ("circle(1,2,x)", "not 'x'"),
        ("circle(1,2,3", "a shape such as"),
        ("fk5;circle(1,91,3)", "within 90 degrees"),
        ("fk5;circle(1:70:00,1,3)", "below 60"),
        ("circle(1:00:00,1,3)", "positions in pixels"),
        ("fk5;circle(1i,1,3)", "a position on the sky"),
        ("annulus(1,2,5,4)", "grow from ring to ring"),
        ("annulus(1,2,5)", "two radii or more"),
        ("ellipse(1,2,3p,4\",0)", "all its sizes in pixels or all in angles"),
        ("polygon(1,2,3,4,5)", "two coordinates for each vertex"),
        ("nonsense", "a shape such as"),
        ("circle(1,2,3) & box(1,2,3,4)", "a shape such as"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured(tmp_path, line, message):
    path = tmp_path / "f.reg"
    path.write_text(f"# title\n\n{line}\ncircle(9,9,3)\n")
    if message is None:
        assert len(read_regions(path)) == 1  # all of it is a comment
        return
    with pytest.raises(UsageError) as caught:
        read_regions(path)
    assert message in str(caught.value).replace(str(tmp_path) + "/", "")


def test_empty_and_missing_files(tmp_path):
    (tmp_path / "f.reg").write_text("# nothing\nfk5\n")
    with pytest.raises(UsageError, match="must hold a shape; got 2 lines"):
        read_regions(tmp_path / "f.reg")
    with pytest.raises(DataError, match="readable region file; got: No such file"):
        read_regions(tmp_path / "nope.reg")
    with pytest.raises(DataError, match="readable region file"):
        read_regions(tmp_path)


def test_sky_regions_need_coordinates():
    for line in ('fk5;circle(1,2,3")', 'circle(1,2,3")'):
        with pytest.raises(DataError, match=r"coordinates on the sky for .*line 1"):
            kept(line)


def test_circle_mask():
    for angle in (0.0, 50.0):
        np.testing.assert_array_equal(~circle_mask(sky(angle), SHAPE, 338.2376336, -60.5661, 1.5), disc(40, 30, 7.5))
    # RA of 0 and 360 are one place.
    wcs = sky(ra=359.99999)
    np.testing.assert_array_equal(
        circle_mask(wcs, SHAPE, -0.00001, -60.5661, 1.5), circle_mask(wcs, SHAPE, 359.99999, -60.5661, 1.5)
    )
    with pytest.raises(DataError, match="coordinates on the sky"):
        circle_mask(None, SHAPE, 1, 2, 3)
    for bad in ((np.nan, 0, 1), (0, 91, 1), (0, 0, 0)):
        with pytest.raises(UsageError, match="position and a positive radius"):
            circle_mask(sky(), SHAPE, *bad)
