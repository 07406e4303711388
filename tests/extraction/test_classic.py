"""The classic products against AutoSpec's own, and its rules on small cases."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from ifujax.errors import DataError, UsageError
from ifujax.extraction.classic import StampCube, classic_products, white_image
from ifujax.extraction.config import ExtractionConfig
from ifujax.extraction.masks import disc_mask, source_masks
from ifujax.extraction.segmentation import segment
from ifujax.extraction.sextractor_file import read_kernel, read_sextractor_file
from ifujax.extraction.stamps import Stamp
from ifujax.io.demo import demo_file
from tests.reference import reference_data

RUNS = ("run_minicube", "run_minicube_refaper", "run_minicube_nosky_noxcor")
SETTINGS = {
    "run_minicube": {},
    "run_minicube_refaper": {"reference": "0.6"},
    "run_minicube_nosky_noxcor": {"sky_subtraction": False, "cross_correlation": False},
}


@pytest.fixture(scope="module")
def minicube():
    with fits.open(demo_file("minicube.fits")) as file:
        return WCS(file["DATA"].header), file["DATA"].data.copy(), file["STAT"].data.copy(), file["DQ"].data != 0


def stored(run):
    return np.load(reference_data("source_extraction", "autospec", f"{run}.npz"), allow_pickle=True)


def stamp_of(minicube, radec):
    wcs, values, variance, bad = minicube
    x, y = wcs.celestial.world_to_pixel_values(*radec)
    stamp = Stamp.about((float(y), float(x)), 5.0, (0.2, 0.2))
    wavelength = wcs.spectral.pixel_to_world_values(np.arange(len(values))) * 1e10
    cut = stamp.cut(values, np.nan).astype(float), stamp.cut(variance, 0.0).astype(float), stamp.cut(bad, True)
    return StampCube(stamp, wavelength, *cut, (0.2, 0.2))


def off(ours, theirs):
    """The largest difference, relative to the largest value."""
    theirs = np.asarray(theirs, float)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    return np.nanmax(np.abs(ours - theirs)) / max(np.nanmax(np.abs(theirs)), 1e-300)


@pytest.mark.parametrize("run", RUNS)
def test_products_are_those_of_autospec(minicube, run):
    """Given AutoSpec's segmentation maps and image: masks to the pixel, all else to 1e-6."""
    products = stored(run)
    text = str(products["param"])
    kind = "inter" if "OBJ_MASK='INTER'" in text.replace(" ", "") else "union"
    config = ExtractionConfig(apertures=(0.6, 1.0), object_mask=kind, **SETTINGS[run])
    compared = 0
    for source in sorted({key.split("/")[0] for key in products.files if key.endswith("/radec")}):
        mine = {key.split("/", 1)[1]: products[key] for key in products.files if key.startswith(f"{source}/")}
        cube = stamp_of(minicube, mine["radec"])
        segmentations = {name[4:-5]: labels for name, labels in mine.items() if name.startswith("IMA_SEG_")}
        masks = source_masks(segmentations, cube.stamp.position, cube.shape, np.inf, 3.0)
        white, white_variance = white_image(cube)
        assert off(white, mine["IMA_MUSE_WHITE_DATA"]) < 1e-6
        assert off(white_variance, mine["IMA_MUSE_WHITE_STAT"]) < 1e-6
        images = {"HST": mine["IMA_HST_DATA"].astype(float)} if "IMA_HST_DATA" in mine else {}
        made = classic_products(cube, white, images, masks, config)
        assert not made.fell_back
        for name, mask in made.masks.items():
            assert np.array_equal(mask, mine[f"IMA_{name}_DATA"] > 0), name
        for name, values in made.maps.items():
            holes = (cube.bad.any(axis=0) & ~cube.bad.all(axis=0)).any()
            assert off(values, mine[f"IMA_{name}_DATA"]) < (1e-5 if holes else 1e-6), (source, name)
        for name, spectrum in made.spectra.items():
            if not np.any(mine[f"SPE_{name}_DATA"]):
                assert not np.any(spectrum.values), name
                continue
            limit = 1e-5 if name.startswith("CROSS_CORRELATION_CONTSUB") else 1e-6
            assert off(spectrum.values, mine[f"SPE_{name}_DATA"]) < limit, (source, name)
            assert off(spectrum.variance, mine[f"SPE_{name}_STAT"]) < limit, (source, name)
            compared += 1
        theirs = {name[4:-5] for name in mine if name.startswith("SPE_") and name.endswith("_DATA")}
        assert theirs == set(made.spectra)
    assert compared > 20


def test_masks_from_our_segmentation(minicube):
    products = stored("run_minicube")
    options, _ = read_sextractor_file(reference_data("source_extraction", "autospec", "run_minicube", "default.sex"))
    compared = 0
    for source in "12345678":
        image = products[f"{source}/IMA_MUSE_WHITE_DATA"].astype(float)
        if np.isnan(image).any():
            continue
        ours, theirs = segment(image, options) > 0, products[f"{source}/IMA_SEG_MUSE_WHITE_DATA"] > 0
        assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.97, source
        compared += 1
    assert compared


