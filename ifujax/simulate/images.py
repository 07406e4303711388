"""Simulated images of one scene, as HST and MUSE would take them, with known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from ifujax.data.image import Image
from ifujax.errors import DataError
from ifujax.simulate.rendering import MoffatPSF, render_gaussians
from ifujax.simulate.scene import Scene, random_scene

FloatArray = NDArray[np.float64]

IMAGE_UNIT = "10**-20 erg Angstrom-1 s-1 cm-2"
"""Of both images, a pixel; sources have fluxes in it."""

_HST, _MUSE, _MASK = 1, 2, 3
"""Streams of random numbers: the noise of one image doesn't depend on the other."""


@dataclass(frozen=True, eq=False)
class SimulatedPair:
    """Two images of a scene, and what was put into them.

    Attributes
    ----------
    hst, muse : Image
        With noise, variance and coordinates; masked pixels are NaN.
    hst_model, muse_model : (y, x) array
        Without noise; nothing masked.
    truth : dict of str to float
        ``scale``, ``bg``, ``dx``, ``dy`` (arcsec), ``fwhm`` (arcsec), ``beta``, ``ellipticity``, ``angle``, ``rotation``
        (degrees), ``hst_fwhm`` and ``hst_beta``.
    scene : Scene
    """

    hst: Image
    muse: Image
    hst_model: FloatArray
    muse_model: FloatArray
    truth: dict[str, float]
    scene: Scene

    def with_noise(self, seed: int) -> SimulatedPair:
        """Return the pair with other noise and the same masks; nothing is rendered again."""
        return replace(
            self,
            hst=_noisy(replace(self.hst, values=_masked_as(self.hst_model, self.hst.values)), seed, _HST),
            muse=_noisy(replace(self.muse, values=_masked_as(self.muse_model, self.muse.values)), seed, _MUSE),
        )


def simulate_hst(
    scene: Scene,
    shape: tuple[int, int] = (832, 832),
    pixel: float = 0.05,
    *,
    fwhm: float = 0.085,
    beta: float = 1.6,
    angle: float = 0.0,
    centre: tuple[float, float] = (0.0, 0.0),
    noise: float = 0.0,
    seed: int | None = 0,
    integrate_pixels: bool = False,
    name: str = "hst",
) -> Image:
    """Take an image of a scene with a circular Moffat PSF.

    Parameters
    ----------
    scene : Scene
    shape : (int, int)
        Pixels in y and x.
    pixel : float
        Side of a pixel, arcsec.
    fwhm, beta : float
        Of the effective PSF: as it is at pixel centres, the pixel included.
    angle : float
        Position angle of +y, degrees from north through east. East is left of north.
    centre : (float, float)
        Of the image, arcsec east and north of that of the scene.
    noise : float
        1 sigma a pixel, `IMAGE_UNIT`; 0 for none, and no variance.
    seed : int, optional
        None for no noise, though there is a variance.
    integrate_pixels : bool
        Convolve with the pixel besides, exactly: `fwhm` and `beta` are then those of the optics and the sky alone.
    name : str

    Returns
    -------
    Image
        Flux a pixel in `IMAGE_UNIT`, with variance and celestial coordinates (TAN).

    Raises
    ------
    DataError
        If the shape, a width or an exponent can't be.
    """
    frame = _frame(angle)
    psf = MoffatPSF(fwhm, beta)
    values = _rendered(scene, shape, pixel, psf, frame, -frame @ np.asarray(centre, dtype=np.float64), integrate_pixels)
    return _noisy(_image(values, scene, pixel, frame, centre, noise, name), seed, _HST)


