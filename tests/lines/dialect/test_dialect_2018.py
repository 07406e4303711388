"""The 2018 dialect: wavelengths and sigmas in Angstrom, `flux`, bare names, and mixtures with today's."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from ifujax.errors import IfujaxWarning
from ifujax.inference.parameter_space.declarations import Bounded, Fixed, Tied
from ifujax.inference.precision import working_precision
from ifujax.lines.config import LineFitConfig
from ifujax.lines.dialect import parse_config
from ifujax.lines.dialect.of_2018 import dispersion_of, velocity_at, wavelength_at, width_of
from ifujax.lines.setup import prepare
from ifujax.models.doppler import C_KMS, velocity_of
from tests.lines.dialect.dialect_texts import FIT, HA, config, line, refusal

OLD_N2 = "[n2]\nwavelength: 6548.04, +- 10\nsigma: 2, 1.4:8\nflux: peak, 0:\n"
OLD_HA = "[ha]\nwavelength: 6562.8, +- 10\nsigma: 2, 1.4:8\nflux: peak, 0:\n"


def old(name: str = "ha", **options: str | None) -> str:
    """A section of the 2018 dialect with options replaced; None leaves one out."""
    values: dict[str, str | None] = {"wavelength": "6562.8, +- 10", "sigma": "2, 1.4:8", "flux": "peak, 0:"} | options
    return f"[{name}]\n" + "".join(f"{option}: {value}\n" for option, value in values.items() if value is not None)


def drawn(found: LineFitConfig, n: int = 20) -> list[dict[str, float]]:
    """All parameters of the model at random places of its space."""
    rng = np.random.default_rng(3)
    space = prepare(found, np.linspace(6300.0, 6900.0, 601), 0.0).space
    rows = []
    with working_precision("float64"):
        for _ in range(n):
            low, high = (np.array([float(v) for v in side]) for side in space.box())
            high = np.where(np.isfinite(high), high, low + 5.0)
            rows.append({name: float(value) for name, value in space.unpack(list(rng.uniform(low, high))).items()})
    return rows


def test_conversions_are_those_of_the_model_and_invert():
    for wavelength in (6000.0, 6562.8, 6563.0, 7000.0):
        assert velocity_at(wavelength, 6562.8) == pytest.approx(float(velocity_of(wavelength, 6562.8)), abs=1e-9)
        assert wavelength_at(velocity_at(wavelength, 6562.8), 6562.8) == pytest.approx(wavelength, rel=1e-14)
    assert (velocity_at(math.inf, 1.0), velocity_at(0.0, 1.0), velocity_at(-3.0, 1.0)) == (math.inf, -math.inf, -math.inf)
    assert (velocity_at(1e300, 1e-300), velocity_at(1e-300, 1e300)) == (C_KMS, -C_KMS)
    assert dispersion_of(2.0, 6562.8) == pytest.approx(91.361144, rel=1e-8)
    assert width_of(dispersion_of(2.0, 6562.8), 6562.8) == pytest.approx(2.0)


def test_a_section():
    found = line(FIT + old(k_group="0", continuum_windows="6480, 6530, 6600, 6670"))
    q = (6572.8 / 6562.8) ** 2
    assert found.rest_wavelength == 6562.8
    assert found.kinematics.velocity.upper == pytest.approx(C_KMS * (q - 1) / (q + 1), rel=1e-12)
    assert found.kinematics.velocity.lower == pytest.approx(-457.15374625844447)
    assert found.kinematics.velocity.start == 0.0
    assert found.kinematics.velocity_dispersion.start == pytest.approx(C_KMS * 2 / 6562.8)
    assert found.kinematics.velocity_dispersion.upper == pytest.approx(C_KMS * 8 / 6562.8)
    assert found.amplitude == Bounded(0.0, start="peak")
    assert found.continuum_windows == (6480, 6530, 6600, 6670)


@pytest.mark.parametrize(
    ("wavelength", "low", "high"),
    [("6562.8", -math.inf, math.inf), ("6562.8, 6560:", -127.935, math.inf), ("6562.8, 0:6560", -math.inf, -127.935)],
)
def test_open_sides(wavelength, low, high):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last one's first guess lies outside
        velocity = parse_config(FIT + old(wavelength=wavelength)).model.lines[0].kinematics.velocity
    assert (velocity.lower, velocity.upper) == (pytest.approx(low, abs=1e-2), pytest.approx(high, abs=1e-2))


def test_flux_is_the_peak_of_a_gaussian_and_the_integral_of_a_hermite_line():
    text = FIT + OLD_N2 + old(flux="3, 0:, n2 * 2")
    assert line(text).amplitude == Tied("n2.amplitude * 2.0", 0.0)
    assert line(text.replace("n2 *", "n2.flux *")).amplitude == Tied("n2.amplitude * 2.0", 0.0)
    hermite = text.replace("verbose: no", "verbose: no\nfunction: gausshermite")
    with pytest.warns(IfujaxWarning, match="not given, so it is fitted from 0 within -0.3:0.3"):
        found = parse_config(hermite).model.lines[1]
    assert found.flux == Tied("n2.flux * 2.0", 0.0)
    assert (found.amplitude, found.shape) == (None, "gauss_hermite")
    assert line(FIT + old(flux=None, amplitude="median")).amplitude == Bounded(start="median")


def test_numbers_in_constraints_are_in_angstrom():
    found = line(FIT + old(wavelength="6562.8, +- 10, > 6560", sigma="2, 1:8, < 2 * 2")).kinematics
    assert found.velocity.lower == pytest.approx(velocity_at(6560.0, 6562.8))
    assert found.velocity_dispersion.upper == pytest.approx(dispersion_of(4.0, 6562.8))
    found = line(FIT + old(sigma="2,, 3", wavelength="6562.8,, 6563")).kinematics
    assert found.velocity == Fixed(velocity_at(6563.0, 6562.8))
    assert found.velocity_dispersion == Fixed(dispersion_of(3.0, 6562.8))


@pytest.mark.parametrize("spelling", ["n2", "[n2]", "n2.{}", "[n2].{}", "[n2.{}]"])
def test_ties_hold_exactly_in_angstrom(spelling):
    centre, width = spelling.format("wavelength"), spelling.format("sigma")
    text = FIT + OLD_N2 + old(wavelength=f"6562.8, +- 20, {centre}+14.5", sigma=f"2, 1:9, {width} * 1.1", flux="1, 0:, [n2]/3")
    for row in drawn(config(text)):
        n2 = wavelength_at(row["n2.velocity"], 6548.04)
        ha = wavelength_at(row["ha.velocity"], 6562.8)
        assert ha == pytest.approx(n2 + 14.5, rel=1e-13)
        widths = [row[f"{name}.velocity_dispersion"] * at / C_KMS for name, at in (("n2", n2), ("ha", ha))]
        assert widths[1] == pytest.approx(1.1 * widths[0], rel=1e-12)
        assert row["ha.amplitude"] == pytest.approx(row["n2.amplitude"] / 3)


def test_inequalities_hold_exactly_in_angstrom():
    for row in drawn(config(FIT + OLD_N2 + old(wavelength="6562.8, +- 10, > n2 + 14", sigma="2, 1:9, < n2"))):
        n2 = wavelength_at(row["n2.velocity"], 6548.04)
        ha = wavelength_at(row["ha.velocity"], 6562.8)
        # The fixed bounds win where the two cross.
        assert ha >= min(n2 + 14, 6572.8) * (1 - 1e-13)
        assert row["ha.velocity_dispersion"] * ha <= max(row["n2.velocity_dispersion"] * n2, 1.001 * C_KMS) * (1 + 1e-12)


def test_bounds_of_what_is_tied_limit_what_it_is_tied_to():
    text = FIT + OLD_N2 + old(wavelength="6562.8, +- 5, n2 + 14.76", sigma="2, 1:4, 2 * n2")
    third = old("s2", wavelength="6716.44, +- 3, ha + 153.64", sigma="2, 0.5:9, ha")
    n2 = config(text).model.lines[0].kinematics
    assert n2.velocity.lower == pytest.approx(velocity_at(6543.04, 6548.04), rel=1e-9)
    assert n2.velocity.upper == pytest.approx(velocity_at(6553.04, 6548.04), rel=1e-9)
    assert n2.velocity_dispersion.lower == pytest.approx(dispersion_of(1.4, 6548.04))
    assert n2.velocity_dispersion.upper == pytest.approx(dispersion_of(2.0, 6548.04))
    n2, ha, _ = config(text + third).model.lines  # along the chain
    assert n2.kinematics.velocity.upper == pytest.approx(velocity_at(6551.04, 6548.04), rel=1e-9)
    assert math.isinf(ha.kinematics.velocity.upper)
    assert drawn(config(text + third), 1)


def test_group_members_agree_once_in_velocity():
    text = FIT + OLD_N2 + "k_group: 0\n" + old(k_group="0")
    n2, ha = config(text).model.lines
    assert n2.kinematics is ha.kinematics
    assert ha.rest_wavelength == 6562.8
    far = FIT + old("hb", wavelength="4861.3, +- 10", k_group="0") + old(k_group="0")
    with pytest.warns(IfujaxWarning, match=r"\[ha\] wavelength, \[ha\] sigma: no effect here, because a k_group"):
        parse_config(far)
    config(FIT + OLD_N2 + "k_group: 0\n" + old(wavelength="6562.8", sigma=None, k_group="0"))
    # A constraint that names a later member leads to the first.
    tied = config(text + old("broad", sigma="5, 1:20, > ha.sigma")).model.lines[2].kinematics
    assert "n2.velocity_dispersion" in tied.velocity_dispersion.above


def test_sections_of_both_dialects_in_one_file():
    text = FIT + OLD_N2 + HA.replace("0, -300:300", "0, -300:300, n2").replace("100, 40:300", "100, 40:300, < n2.sigma")
    today = line(text).kinematics  # km/s, as its own section is
    assert today.velocity == Tied("n2.velocity", -300, 300)
    assert today.velocity_dispersion.below == "n2.velocity_dispersion"
    text = FIT + HA + old("b", wavelength="6562.8, +- 20, ha.wavelength", sigma="4, 1:20, 2 * ha.sigma")
    for row in drawn(config(text)):
        assert row["b.velocity"] == pytest.approx(row["ha.velocity"], abs=1e-7)
        assert row["b.velocity_dispersion"] == pytest.approx(2 * row["ha.velocity_dispersion"], rel=1e-9)
    grouped = FIT + HA + "k_group: 3\n" + old("n2", wavelength="6583.46", sigma="2.2", k_group="3", flux="2")
    assert len({id(each.kinematics) for each in config(grouped.replace("2.2", "2.2, 0.88:6.6")).model.lines}) == 1


@pytest.mark.filterwarnings("ignore::ifujax.errors.IfujaxWarning")
def test_spellings_of_2018_in_the_reserved_sections():
    found = parse_config(
        "[fit]\nwritefits: yes\noutimage: a.fits\ninst_disp: 2\nindividual_spec: cofm\nrefit: yes\nrefit_radius: 4\n"
        "update_bounds: yes\nspiral_loop: yes\nspiral_center: 3, 4.5\nsig_threshold: 3\nguess_parameters: yes\ntrivial: yes\n"
        "test_jacobian: yes\noptimize_fit: yes\nverbose: yes\n[continuum]\ndegr: 3\nniterate: 2\n"
        "[loading]\nspectral_dimension: 3\nvortab: VOR\nweights: none\nnan_spaxels: any\n" + OLD_HA
    )
    fit = found.fit
    assert (fit.instrument_dispersion, fit.individual_spec, fit.refit, fit.refit_radius) == (2.0, "cofm", True, 4.0)
    assert (fit.bound_range, fit.bounds_change, fit.spiral_center, fit.sig_threshold) == (0.1, (), (3.0, 4.5), 3.0)
    assert (fit.guess_parameters, fit.trivial, fit.test_jacobian, fit.verbose) == (True, True, True, True)
    assert (found.loading.wcs_axis, found.loading.vortab, found.loading.nan_spaxels) == (3, "VOR", "any")
    assert (found.model.continuum_degree, found.continuum.n_iterate, found.output.out_image) == (3, 2, "a.fits")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (old(wavelength=None), ["[ha]", "rest_wavelength"]),
        (old(velocity="0, -300:300"), ["[ha]", "velocity beside wavelength"]),
        (old(sigma=None, velocity_dispersion="100"), ["[ha]", "velocity_dispersion beside wavelength"]),
        (old(rest_wavelength="6562.8"), ["[ha]", "both"]),
        (old(wavelength="-5"), ["[ha] wavelength", "positive", "Angstrom"]),
        (old(wavelength="wide"), ["[ha] wavelength", "number", "'wide'"]),
        (old(sigma=None), ["[ha] sigma", "must be given"]),
        (old(sigma="0, 0:3"), ["[ha] sigma", "positive", "Angstrom"]),
        (old(sigma="1e308", wavelength="1e-9"), ["[ha] sigma", "Angstrom"]),
        (old(flux=None), ["[ha]", "amplitude or flux"]),
        (old(flux="pike"), ["[ha] flux", "peak, mean, median"]),
        (OLD_N2 + old(wavelength="6562.8,, n2.wavelenth"), ["[ha] wavelength", "'wavelenth'", "Did you mean 'wavelength'"]),
        (OLD_N2 + old(wavelength="6562.8,, ha"), ["ha.velocity -> ha.velocity", "[ha] wavelength"]),
        (OLD_N2 + old(wavelength="6562.8, +- 9, sqrt(n2)"), ["[ha] wavelength", "straight line"]),
        (OLD_N2 + old(wavelength="6562.8, +- 9, n2 + ha"), ["ha.velocity -> ha.velocity"]),
        (OLD_N2 + old(wavelength="6562.8, +- 9, n2 + 100"), ["[ha] wavelength", "[n2] wavelength", "Widen"]),
        (OLD_N2 + old(wavelength="6562.8, +- 9, 7000"), ["[ha] wavelength", "within its bounds"]),
        (OLD_N2 + "k_group: 1\n" + old(k_group="1", sigma="2,, n2"), ["[ha] sigma", "no constraint", "[n2]"]),
        (HA + old("b", flux="1,, ha.flux"), ["[b] flux", "'flux'"]),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_remedy(text, parts):
    message = refusal(FIT + text)
    for part in parts:
        assert part in message