def test_settings_of_sextractor(tmp_path):
    (tmp_path / "k.conv").write_text("CONV NORM\n# a kernel\n1 2 1\n2 4 2\n1 2 1\n")
    (tmp_path / "default.sex").write_text(
        "DETECT_THRESH 1.5 # sigma\nDETECT_MINAREA 7\nFILTER_NAME k.conv\nDEBLEND_MINCONT 1e-4\nWEIGHT_TYPE MAP_RMS\n"
        "BACK_SIZE 16\nTHRESH_TYPE RELATIVE\n"
    )
    options, notes = read_sextractor_file(tmp_path / "default.sex")
    assert (options.threshold, options.min_area, options.deblend_contrast, options.mesh) == (1.5, 7, 1e-4, 16)
    assert np.asarray(options.kernel).sum() == pytest.approx(1.0)
    assert len(notes) == 1
    assert "WEIGHT_TYPE" in notes[0]
    (tmp_path / "bad.conv").write_text("CONV NORM\n1 2\n3\n")
    with pytest.raises(DataError, match="kernel of SExtractor"):
        read_kernel(tmp_path / "bad.conv")
    (tmp_path / "bad.sex").write_text("DETECT_THRESH many\n")
    with pytest.raises(DataError, match="must be a number"):
        read_sextractor_file(tmp_path / "bad.sex")


@pytest.mark.parametrize(
    ("centre", "size", "first"),
    [((12.4, 12.6), 5.0, (0, 1)), ((12.5, 12.49), 5.0, (1, 0)), ((12.4, 12.6), 4.8, (1, 1)), ((-3.0, 50.2), 5.0, (-15, 38))],
)
def test_stamps(centre, size, first):
    stamp = Stamp.about(centre, size, (0.2, 0.2))
    assert stamp.first == first
    assert all(abs(place - (number - 1) / 2) <= 0.5 for place, number in zip(stamp.position, stamp.shape))


def test_stamp_outside_and_at_the_edge():
    image = np.arange(36.0).reshape(6, 6)
    cut = Stamp.about((0.0, 5.0), 0.6, (0.2, 0.2)).cut(image, np.nan)
    assert np.isnan(cut[0]).all()
    assert np.isnan(cut[:, 2]).all()
    assert cut[1, 1] == 5.0
    with pytest.raises(DataError, match="must lie in the field"):
        Stamp.about((-9.0, 2.0), 0.6, (0.2, 0.2)).cut(image, np.nan)
    with pytest.raises(UsageError, match="must be a pixel"):
        Stamp.about((2.0, 2.0), 0.05, (0.2, 0.2))


def test_object_is_the_one_at_the_position():
    labels = np.zeros((25, 25), int)
    labels[2:6, 2:6], labels[11:14, 11:14], labels[20:24, 20:24] = 7, 9, 3
    masks = source_masks({"a": labels}, (12.0, 12.0), labels.shape, 4.0, 3.0)
    assert np.array_equal(masks.union, labels == 9)
    assert not masks.rescued
    far = source_masks({"a": np.where(labels == 9, 0, labels)}, (12.0, 12.0), labels.shape, 4.0, 3.0)
    assert far.rescued
    assert far.union[12, 12]
    assert not (far.union & far.sky).any()
    none = source_masks({"a": np.zeros((25, 25), int)}, (12.0, 12.0), labels.shape, 4.0, 0.1)
    assert none.union.sum() == 1
    two = source_masks({"a": labels, "b": np.roll(labels, 1, axis=0)}, (12.0, 12.0), labels.shape, 4.0, 3.0)
    assert two.inter.sum() == 6
    assert two.union.sum() == 12
    assert not (two.sky & ((labels > 0) | (np.roll(labels, 1, axis=0) > 0))).any()


def test_disc_is_centred_on_its_box():
    for position in ((12.0, 12.0), (12.3, 11.8), (12.6, 12.2)):
        disc = disc_mask((25, 25), position, (3.0, 3.0))
        y, x = np.nonzero(disc)
        assert (y.min() + y.max()) / 2 == pytest.approx(position[0], abs=0.5)
        assert (x.min() + x.max()) / 2 == pytest.approx(position[1], abs=0.5)


def test_unknown_reference_falls_back(minicube):
    products = stored("run_minicube")
    cube = stamp_of(minicube, products["1/radec"])
    masks = source_masks({"w": products["1/IMA_SEG_MUSE_WHITE_DATA"]}, cube.stamp.position, cube.shape, np.inf, 3.0)
    made = classic_products(cube, white_image(cube)[0], {}, masks, ExtractionConfig(reference="g-band"))
    assert made.fell_back
    assert made.reference == "MUSE_WHITE"


def test_without_variance(minicube):
    products = stored("run_minicube")
    cube = stamp_of(minicube, products["1/radec"])
    bare = StampCube(cube.stamp, cube.wavelength, cube.values, None, cube.bad, cube.step)
    masks = source_masks({"w": products["1/IMA_SEG_MUSE_WHITE_DATA"]}, cube.stamp.position, cube.shape, np.inf, 3.0)
    made = classic_products(bare, white_image(bare)[0], {}, masks, ExtractionConfig())
    assert all(spectrum.variance is None for spectrum in made.spectra.values())
    assert np.isfinite(made.spectra["MUSE_WHITE_SKYSUB"].values).mean() > 0.99


def test_settings_are_checked():
    with pytest.raises(UsageError, match="size must be"):
        ExtractionConfig(size=-1)
    with pytest.raises(UsageError, match="apertures must differ"):
        ExtractionConfig(apertures=(0.6, 0.60))
    with pytest.raises(UsageError, match="object_mask"):
        ExtractionConfig(object_mask="either")
    with pytest.raises(UsageError, match="continuum_degree"):
        ExtractionConfig(continuum_degree=2.5)
    with pytest.raises(UsageError, match="Did you mean|setting"):
        ExtractionConfig().with_changes(sizes=4)