def simulate_muse(
    scene: Scene,
    shape: tuple[int, int] = (160, 160),
    pixel: float = 0.2,
    *,
    fwhm: float = 0.65,
    beta: float = 2.8,
    ellipticity: float = 0.0,
    angle: float = 0.0,
    dx: float = 0.0,
    dy: float = 0.0,
    rotation: float = 0.0,
    scale: float = 1.0,
    bg: float = 0.0,
    sigma: ArrayLike = 0.05,
    seed: int | None = 0,
    orientation: float = 0.0,
    centre: tuple[float, float] = (0.0, 0.0),
    masked_edge: int = 0,
    masked_blocks: Sequence[tuple[int, int, int, int]] = (),
    masked_pixels: int = 0,
    integrate_pixels: bool = False,
    name: str = "muse",
) -> Image:
    """Take an image of a scene that points a little beside what its coordinates say: ``scale * (scene moved) + bg + noise``.

    Parameters
    ----------
    scene : Scene
    shape : (int, int)
        Pixels in y and x.
    pixel : float
        Side of a pixel, arcsec.
    fwhm, beta : float
        Of the effective PSF: as it is at pixel centres, the pixel included. `fwhm` is the geometric mean along the axes.
    ellipticity, angle : float
        ``1 - b/a`` of the PSF, and degrees of its major axis counter-clockwise from +x.
    dx, dy : float
        Arcsec along the pixel axes by which sources are off, to larger index, from where the coordinates say.
    rotation : float
        Degrees by which the scene is turned from +x to +y, about the centre of the image, before it is moved.
    scale, bg : float
        Factor on the fluxes, and background a pixel.
    sigma : float or (y, x) array_like
        Of the noise of a pixel; its square is the variance.
    seed : int, optional
        Of noise and masked pixels; None for no noise, though there is a variance.
    orientation : float
        Position angle of +y, degrees from north through east.
    centre : (float, float)
        Of the image, arcsec east and north of that of the scene.
    masked_edge : int
        Pixels along every border that are masked.
    masked_blocks : sequence of (y0, y1, x0, x1)
        As slices: ``y0 <= y < y1``.
    masked_pixels : int
        Single ones, anywhere.
    integrate_pixels : bool
        Convolve with the pixel besides, exactly.
    name : str

    Returns
    -------
    Image
        Flux a pixel in `IMAGE_UNIT`; values and variance are NaN where masked.

    Raises
    ------
    DataError
        If the shape, a width or an exponent can't be, or `sigma` is negative.
    """
    frame = _frame(orientation)
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    seen = np.array([[cos, -sin], [sin, cos]]) @ frame
    offset = np.array([dx, dy]) - seen @ np.asarray(centre, dtype=np.float64)
    psf = MoffatPSF(fwhm, beta, ellipticity, angle)
    values = scale * _rendered(scene, shape, pixel, psf, seen, offset, integrate_pixels) + bg
    clean = _image(values, scene, pixel, frame, centre, sigma, name)
    return _noisy(_masked(clean, masked_edge, masked_blocks, masked_pixels, seed), seed, _MUSE)


def simulate_image_pair(
    scene: Scene | None = None,
    *,
    seed: int = 0,
    muse_shape: tuple[int, int] = (160, 160),
    muse_pixel: float = 0.2,
    hst_shape: tuple[int, int] = (832, 832),
    hst_pixel: float = 0.05,
    fwhm: float = 0.65,
    beta: float = 2.8,
    ellipticity: float = 0.0,
    angle: float = 0.0,
    dx: float = 0.0,
    dy: float = 0.0,
    rotation: float = 0.0,
    scale: float = 1.0,
    bg: float = 0.0,
    sigma: ArrayLike = 0.05,
    hst_fwhm: float = 0.085,
    hst_beta: float = 1.6,
    hst_angle: float = 0.0,
    hst_noise: float = 0.0,
    integrate_pixels: bool = False,
    hst_options: Mapping[str, Any] | None = None,
    muse_options: Mapping[str, Any] | None = None,
) -> SimulatedPair:
    """Take both images of a scene; parameters are those of `simulate_hst` and `simulate_muse`.

    Parameters
    ----------
    scene : Scene, optional
        ``random_scene(seed)`` by default.
    seed : int
        Of the noise (`SimulatedPair.with_noise` draws it anew), and of masked pixels.
    hst_options, muse_options : mapping, optional
        Any other parameters of the two.

    Returns
    -------
    SimulatedPair

    Examples
    --------
    >>> from ifujax import simulate
    >>> scene = simulate.random_scene(1, n_galaxies=3, size_arcsec=8)
    >>> pair = simulate.simulate_image_pair(scene, muse_shape=(40, 40), hst_shape=(160, 160), dx=0.1)
    >>> pair.muse.shape, pair.truth["dx"]
    ((40, 40), 0.1)
    """
    scene = random_scene(seed) if scene is None else scene
    sky = {"fwhm": fwhm, "beta": beta, "ellipticity": ellipticity, "angle": angle}
    sky |= {"dx": dx, "dy": dy, "rotation": rotation, "scale": scale, "bg": bg}
    hst = simulate_hst(
        scene,
        hst_shape,
        hst_pixel,
        fwhm=hst_fwhm,
        beta=hst_beta,
        angle=hst_angle,
        noise=hst_noise,
        seed=None,
        integrate_pixels=integrate_pixels,
        **(hst_options or {}),
    )
    options = dict(muse_options or {})
    edge, blocks = options.pop("masked_edge", 0), options.pop("masked_blocks", ())
    pixels = options.pop("masked_pixels", 0)
    clean = simulate_muse(
        scene, muse_shape, muse_pixel, **sky, sigma=sigma, seed=None, integrate_pixels=integrate_pixels, **options
    )
    muse = _masked(clean, edge, blocks, pixels, seed)
    truth = {key: float(value) for key, value in sky.items()} | {"hst_fwhm": hst_fwhm, "hst_beta": hst_beta}
    return SimulatedPair(hst, muse, hst.values, clean.values, truth, scene).with_noise(seed)


