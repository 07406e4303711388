"""Images made from a reference: against direct sums over a finer grid, and slopes against differences."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ifujax.inference.precision import working_precision
from ifujax.models.psf import MoffatPSF, RadialGrid
from ifujax.models.scene import Reference, SceneModel

SHAPE, STEP = (40, 32), 0.2
SOURCES = ((0.31, -0.44, 3.0), (-1.13, 0.77, 1.0), (1.9, 1.2, 0.4))  # x, y, flux of points
PARAMS = {"dx": 0.13, "dy": -0.21, "fwhm": 0.6, "beta": 2.6, "e1": 0.1, "e2": -0.05, "rotation": 0.0}
RADIAL = RadialGrid(np.log(0.06), np.log(13.0))


def reference(fold: int = 2) -> Reference:
    """The transform of point sources: known for every frequency, aliases included."""
    n_y, n_x = SHAPE
    fy, fx = np.fft.fftfreq(n_y, STEP), np.fft.rfftfreq(n_x, STEP)
    fy = np.stack([fy, fy - np.where(fy < 0, -1, 1) / STEP])[:fold]
    fx = np.stack([fx, fx - 1 / STEP])[:fold]
    x, y = (np.arange(n_x) - n_x // 2) * STEP, (np.arange(n_y) - n_y // 2) * STEP
    total = 0
    for at_x, at_y, flux in SOURCES:
        phase = fx[None, :, None, :] * (at_x - x[0]) + fy[:, None, :, None] * (at_y - y[0])
        total = total + flux * STEP**2 * np.exp(-2j * np.pi * phase) / STEP**2
    k = np.hypot(fx[None, :, None, :], fy[:, None, :, None])
    k[0, 0, 0, 0] = 1 / (n_y * STEP)
    return Reference(total.real, total.imag, fx, fy, RADIAL.twice_argument(np.log(k)), x, y, np.array([STEP, STEP]))


def model(**options: bool) -> SceneModel:
    return SceneModel(SHAPE, RADIAL, **options)


def expected(params: dict[str, float], elliptical: bool) -> np.ndarray:
    """Moffat profiles at the sources, sampled at pixel centres and their periodic images."""
    coords = reference()
    e = np.hypot(params["e1"], params["e2"]) if elliptical else 0.0
    ellipticity = 1 - np.sqrt((1 - e) / (1 + e))
    angle = np.rad2deg(0.5 * np.arctan2(params["e2"], params["e1"]))
    total = np.zeros(SHAPE)
    with working_precision("float64"):
        psf = MoffatPSF(params["fwhm"], params["beta"], ellipticity, angle)
        for at_x, at_y, flux in SOURCES:
            for i in range(-6, 7):
                for j in range(-6, 7):
                    x = coords.x[None, :] - at_x - params["dx"] + i * SHAPE[1] * STEP
                    y = coords.y[:, None] - at_y - params["dy"] + j * SHAPE[0] * STEP
                    total += flux * STEP**2 * np.asarray(psf(jnp.asarray(x), jnp.asarray(y)))
    return total


@pytest.mark.parametrize("elliptical", [False, True])
def test_points_are_moffat_profiles(elliptical: bool) -> None:
    coords = reference()
    with working_precision("float64"):
        found = np.asarray(model(elliptical=elliptical).unit_image(PARAMS, coords)).reshape(SHAPE)
    wanted = expected(PARAMS, elliptical)
    # What lies beyond twice the limit of the pixels, and beyond six periods, is all that is missing
    assert np.abs(found - wanted).max() < 3e-4 * wanted.max()
    # Without the aliases it is not the same
    one = replace(
        coords, **{n: getattr(coords, n)[:1, :1] for n in ("real", "imag", "radius")}, fx=coords.fx[:1], fy=coords.fy[:1]
    )
    with working_precision("float64"):
        blunt = np.asarray(model(elliptical=elliptical).unit_image(PARAMS, one)).reshape(SHAPE)
    assert np.abs(blunt - wanted).max() > 2e-3 * wanted.max()


def test_pixels_are_averaged_over() -> None:
    coords = reference()
    with working_precision("float64"):
        found = np.asarray(model(integrate=True).unit_image(PARAMS, coords)).reshape(SHAPE)
        nodes, weights = np.polynomial.legendre.leggauss(6)
        total = np.zeros(SHAPE)
        for a, wa in zip(nodes, weights):
            for b, wb in zip(nodes, weights):
                moved = {**PARAMS, "dx": PARAMS["dx"] + 0.5 * STEP * a, "dy": PARAMS["dy"] + 0.5 * STEP * b}
                total += 0.25 * wa * wb * np.asarray(model().unit_image(moved, coords)).reshape(SHAPE)
    np.testing.assert_allclose(found, total, atol=1e-6 * total.max())


@pytest.mark.parametrize("name", ["dx", "dy", "fwhm", "beta", "e1", "e2", "rotation"])
def test_slopes_against_differences(name: str) -> None:
    coords = reference()
    whole = model(elliptical=True, rotation=True)
    step = 1e-4
    with working_precision("float64"):

        def image(value: jax.Array) -> jax.Array:
            return whole.unit_image({**PARAMS, name: value}, coords)

        at = jnp.asarray(PARAMS[name])
        slope = np.asarray(jax.jvp(image, (at,), (jnp.ones_like(at),))[1])
        difference = np.asarray(image(at + step) - image(at - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, atol=2e-6 * np.abs(difference).max())


def test_rotation_to_first_order() -> None:
    """A small rotation moves each source along its circle."""
    coords = reference()
    angle = 0.05
    turned = np.deg2rad(angle)
    with working_precision("float64"):
        params = {**PARAMS, "rotation": angle, "dx": 0.0, "dy": 0.0}
        found = np.asarray(model(rotation=True).unit_image(params, coords)).reshape(SHAPE)
    total = np.zeros(SHAPE)
    with working_precision("float64"):
        still = np.asarray(model().unit_image({**params, "rotation": 0.0}, coords)).reshape(SHAPE)
        for at_x, at_y, flux in SOURCES:
            psf = MoffatPSF(PARAMS["fwhm"], PARAMS["beta"])
            x, y = coords.x[None, :], coords.y[:, None]
            new_x, new_y = at_x - turned * at_y, at_y + turned * at_x
            total += flux * STEP**2 * np.asarray(psf(x - new_x, y - new_y) - psf(x - at_x, y - at_y))
    assert np.abs(found - still - total).max() < 0.03 * np.abs(total).max()


def test_linear_block() -> None:
    coords = reference()
    with working_precision("float64"):
        unit = np.asarray(model().unit_image(PARAMS, coords))
        columns, offset = model().design(PARAMS, coords)
        assert model().linear_names == ("scale", "bg")
        np.testing.assert_array_equal(np.asarray(columns[0]), unit)
        np.testing.assert_array_equal(np.asarray(columns[1]), 1.0)
        assert not np.asarray(offset).any()
        fixed = model(scale=False)
        columns, offset = fixed.design({**PARAMS, "scale": 2.0}, coords)
        assert fixed.linear_names == ("bg",)
        np.testing.assert_allclose(np.asarray(offset), 2.0 * unit)
        np.testing.assert_allclose(np.asarray(fixed({**PARAMS, "scale": 2.0, "bg": 3.0}, coords)), 2.0 * unit + 3.0)
