"""The scene model against truths of its own: fluxes, errors, contamination, PSF, offsets, and what it says when it can't."""

import numpy as np
import pytest

from ifujax.data.cube import Cube
from ifujax.errors import DataError, IfujaxWarning, UsageError
from ifujax.extraction.scene.psf import FieldPSF
from ifujax.extraction.scene.scene import SceneOptions, extract_scene
from ifujax.extraction.scene.shapes import ImageShape
from tests.extraction.fields import STEP, WAVELENGTH, contamination, field, pair, pair_spectra

SCALE = (STEP, STEP)


@pytest.mark.parametrize("beta", [None, 2.5])
def test_pair_is_taken_apart(beta):
    made = pair(np.random.default_rng(3), 0.8, beta=beta)
    scene = extract_scene(made.cube, made.x + 0.2, made.y - 0.1, step=SCALE)
    assert scene.psf_fit is not None
    assert abs(scene.psf.fwhm - 0.7) < 0.03
    np.testing.assert_allclose([scene.psf.dx, scene.psf.dy], [-0.2 * STEP, 0.1 * STEP], atol=0.02)
    pulls = (scene.flux - made.spectra) / scene.error
    assert 0.63 < np.mean(np.abs(pulls) < 1) < 0.73
    assert abs(contamination(scene.flux, made.spectra, 0, 1)) < 0.03
    # One by one they take each other's light, and the numbers say so
    assert contamination(np.stack([each.values for each in scene.horne]), made.spectra, 0, 1) > 0.1
    assert scene.contamination[0] > 0.3
    assert (scene.misfit < 4).all()


