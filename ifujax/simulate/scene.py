"""Scenes on the sky, of galaxies and stars, that simulated images are taken of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ifujax.errors import DataError, UsageError, unknown
from ifujax.simulate.rendering import covariance_matrix

FloatArray = NDArray[np.float64]

GalaxyProfile = Literal["gaussian", "exponential", "spheroid"]
PROFILES: tuple[str, ...] = get_args(GalaxyProfile)


@dataclass(frozen=True)
class Galaxy:
    """A galaxy: concentric elliptical Gaussians of one shape.

    Attributes
    ----------
    east, north : float
        From the centre of the scene, arcsec in its tangent plane.
    flux : float
        Total, in the unit of the images.
    radius : float
        Of half the light, arcsec: geometric mean of those along the two axes.
    axis_ratio : float
        b/a, larger than 0, at most 1.
    position_angle : float
        Of the major axis, degrees from north through east.
    profile : {"gaussian", "exponential", "spheroid"}
        See `profile_mixture`.

    Raises
    ------
    DataError, UsageError
        If the radius or the axis ratio can't be, or the profile is unknown.
    """

    east: float
    north: float
    flux: float
    radius: float
    axis_ratio: float = 1.0
    position_angle: float = 0.0
    profile: GalaxyProfile = "exponential"

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise UsageError(unknown("profile", str(self.profile), PROFILES))
        if not self.radius > 0:
            raise DataError(f"radius must be positive; got {self.radius}. Give arcsec, or take a Star.")
        if not 0 < self.axis_ratio <= 1:
            raise DataError(f"axis_ratio must lie in (0, 1]; got {self.axis_ratio}. Give b/a.")


@dataclass(frozen=True)
class Star:
    """A point: arcsec east and north of the centre of the scene, and flux."""

    east: float
    north: float
    flux: float


@dataclass(frozen=True)
class Scene:
    """Galaxies and stars about a place on the sky.

    Attributes
    ----------
    galaxies : tuple of Galaxy
    stars : tuple of Star
    ra, dec : float
        Of the centre, degrees: the tangent point of every image that is taken. The default is in the Hubble Deep Field South.
    """

    galaxies: tuple[Galaxy, ...] = ()
    stars: tuple[Star, ...] = ()
    ra: float = 338.2343
    dec: float = -60.5649

    @property
    def flux(self) -> float:
        """Of all sources together."""
        return sum(source.flux for source in (*self.galaxies, *self.stars))

    def gaussians(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return fluxes (n,), places (n, 2) and covariances (n, 2, 2) of the galaxies' Gaussians; arcsec, east and north."""
        fluxes, places, covariances = [], [], []
        for galaxy in self.galaxies:
            weights, sigmas = profile_mixture(galaxy.profile)
            stretch = np.sqrt(galaxy.axis_ratio)
            # 90 - angle: from east, since x is east here
            shape = covariance_matrix(galaxy.radius / stretch, galaxy.radius * stretch, 90.0 - galaxy.position_angle)
            fluxes.append(galaxy.flux * weights)
            places.append(np.tile([galaxy.east, galaxy.north], (len(weights), 1)))
            covariances.append(sigmas[:, None, None] ** 2 * shape)
        if not fluxes:
            return np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2, 2))
        return np.concatenate(fluxes), np.concatenate(places), np.concatenate(covariances)

    def points(self) -> tuple[FloatArray, FloatArray]:
        """Return fluxes (n,) and places (n, 2) of the stars; arcsec, east and north."""
        table = np.array([(star.flux, star.east, star.north) for star in self.stars], dtype=np.float64).reshape(-1, 3)
        return table[:, 0], table[:, 1:]


