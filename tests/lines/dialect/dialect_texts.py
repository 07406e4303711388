"""Pieces of configuration files, and how the tests read them."""

from __future__ import annotations

import warnings

import pytest

from ifujax.errors import UsageError
from ifujax.lines.config import LineFitConfig
from ifujax.lines.dialect import parse_config

FIT = """
[fit]
fit_continuum: yes
fitting_window: 6450:6650
optimize_fit: no
verbose: no
"""
N2 = """
[n2]
rest_wavelength: 6548.04
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 40:300
"""
HA = """
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 40:300
"""


def config(text: str) -> LineFitConfig:
    """Parse text that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return parse_config(text)


def line(text: str, name: str = "ha"):
    return next(item for item in config(text).model.lines if item.name == name)


def refusal(text: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError) as caught:
            parse_config(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


def ha(**options: str | None) -> str:
    """The [ha] section with options replaced; None leaves one out."""
    values: dict[str, str | None] = {
        "rest_wavelength": "6562.8",
        "amplitude": "peak, 0:",
        "velocity": "0, -300:300",
        "sigma": "100, 40:300",
    }
    values |= options
    return "[ha]\n" + "".join(f"{name}: {value}\n" for name, value in values.items() if value is not None)