def test_against_an_independent_solution():
    made = pair(np.random.default_rng(5), 1.0, beta=2.5)
    psf = FieldPSF(0.7, 2.5, -0.03, 7000.0)
    scene = extract_scene(made.cube, made.x, made.y, SceneOptions(psf=psf, sky_degree=0, reach=20.0), step=SCALE)
    for k in (0, 200, 459):
        design = np.column_stack([made.profiles[k], np.ones(900)])
        covariance = np.linalg.inv(design.T @ design) * 0.08**2
        values = np.linalg.lstsq(design, made.cube.values[k].ravel(), rcond=None)[0]
        np.testing.assert_allclose(scene.flux[:, k], values[:2], rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(scene.error[:, k], np.sqrt(np.diag(covariance)[:2]), rtol=1e-4)


def test_order_of_sources_does_not_matter():
    rng = np.random.default_rng(7)
    x, y = rng.uniform(3, 26, (2, 5))
    made = field(rng, x, y, np.abs(rng.normal(3, 1, (5, 1))) * np.ones((5, len(WAVELENGTH))), WAVELENGTH)
    order = np.array([3, 1, 4, 0, 2])
    first = extract_scene(made.cube, x, y, step=SCALE)
    second = extract_scene(made.cube, x[order], y[order], step=SCALE)
    np.testing.assert_allclose(second.flux, first.flux[order], atol=1e-3 * np.nanmean(first.error))


def test_unit_of_the_flux_does_not_matter():
    made = pair(np.random.default_rng(8), 1.2)
    tiny = Cube(made.cube.values * 1e-20, WAVELENGTH, made.cube.uncertainty * 1e-40, "variance")
    first, second = (extract_scene(cube, made.x, made.y, step=SCALE) for cube in (made.cube, tiny))
    np.testing.assert_allclose(second.flux * 1e20, first.flux, rtol=1e-6, atol=1e-6)


def test_bad_voxels_are_left_out():
    rng = np.random.default_rng(9)
    made = pair(rng, 1.2)
    values = made.cube.values.copy()
    values[rng.random(values.shape) < 0.05] = np.nan
    values[100] = np.nan
    values[200, int(made.y[0]) - 4 : int(made.y[0]) + 6, int(made.x[0]) - 4 : int(made.x[0]) + 6] = np.inf
    cube = Cube(values, WAVELENGTH, made.cube.uncertainty, "variance")
    scene = extract_scene(cube, made.x, made.y, step=SCALE)
    assert np.isnan(scene.flux[:, 100]).all()
    assert np.isnan(scene.flux[0, 200])
    seen = np.isfinite(scene.flux)
    assert seen.mean() > 0.99
    pulls = ((scene.flux - made.spectra) / scene.error)[seen]
    assert 0.63 < np.mean(np.abs(pulls) < 1) < 0.73


def test_no_variance():
    made = pair(np.random.default_rng(10), 1.2)
    scene = extract_scene(Cube(made.cube.values, WAVELENGTH), made.x, made.y, step=SCALE)
    pulls = (scene.flux - made.spectra) / scene.error
    assert 0.62 < np.mean(np.abs(pulls) < 1) < 0.74


def test_offset_of_two_arcsec_is_found_and_said():
    rng = np.random.default_rng(11)
    x, y = np.array([6.0, 20.0, 13.0, 22.0]), np.array([8.0, 6.0, 21.0, 20.0])
    spectra = np.array([[3.0], [5.0], [4.0], [6.0]]) * np.ones((4, len(WAVELENGTH)))
    made = field(rng, x, y, spectra, WAVELENGTH)
    with pytest.warns(IfujaxWarning, match="the catalogue is off by 2.0"):
        scene = extract_scene(made.cube, x - 8.0, y + 6.0, step=SCALE)
    np.testing.assert_allclose([scene.psf.dx, scene.psf.dy], [1.6, -1.2], atol=0.02)
    np.testing.assert_allclose(np.median(scene.flux, axis=1), spectra[:, 0], rtol=0.05)


def test_noise_alone_assumes_the_psf():
    rng = np.random.default_rng(12)
    made = field(rng, np.array([10.0, 20.0]), np.array([12.0, 18.0]), np.zeros((2, len(WAVELENGTH))), WAVELENGTH)
    with pytest.warns(IfujaxWarning, match="do not show the PSF"):
        scene = extract_scene(made.cube, made.x, made.y, step=SCALE)
    assert scene.psf_fit is not None
    assert scene.psf_fit.assumed
    pulls = scene.flux / scene.error
    assert 0.65 < np.mean(np.abs(pulls) < 1) < 0.72


def test_halo_is_no_point():
    rng = np.random.default_rng(13)
    x, y = np.array([15.0, 8.0]), np.array([15.0, 22.0])
    made = field(rng, x, y, np.array([[200.0], [0.0]]) * np.ones((2, len(WAVELENGTH))), WAVELENGTH, width=np.array([4.0, 0.0]))
    with pytest.warns(IfujaxWarning, match="do not show the PSF"):
        extract_scene(made.cube, x + 4, y - 3, step=SCALE)


def test_smooth_background_is_sky():
    rng = np.random.default_rng(14)
    made = pair(rng, 1.2)
    rows, columns = np.indices((30, 30))
    slope = 0.05 * (columns - 15) + 0.003 * (rows - 10) ** 2
    cube = Cube(made.cube.values + slope, WAVELENGTH, made.cube.uncertainty, "variance")
    scene = extract_scene(cube, made.x, made.y, step=SCALE)
    assert len(scene.solution.sky) >= 6
    pulls = (scene.flux - made.spectra) / scene.error
    assert 0.62 < np.mean(np.abs(pulls) < 1) < 0.74


def test_nonnegative_fluxes_on_request():
    rng = np.random.default_rng(15)
    x, y = np.array([10.0, 20.0]), np.array([12.0, 18.0])
    spectra = np.array([[5.0], [0.0]]) * np.ones((2, len(WAVELENGTH)))
    made = field(rng, x, y, spectra, WAVELENGTH)
    free = extract_scene(made.cube, x, y, step=SCALE)
    bounded = extract_scene(made.cube, x, y, SceneOptions(nonnegative=True), step=SCALE)
    assert (free.flux[1] < 0).any()
    assert (bounded.flux >= 0).all()
    assert bounded.flux[1].mean() > 3 * abs(free.flux[1].mean())


def test_drift_and_ellipticity():
    rng = np.random.default_rng(16)
    cubes = []
    for w in WAVELENGTH[::10]:
        x = np.array([9.0, 21.0]) + 0.3 * (w - 7000) / 1000
        one = field(rng, x, np.array([11.0, 19.0]), np.full((2, 2), 8.0), np.array([w, w + 1.0]))
        cubes.append(one.cube.values[0])
    values = np.stack(cubes)
    cube = Cube(values, WAVELENGTH[::10], np.full(values.shape, 0.08**2), "variance")
    scene = extract_scene(cube, [9.0, 21.0], [11.0, 19.0], SceneOptions(refraction=True), step=SCALE)
    assert abs(scene.psf.drift_x - 0.06) < 0.005
    assert abs(scene.psf.drift_y) < 0.005


def galaxy_and_star(rng, separation):
    """A round galaxy of 0.6 arcsec beside a star, and a sharp image of the galaxy on the cube's pixels."""
    x, y = np.array([12.0, 12.0 + separation / STEP]), np.array([14.0, 15.0])
    made = field(rng, x, y, pair_spectra((4.0, 2.0)), WAVELENGTH, width=np.array([0.6, 0.0]))
    rows, columns = np.indices((30, 30))
    r2 = ((columns - x[0]) ** 2 + (rows - y[0]) ** 2) * STEP**2
    image = np.exp(-0.5 * r2 * 8 * np.log(2) / 0.6**2)
    return made, ImageShape(image, slice(0, 30), slice(0, 30), SCALE)


def test_galaxy_beside_a_star():
    made, shape = galaxy_and_star(np.random.default_rng(18), 1.4)
    scene = extract_scene(made.cube, made.x, made.y, step=SCALE, shapes={0: shape})
    assert abs(scene.psf.fwhm - 0.7) < 0.03
    ratios = scene.flux.sum(axis=1) / made.spectra.sum(axis=1)
    np.testing.assert_allclose(ratios, 1.0, atol=0.05)
    pulls = (scene.flux - made.spectra) / scene.error
    assert 0.62 < np.mean(np.abs(pulls) < 1) < 0.74
    # As a point it is wrong, and says so
    point = extract_scene(made.cube, made.x, made.y, SceneOptions(psf=scene.psf), step=SCALE)
    assert scene.misfit[0] < 4 < point.misfit[0]
    assert point.residual[0] > 0.1
    assert point.flux[0].sum() / made.spectra[0].sum() < 0.8


@pytest.mark.slow
def test_galaxies_beside_stars():
    """200 draws with the PSF fitted: coverage pooled over 180,000 channels."""
    rng = np.random.default_rng(101)
    inside, leaks, ratios = [], [], []
    for _ in range(200):
        made, shape = galaxy_and_star(rng, rng.choice([0.8, 1.2]))
        scene = extract_scene(made.cube, made.x, made.y, step=SCALE, shapes={0: shape})
        inside.append(np.abs(scene.flux - made.spectra) < scene.error)
        leaks.append(contamination(scene.flux, made.spectra, 0, 1))
        ratios.append(scene.flux.sum(axis=1) / made.spectra.sum(axis=1))
    print(
        f"galaxy beside a star: coverage {np.mean(inside):.3f}, contamination {np.mean(leaks):+.4f}, "
        f"flux {np.mean(ratios, axis=0).round(4)}"
    )
    assert 0.65 < np.mean(inside) < 0.71
    assert abs(np.mean(leaks)) < 0.02
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, atol=0.03)


