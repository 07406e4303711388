"""``prior:`` in the sections of lines: what is understood, what is refused, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from ifujax.errors import IfujaxWarning
from ifujax.inference.parameter_space.declarations import Bounded
from ifujax.inference.parameter_space.priors import HalfNormal, LogNormal, Normal
from ifujax.lines.dialect import parse_config
from ifujax.lines.dialect.of_2018 import velocity_at
from ifujax.lines.setup import prepare
from ifujax.models.doppler import C_KMS
from tests.lines.dialect.dialect_texts import FIT, N2, config, ha, line, refusal

BOTH_2018 = "[ha]\nwavelength: 6562.8, +- 10\nsigma: 2, 1:5\nflux: peak, 0:\n"


@pytest.mark.parametrize(
    "text",
    [
        "velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5); amplitude ~ half_normal(5)",
        "velocity~Normal( -0 ,1e2 ) ;; sigma ~ LogNormal(120,.5); AMPLITUDE ~ half-normal(5);",
        "\n velocity ~ normal(0, 100)\n velocity_dispersion ~ log_normal(120, 0.5); \n amplitude ~ halfnormal(5.0)",
    ],
)
def test_priors_are_read(text):
    found = line(FIT + ha(prior=text))
    assert found.amplitude == Bounded(0, start="peak", prior=HalfNormal(5))
    assert found.kinematics.velocity == Bounded(-300, 300, start=0, prior=Normal(0, 100))
    assert found.kinematics.velocity_dispersion == Bounded(40, 300, start=100, prior=LogNormal(120, 0.5))


def test_priors_reach_the_parameters():
    found = config(FIT + N2 + "k_group: 0\n" + ha(k_group="0", velocity=None, sigma=None, prior="amplitude ~ half_normal(3)"))
    assert [entry.prior for entry in prepare(found, np.arange(6450.0, 6651.0), 0.0).space.structure.entries].count(
        "half_normal"
    ) == 1
    text = FIT + N2 + "k_group: 0\nprior: velocity ~ normal(0, 100)\n" + ha(k_group="0", velocity=None, sigma=None)
    space = prepare(config(text), np.arange(6450.0, 6651.0), 0.0).space
    assert {entry.name: entry.prior for entry in space.structure.free} == {
        "n2.amplitude": None,
        "n2.velocity": "normal",
        "n2.velocity_dispersion": None,
        "ha.amplitude": None,
    }
    assert (space.prior_mean.tolist(), space.prior_sigma.tolist()) == ([0.0], [100.0])


def test_the_text_is_kept_in_one_line():
    written = "velocity ~ normal(0, 100)\n\n   sigma ~ log_normal(120, 0.5);"
    kept = config(FIT + ha(prior=written.replace("\n\n", "\n"))).text["ha.prior"]
    assert kept == "velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5)"
    assert line(FIT + ha(prior=kept)).kinematics.velocity.prior == Normal(0, 100)


def test_uniform_is_no_prior_and_needs_bounds():
    assert line(FIT + ha(prior="velocity ~ uniform; sigma ~ Uniform()")).kinematics.velocity.prior is None
    assert line(FIT + ha(sigma="100, 40:, < n2.sigma", prior="sigma ~ uniform") + N2).kinematics.velocity_dispersion.prior is None
    message = refusal(FIT + ha(prior="amplitude ~ uniform"))
    assert message.startswith("[ha] prior of amplitude must have bounds on both sides to be uniform; got an open one")


def test_positive_priors_raise_the_lower_bound():
    assert line(FIT + ha(amplitude="2, -5:9", prior="amplitude ~ half_normal(5)")).amplitude == Bounded(
        0, 9, 2.0, prior=HalfNormal(5)
    )
    with pytest.warns(IfujaxWarning, match="prior of amplitude: the first guess lies where it has no mass"):
        found = parse_config(FIT + ha(amplitude="-1, -5:9", prior="amplitude ~ half_normal(5)")).model.lines[0]
    assert found.amplitude == Bounded(0, 9, 0.0, prior=HalfNormal(5))
    # The floor of a sigma stays.
    found = line(FIT + ha(sigma="100, 0:", prior="sigma ~ log_normal(120, 0.5)")).kinematics.velocity_dispersion
    assert found == Bounded(1, start=100, prior=LogNormal(120, 0.5))


def test_priors_of_parameters_that_move_or_are_left_out():
    text = FIT + N2 + ha(sigma="200, 40:900, > n2.sigma", function="gauss_hermite", h4="0, +- 0.2", h3="0, -0.3:0.3")
    found = line(text + "prior: sigma ~ normal(300, 100); h_3 ~ normal(0, 0.1); h4 ~ normal(0, 0.2)\n").kinematics
    assert found.velocity_dispersion.above == "n2.velocity_dispersion"
    assert found.velocity_dispersion.prior == Normal(300, 100)
    assert (found.h3.prior, found.h4.prior) == (Normal(0, 0.1), Normal(0, 0.2))
    with pytest.warns(IfujaxWarning, match="not given, so it is fitted"):
        found = parse_config(FIT + ha(function="voigt", prior="lorentz_fwhm ~ half_normal(200)")).model.lines[0].kinematics
    assert found.lorentz_fwhm.prior == HalfNormal(200)


def test_priors_of_2018_are_in_angstrom():
    found = line(FIT + BOTH_2018 + "prior: wavelength ~ normal(6564.8, 1.5); sigma ~ log_normal(2, 0.5); flux ~ half_normal(3)\n")
    assert found.amplitude.prior == HalfNormal(3)
    low, mean, high = (velocity_at(6564.8 + step, 6562.8) for step in (-1e-3, 0.0, 1e-3))
    prior = found.kinematics.velocity.prior
    assert prior.mean == pytest.approx(mean)
    assert prior.sigma == pytest.approx(1.5 * (high - low) / 2e-3, rel=1e-7)
    prior = found.kinematics.velocity_dispersion.prior
    assert (prior.median, prior.sigma) == (pytest.approx(2 * C_KMS / 6562.8), 0.5)
    prior = line(FIT + BOTH_2018 + "prior: sigma ~ half_normal(2)\n").kinematics.velocity_dispersion.prior
    assert prior.sigma == pytest.approx(2 * C_KMS / 6562.8)
    assert line(FIT + BOTH_2018 + "prior: amplitude ~ half_normal(3)\n").amplitude.prior == HalfNormal(3)


def test_fixed_features_have_no_priors():
    with pytest.warns(IfujaxWarning, match=r"\[ha\] prior of velocity: no effect here, because the feature is fixed"):
        found = parse_config(FIT + ha(fixed="yes", prior="velocity ~ normal(0, 100)")).model.lines[0]
    assert found.kinematics.velocity.value == 0


GROUP = N2 + "k_group: 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ha(prior="velocity ~ norml(0, 1)"),
            "[ha] prior must be of a known kind, which 'norml' is not; got 'velocity ~ norml(0, 1)'. Did you mean 'normal'? ",
        ),
        (ha(prior="velocty ~ normal(0, 1)"), "[ha] prior: unknown parameter of ha 'velocty'. Did you mean 'velocity'?"),
        (ha(priors="velocity ~ normal(0, 1)"), "[ha]: unknown option 'priors'. Did you mean 'prior'?"),
        (ha(prior="h3 ~ normal(0, 0.1)"), "[ha] prior: unknown parameter of ha 'h3'. Known: amplitude, velocity, sigma."),
        (ha(prior="velocity normal(0, 1)"), "[ha] prior must consist of 'parameter ~ kind(numbers)'"),
        (ha(prior="velocity ~ normal(0, 1), sigma ~ normal(0, 1)"), "with semicolons between"),
        (ha(prior="velocity ~ normal(0, (1))"), "[ha] prior must consist of"),
        (ha(prior=""), "[ha] prior must name a parameter; got ''"),
        (ha(prior=";"), "[ha] prior must name a parameter; got ';'"),
        (ha(prior="velocity ~ normal(0)"), "of the form normal(mean, sigma); got 'velocity ~ normal(0)'. Give 2 numbers."),
        (
            ha(prior="velocity ~ normal(0, a)"),
            "of the form normal(mean, sigma); got 'velocity ~ normal(0, a)'. Correct the numbers.",
        ),
        (ha(prior="velocity ~ normal(0, 1e999)"), "of the form normal(mean, sigma)"),
        (ha(prior="velocity ~ normal(0, -1)"), "with a positive sigma"),
        (ha(prior="sigma ~ log_normal(0, 1)"), "with a positive median"),
        (ha(prior="velocity ~ uniform(0, 1)"), "Remove the numbers."),
        (ha(prior="velocity ~ uniform; velocity ~ normal(0, 1)"), "name each parameter once, and velocity stands there again"),
        (
            ha(prior="sigma ~ uniform; velocity_dispersion ~ uniform"),
            "[ha] prior of sigma must be given once; got it in two spellings",
        ),
        (
            ha(prior="sigma ~ half_normal(1e-3)"),
            "[ha] prior of sigma: prior must have at least 1e-06 of its mass within the bounds [40, 300]",
        ),
        (
            ha(amplitude="-1, -5:-1", prior="amplitude ~ half_normal(1)"),
            "[ha] prior of amplitude: bounds must leave room for the prior",
        ),
        (
            N2 + ha(amplitude="1,, n2 * 3", prior="amplitude ~ half_normal(1)"),
            "[ha] prior of amplitude must belong to a parameter that is fitted; got one that is tied",
        ),
        (ha(velocity="5, 5:5", prior="velocity ~ normal(0, 1)"), "got one that has one value only"),
        (
            GROUP + ha(k_group="0", velocity=None, sigma=None, prior="velocity ~ normal(0, 1)"),
            "[ha] prior of velocity must stand in [n2]",
        ),
        (
            BOTH_2018 + "prior: wavelength ~ half_normal(1)\n",
            "[ha] prior of wavelength must be normal(mean, sigma) in Angstrom, or uniform",
        ),
        (BOTH_2018 + "prior: velocity ~ normal(0, 1)\n", "unknown parameter of ha 'velocity'. Known: flux, wavelength, sigma."),
    ],
)
def test_refusals_name_section_and_option(text, message):
    assert message in refusal(FIT + text)
