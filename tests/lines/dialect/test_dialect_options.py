"""Options beyond the plain Gaussian fit: shapes of lines, refits, single spaxels, widths, compatibility."""

from __future__ import annotations

import pytest

from ifujax.errors import IfujaxWarning
from ifujax.inference.parameter_space.declarations import Bounded, Fixed, Tied
from ifujax.lines.config import FitOptions, Kinematics, VelocityWidthOptions
from ifujax.lines.dialect import parse_config
from tests.lines.dialect.dialect_texts import FIT, HA, N2, config, ha, line, refusal

HERMITE = {"h3": "0.01, -0.19:0.21", "h_4": "0, -0.1:0.2"}


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        ("gaussian", "gaussian"),
        ("Gauss_Hermite", "gauss_hermite"),
        ("gausshermite", "gauss_hermite"),
        ("gauss-hermite", "gauss_hermite"),
        ("lorentz", "lorentzian"),
        ("lorentzian", "lorentzian"),
        ("VOIGT", "voigt"),
    ],
)
@pytest.mark.filterwarnings("ignore::ifujax.errors.IfujaxWarning")
def test_shapes_for_all_lines_or_for_one(written, shape):
    assert parse_config(FIT + f"function: {written}\n" + HA).model.lines[0].shape == shape
    first, second = parse_config(FIT + N2 + ha(function=written)).model.lines
    assert (first.shape, second.shape) == ("gaussian", shape)


def test_hermite_coefficients():
    text = FIT + "function: gauss_hermite\n" + ha(**HERMITE)
    found = line(text).kinematics
    assert found.h3 == Bounded(-0.19, 0.21, start=0.01)
    assert found.h4 == Bounded(-0.1, 0.2, start=0.0)
    tied = N2.replace("[n2]", "[b]") + "h_3: 0.1,, ha\nh4: 0, -0.1:0.1, > ha.h_3 - ha.h3\n"
    found = line(text + tied, "b").kinematics
    assert found.h3 == Tied("ha.h3")
    assert found.h4 == Bounded(-0.1, 0.1, start=0.0, above="ha.h3 - ha.h3")
    assert line(FIT + "function: gauss_hermite\n" + ha(**HERMITE, fixed="yes")).kinematics.h3 == Fixed(0.01)


def test_width_of_the_lorentzian_part():
    found = line(FIT + ha(function="voigt", lorentz_fwhm="30, -5:400")).kinematics
    assert found.lorentz_fwhm == Bounded(0.0, 400.0, start=30.0)
    assert line(FIT + ha(function="voigt", lorentz_fwhm="0")).kinematics.lorentz_fwhm == Bounded(0.0, start=0.0)
    assert "[ha] lorentz_fwhm must not be negative" in refusal(FIT + ha(function="voigt", lorentz_fwhm="-1"))


def test_own_parameters_of_a_shape_have_defaults_which_one_warning_says():
    text = FIT + "function: gauss_hermite\n" + N2 + HA
    with pytest.warns(IfujaxWarning) as caught:
        found = parse_config(text)
    (message,) = [str(item.message) for item in caught]
    assert message.startswith("[n2] h3, [n2] h4, [ha] h3, [ha] h4: not given, so it is fitted from 0 within -0.3:0.3")
    default = Kinematics()
    assert {(item.kinematics.h3, item.kinematics.h4) for item in found.model.lines} == {(default.h3, default.h4)}
    with pytest.warns(IfujaxWarning, match="fixed at 50"):
        fixed = parse_config(FIT + ha(function="voigt", fixed="yes")).model.lines[0].kinematics
    assert fixed.lorentz_fwhm == Fixed(50.0)