PLACES = np.array([8.0, 22, 40, 52, 10, 28, 45, 33]), np.array([9.0, 30, 12, 45, 50, 8, 30, 52])


def eight(rng, **options):
    """Eight sources of one flux, well apart."""
    wavelength = WAVELENGTH[::4]
    return field(rng, *PLACES, np.full((8, len(wavelength)), 20.0), wavelength, shape=(60, 60), beta=2.8, **options)


def test_psf_is_that_of_the_narrowest():
    """Galaxies without an image don't widen the PSF; they are flagged, stars are not."""
    width = np.array([0.0, 0, 0, 0, 0.8, 0.6, 0.5, 1.0])
    made = eight(np.random.default_rng(5), width=width)
    scene = extract_scene(made.cube, *PLACES, step=SCALE)
    assert abs(scene.psf.fwhm - 0.7) < 0.01
    ratio = np.median(scene.flux, axis=1) / 20.0
    np.testing.assert_allclose(ratio[:4], 1.0, atol=0.05)
    flagged = (scene.misfit > 4) & (scene.residual > 0.05)
    assert np.array_equal(flagged, width > 0)


@pytest.mark.parametrize("fwhm", [0.45, 1.6])
def test_other_seeing(fwhm):
    made = eight(np.random.default_rng(6), fwhm=fwhm)
    scene = extract_scene(made.cube, *PLACES, step=SCALE)
    assert abs(scene.psf.fwhm / fwhm - 1) < 0.02
    np.testing.assert_allclose(np.median(scene.flux, axis=1), 20.0, rtol=0.05)