def _frame(position_angle: float) -> FloatArray:
    """Return the matrix from (east, north) to (x, y): +y at a position angle, +x to the right of it, where west is."""
    cos, sin = np.cos(np.radians(position_angle)), np.sin(np.radians(position_angle))
    return np.array([[-cos, sin], [sin, cos]])


def _rendered(
    scene: Scene,
    shape: tuple[int, int],
    pixel: float,
    psf: MoffatPSF,
    frame: FloatArray,
    offset: FloatArray,
    integrate_pixels: bool,
) -> FloatArray:
    """Return the scene at ``frame @ (east, north) + offset`` (arcsec along the axes from the image's centre), flux a pixel."""
    if len(shape) != 2 or min(shape) < 1:
        raise DataError(f"shape must be two positive numbers; got {shape}. Give pixels in y and x.")
    if not pixel > 0:
        raise DataError(f"pixel must be positive; got {pixel}. Give arcsec.")
    middle = 0.5 * np.array([shape[1] - 1.0, shape[0] - 1.0])
    psf = replace(psf, fwhm=psf.fwhm / pixel)

    def at(places: FloatArray) -> FloatArray:
        return middle + (places @ frame.T + offset) / pixel

    fluxes, places, covariances = scene.gaussians()
    turned = frame @ covariances @ frame.T / pixel**2
    image = render_gaussians(shape, fluxes, at(places), turned, psf, integrate_pixels=integrate_pixels)
    fluxes, places = scene.points()
    if integrate_pixels:
        points = np.zeros((len(fluxes), 2, 2))
        return image + render_gaussians(shape, fluxes, at(places), points, psf, integrate_pixels=True)
    y, x = np.indices(shape, dtype=np.float64)
    for flux, (x0, y0) in zip(fluxes, at(places)):
        image += flux * psf(x - x0, y - y0)
    return image


def _image(
    values: FloatArray, scene: Scene, pixel: float, frame: FloatArray, centre: tuple[float, float], sigma: ArrayLike, name: str
) -> Image:
    """Return values with the coordinates that the image claims to have, and the variance of noise to come."""
    error = np.asarray(sigma, dtype=np.float64)
    if error.shape not in ((), values.shape) or not (error >= 0).all():
        raise DataError(
            f"noise must be one number or of shape {values.shape}, not negative; got shape {error.shape}. Give 1 sigma."
        )
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = [scene.ra, scene.dec]
    middle = 0.5 * np.array([values.shape[1] + 1.0, values.shape[0] + 1.0])
    wcs.wcs.crpix = middle - frame @ np.asarray(centre, dtype=np.float64) / pixel
    wcs.wcs.cd = frame.T * pixel / 3600.0  # its own inverse is its transpose
    wcs.wcs.set()
    header = fits.Header()
    header["OBJECT"] = "simulated scene"
    header["BUNIT"] = IMAGE_UNIT
    header.update(wcs.to_header())
    variance = np.broadcast_to(error**2, values.shape).copy() if error.any() else None
    return Image(values, variance, IMAGE_UNIT, title=f"simulated {name}", celestial=wcs, name=name, header=header)


def _masked(image: Image, edge: int, blocks: Sequence[tuple[int, int, int, int]], pixels: int, seed: int | None) -> Image:
    bad = np.ones(image.shape, dtype=bool)
    bad[edge : image.shape[0] - edge, edge : image.shape[1] - edge] = False
    for y0, y1, x0, x1 in blocks:
        bad[y0:y1, x0:x1] = True
    random = np.random.default_rng((0 if seed is None else seed, _MASK))
    bad.flat[random.choice(bad.size, min(pixels, bad.size), replace=False)] = True
    variance = None if image.variance is None else np.where(bad, np.nan, image.variance)
    return replace(image, values=np.where(bad, np.nan, image.values), variance=variance)


def _masked_as(model: FloatArray, values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), model, np.nan)


def _noisy(image: Image, seed: int | None, stream: int) -> Image:
    """Return the image with noise of its variance; masked pixels stay so."""
    if seed is None or image.error is None:
        return image
    # drawn for masked ones too, so that masks don't change the noise of the others
    noise = np.random.default_rng((seed, stream)).normal(size=image.shape)
    return replace(image, values=image.values + image.error * noise)