@cache
def profile_mixture(profile: GalaxyProfile) -> tuple[FloatArray, FloatArray]:
    """Return weights that sum to 1, and standard deviations in half-light radii, of the Gaussians of a profile.

    ``"gaussian"`` is one. The others are short sums for integrals over Gaussians, and what a galaxy has is the sum:
    ``"exponential"`` is close to exp(-r/h), which has ``u^{-3/2} exp(-1/(4u)) exp(-u r^2/h^2)`` in the integral (Laplace
    transform of the inverse gamma distribution), within 2 % to three half-light radii; ``"spheroid"`` is like
    ``(1 + r^2/a^2)^-1.5`` (Hubble's profile), with a steeper end far out.
    """
    if profile == "gaussian":
        weights, sigmas = np.ones(1), np.ones(1)
    elif profile == "exponential":
        u = np.exp(np.arange(-3.2, 5.0, 1.0))
        weights, sigmas = u**-1.5 * np.exp(-0.25 / u), np.sqrt(0.5 / u)
    else:
        s = np.exp(np.arange(-5.0, 1.6, 1.1))
        weights, sigmas = s**0.5 * np.exp(-s), np.sqrt(0.5 / s)
    weights = weights / weights.sum()
    low, high = 0.0, 10.0 * float(sigmas.max())
    for _ in range(60):
        radius = 0.5 * (low + high)
        inside = float(np.sum(weights * -np.expm1(-0.5 * (radius / sigmas) ** 2)))
        low, high = (radius, high) if inside < 0.5 else (low, radius)
    sigmas = sigmas / radius
    weights.setflags(write=False)
    sigmas.setflags(write=False)
    return weights, sigmas


def random_scene(
    seed: int = 0,
    n_galaxies: int = 60,
    n_stars: int = 4,
    size_arcsec: float = 32.0,
    *,
    galaxy_flux: tuple[float, float] = (4.0, 200.0),
    star_flux: tuple[float, float] = (80.0, 400.0),
    radius: tuple[float, float] = (0.1, 0.8),
    profiles: Mapping[GalaxyProfile, float] | None = None,
    margin: float = 2.0,
) -> Scene:
    """Draw a scene: galaxies anywhere in a square, stars away from its border.

    Parameters
    ----------
    seed : int
    n_galaxies, n_stars : int
    size_arcsec : float
        Side of the square; one larger than the image has light come in from beyond its border.
    galaxy_flux, star_flux, radius : (float, float)
        Ranges, uniform in the logarithm; arcsec. A brighter galaxy is larger on average, by the cube root of its flux.
    profiles : mapping of str to float, optional
        Shares of the galaxies; 0.7 exponential, 0.2 spheroid and 0.1 gaussian by default.
    margin : float
        Distance of stars from the border, arcsec.

    Returns
    -------
    Scene

    Raises
    ------
    DataError, UsageError
        If a number or range can't be, or a profile is unknown.

    Examples
    --------
    >>> from ifujax import simulate
    >>> len(simulate.random_scene(3, n_galaxies=5).galaxies)
    5
    """
    if n_galaxies < 0 or n_stars < 0:
        raise DataError(f"n_galaxies and n_stars must not be negative; got {n_galaxies} and {n_stars}. Give 0 or more.")
    if not 0 <= 2 * margin < size_arcsec:
        raise DataError(f"size_arcsec must be larger than twice the margin, {margin}; got {size_arcsec}. Give more arcsec.")
    for name, (low, high) in (("galaxy_flux", galaxy_flux), ("star_flux", star_flux), ("radius", radius)):
        if not 0 < low <= high:
            raise DataError(f"{name} must be two ascending positive numbers; got {low} and {high}. Give a range.")
    shares = {"exponential": 0.7, "spheroid": 0.2, "gaussian": 0.1} if profiles is None else dict(profiles)
    for profile in shares:
        if profile not in PROFILES:
            raise UsageError(unknown("profile", str(profile), PROFILES))
    random = np.random.default_rng(seed)
    half = 0.5 * size_arcsec
    places = random.uniform(-half, half, (n_galaxies, 2))
    share = random.uniform(size=(n_galaxies, 2))  # of the way from low to high, in the logarithm
    fluxes = galaxy_flux[0] * (galaxy_flux[1] / galaxy_flux[0]) ** share[:, 0]
    radii = radius[0] * (radius[1] / radius[0]) ** (share @ [1 / 3, 2 / 3])
    ratios, angles = random.uniform(0.3, 1.0, n_galaxies), random.uniform(0.0, 180.0, n_galaxies)
    total = sum(shares.values())
    kinds = random.choice(list(shares), n_galaxies, p=[value / total for value in shares.values()])
    galaxies = tuple(
        Galaxy(*(float(value) for value in row), profile=str(kind))  # pyright: ignore[reportArgumentType]
        for *row, kind in zip(places[:, 0], places[:, 1], fluxes, radii, ratios, angles, kinds)
    )
    reach = half - margin
    points = random.uniform(-reach, reach, (n_stars, 2))
    brightness = star_flux[0] * (star_flux[1] / star_flux[0]) ** random.uniform(size=n_stars)
    stars = tuple(Star(float(x), float(y), float(flux)) for (x, y), flux in zip(points, brightness))
    return Scene(galaxies, stars)