def test_a_source_listed_twice():
    made = eight(np.random.default_rng(7))
    x, y = (np.append(each, each[0]) for each in PLACES)
    scene = extract_scene(made.cube, x, y, step=SCALE)
    np.testing.assert_allclose(np.median(scene.flux[:8], axis=1), 20.0, rtol=0.05)
    assert np.isnan(scene.flux[8]).all()
    assert scene.twins.tolist() == [False] * 8 + [True]


def test_a_large_field_with_few_sources():
    rng = np.random.default_rng(19)
    made, shape = galaxy_and_star(rng, 1.4)
    wide = rng.normal(0.01, 0.08, (len(WAVELENGTH), 30, 150))
    wide[:, :, 100:130] = made.cube.values
    cube = Cube(wide, WAVELENGTH, np.full(wide.shape, 0.08**2), "variance")
    moved = ImageShape(shape.values, shape.rows, slice(100, 130), SCALE)
    scene = extract_scene(cube, made.x + 100, made.y, step=SCALE, shapes={0: moved})
    np.testing.assert_allclose(scene.flux.sum(axis=1) / made.spectra.sum(axis=1), 1.0, atol=0.05)
    np.testing.assert_allclose(scene.x, made.x + 100)
    pulls = (scene.flux - made.spectra) / scene.error
    assert 0.62 < np.mean(np.abs(pulls) < 1) < 0.74


def test_errors_say_what_to_do():
    made = pair(np.random.default_rng(17), 1.2)
    with pytest.raises(DataError, match="must lie in the field"):
        extract_scene(made.cube, [100.0], [100.0], step=SCALE)
    with pytest.raises(DataError, match="celestial coordinates"):
        extract_scene(made.cube, made.x, made.y)
    with pytest.raises(UsageError, match="sky_degree"):
        SceneOptions(sky_degree=7)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [None, 2.5])
@pytest.mark.parametrize(("separation", "limit"), [(1.2, 0.02), (0.8, 0.02), (0.5, 0.05)])
def test_blended_pairs(beta, separation, limit):
    """200 draws: the PSF fitted, contamination, flux and coverage (pooled: 180,000 channels, 0.1 % of binomial error)."""
    rng = np.random.default_rng(100)
    inside, leaks, ratios = [], [], []
    for _ in range(200):
        made = pair(rng, separation, beta=beta)
        scene = extract_scene(made.cube, made.x + rng.normal(0, 0.2), made.y + rng.normal(0, 0.2), step=SCALE)
        inside.append(np.abs(scene.flux - made.spectra) < scene.error)
        leaks.append(contamination(scene.flux, made.spectra, 0, 1))
        ratios.append(scene.flux.sum(axis=1) / made.spectra.sum(axis=1))
    print(
        f"beta {beta}, {separation} arcsec: coverage {np.mean(inside):.3f}, contamination {np.mean(leaks):+.4f}, "
        f"flux {np.mean(ratios, axis=0).round(4)}"
    )
    assert 0.65 < np.mean(inside) < 0.71
    assert abs(np.mean(leaks)) < limit
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, atol=0.03)
