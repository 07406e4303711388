"""Small simulated pairs of images that many tests share: one shape, so that few programs are compiled."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ifujax.simulate import SimulatedPair, random_scene, simulate_image_pair

TRUTH = {"fwhm": 0.65, "beta": 2.8, "dx": 0.12, "dy": -0.23, "scale": 0.95, "bg": 0.05}
SHAPE, HST_SHAPE, HST_PIXEL = (48, 48), (360, 360), 0.05
NAMES = ("scale", "bg", "dx", "dy", "fwhm", "beta")


@lru_cache(maxsize=32)
def _pair(options: tuple[tuple[str, Any], ...]) -> SimulatedPair:
    scene = random_scene(5, size_arcsec=18.0, n_galaxies=14, n_stars=4)
    settings = {"muse_shape": SHAPE, "hst_shape": HST_SHAPE, "hst_pixel": HST_PIXEL, "sigma": 0.05, "seed": None}
    return simulate_image_pair(scene, **{**settings, **TRUTH, **dict(options)})


def pair(**options: Any) -> SimulatedPair:
    """A pair of 48 x 48 MUSE pixels and an HST image of 18 arcsec around them; without noise unless a seed is given."""
    return _pair(tuple(sorted(options.items())))