def test_members_of_a_group_share_what_their_shapes_have_in_common():
    text = FIT + N2 + "k_group: 0\n" + ha(k_group="0", function="gauss_hermite", velocity=None, sigma=None, **HERMITE)
    b = "[b]\nrest_wavelength: 6583\namplitude: 1, 0:\nk_group: 0\nfunction: gauss_hermite\n"
    n2, first, second = config(text + b).model.lines
    assert n2.kinematics is first.kinematics is second.kinematics
    assert first.kinematics.h3 == Bounded(-0.19, 0.21, start=0.01)
    # [n2] is a Gaussian, so the group's h3 is that of [ha]; its sigma is that of [n2].
    broad = ha(sigma="200, 40:900, > b.sigma", function="gauss_hermite", h3="0,, b.h3", h4="0,, b").replace("[ha]", "[c]")
    kinematics = line(text + b + broad, "c").kinematics
    assert (kinematics.h3, kinematics.h4) == (Tied("ha.h3"), Tied("ha.h4"))
    assert kinematics.velocity_dispersion.above == "n2.velocity_dispersion"
    with pytest.warns(IfujaxWarning, match=r"\[b\] h3: no effect here, because a k_group takes h3 from its first member"):
        parse_config(text + b + "h3: 0.1\n")
    late = text.replace("h3: 0.01, -0.19:0.21\n", "") + b + "h3: 0.1, 0:0.2\n"  # where only a later member says, that counts
    assert line(late).kinematics.h3 == Bounded(0.0, 0.2, start=0.1)


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("fixed: yes", "fixed", True),
        ("monte_carlo: 10", "monte_carlo", 10),
        ("seed: 7", "seed", 7),
        ("guess_parameters: yes", "guess_parameters", True),
        ("trivial: yes", "trivial", True),
        ("test_jacobian: yes", "test_jacobian", True),
        ("minimum_good_fraction: 0.8", "minimum_good_fraction", 0.8),
        ("sig_threshold: 3", "sig_threshold", 3.0),
        ("sig_threshold: no", "sig_threshold", 0.0),
        ("coherence: 4", "coherence", 4.0),
        ("individual_spec: 3,4", "individual_spec", (3, 4)),
        ("individual_spec: PEAK", "individual_spec", "peak"),
        ("individual_spec: cofm", "individual_spec", "cofm"),
        ("individual_spec: no", "individual_spec", None),
        ("ifscube_compat: yes", "ifscube_compat", True),
        ("refit: yes\nrefit_radius: 1.5\nspiral_loop: yes", "refit_radius", 1.5),
        ("refit: yes\nbounds_change = 1, 50, 30", "bounds_change", (1.0, 50.0, 30.0)),
        ("refit: yes\nbounds_change = 1, 50, 30, .1, .1", "bounds_change", (1.0, 50.0, 30.0, 0.1, 0.1)),
        ("refit: yes\nbounds_change = None", "bounds_change", ()),
        ("refit: yes\nupdate_bounds: yes\nbound_range: 0.3", "bound_range", 0.3),
        ("refit: yes\nspiral_center: 2.5, 3", "spiral_center", (2.5, 3.0)),
        ("refit: yes\nspiral_center: cofm", "spiral_center", "cofm"),
        ("coherence: 4\nspiral_center: cofm\nrefit_radius: 2", "spiral_center", "cofm"),
        ("refit: yes\nspiral_loop: yes", "spiral_loop", True),
        ("verbose: yes\n[minimization]\ndisp: yes", "disp", True),
    ],
)
def test_options_of_the_fit(written, field, value):
    text = FIT.replace("verbose: no\n", "") + written + "\n" + HA
    assert getattr(config(text).fit, field) == value
    assert getattr(config(FIT + HA).fit, field) == getattr(FitOptions(), field)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("bound_range: 0.2", "only 'update_bounds: yes' uses it"),
        ("refit: yes\nupdate_bounds: yes\nbounds_change: 1, 2, 3", "bounds_change says how"),
        ("update_bounds: yes\ncoherence: 4", "refit is off"),
        ("refit_radius: 4", "both are off"),
        ("refit: yes\nifscube_compat: yes\nspiral_center: peak", "only 'spiral_loop: yes' uses it"),
        ("nan_spaxels: all\n[loading]\nnan_spaxels: any", "says otherwise"),
    ],
)
def test_options_that_need_others(written, message):
    with pytest.warns(IfujaxWarning, match=message):
        parse_config(FIT + written + "\n" + HA)


def test_loading():
    found = config(
        FIT
        + "nan_spaxels: any\n[loading]\nvortab: 5\nspectral_dimension: 1\nerror: ERR, 2\nflag_bits: 3\ninstrument: MaNGA\n"
        + HA
    )
    found = found.loading
    assert (found.nan_spaxels, found.vortab, found.wcs_axis, found.error) == ("any", 5, 1, "ERR, 2")
    assert (found.flag_bits, found.instrument) == (3, "manga")
    for word, value in (("all", "all"), ("other", None), ("none", None)):
        assert config(FIT + f"[loading]\nnan_spaxels: {word}\n" + HA).loading.nan_spaxels == value


def test_equivalent_width():
    found = config(FIT + "[equivalent_width]\nsigma_factor: 3\n" + ha(continuum_windows="6480, 6530, 6600, 6670"))
    assert found.equivalent_width.sigma_factor == 3.0
    assert found.model.lines[0].continuum_windows == (6480.0, 6530.0, 6600.0, 6670.0)
    assert config(FIT + ha(continuum_windows="None")).model.lines[0].continuum_windows is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", VelocityWidthOptions((("n2",), ("ha",), ("a+b",)))),
        ("lines: ha", VelocityWidthOptions((("ha",),))),
        ("lines: ha+n2 , [ha]\nwidth: 50", VelocityWidthOptions((("ha", "n2"), ("ha",)), 50.0)),
        ("lines: a+b + ha,", VelocityWidthOptions((("a+b", "ha"),))),
    ],
)
def test_velocity_widths(written, expected):
    found = config(FIT + "[velocity_width]\n" + written + "\n" + N2 + HA + HA.replace("[ha]", "[a+b]"))
    assert found.velocity_width == expected
    assert config(FIT + HA).velocity_width is None


def test_compatibility_changes_defaults_but_not_what_is_said():
    found = config(FIT + "ifscube_compat: yes\n" + HA)
    assert (found.model.profile, found.continuum.mode) == ("sampled", "rejection")
    found = config(FIT + "ifscube_compat: yes\nprofile: integrated\n[continuum]\nmode: joint\n" + HA)
    assert (found.model.profile, found.continuum.mode) == ("integrated", "joint")


def test_guesses_by_word_keep_the_word():
    for word in ("peak", "mean", "median"):
        assert line(FIT + ha(amplitude=f"{word}, 0:")).amplitude == Bounded(0.0, start=word)
        assert line(FIT + ha(amplitude=None, flux=word)).flux == Bounded(start=word)
