"""Configuration files: what is understood, what is refused, and in which words."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference.parameter_space.declarations import Bounded, Fixed, Tied
from ifujax.lines.config import LSF
from ifujax.lines.dialect import parse_config, read_config
from ifujax.lines.dialect.assembly import MULTI_STARTS
from ifujax.lines.dialect.options import FEATURE_OPTIONS, OPTIONS
from tests.lines.dialect.dialect_texts import FIT, HA, N2, config, ha, line, refusal
from tests.reference import reference_data

# --- what is understood -------------------------------------------------------------------------


def test_the_smallest_file():
    found = config(FIT + HA)
    assert found.fit.window == (6450.0, 6650.0)
    assert found.fit.optimization_window == 10.0
    assert found.model.continuum_degree == 6
    assert found.model.profile == "integrated"
    assert found.continuum.mode == "joint"
    (only,) = found.model.lines
    assert only.amplitude == Bounded(0.0, start="peak")
    assert only.flux is None
    assert only.kinematics.velocity == Bounded(-300, 300, start=0.0)
    assert only.kinematics.velocity_dispersion == Bounded(40, 300, start=100.0)
    assert found.text["ha.sigma"] == "100, 40:300"


def test_all_sections_are_honoured(tmp_path):
    (tmp_path / "weights.txt").write_text("# low high weight\n6400 6500 2\n\n6545 6573 0\n")
    (tmp_path / "lsf.txt").write_text("4000 2.9\n9000 2.4\n")
    path = tmp_path / "all.cfg"
    path.write_text(
        """
[fit]
function = Gaussian
fit_continuum = on
optimize_fit = TRUE
optimization_window = 3
verbose = yes
writefits = no
outimage = out%%1.fits
suffix = _fit
overwrite = no
method = trust-constr
instrument_dispersion = 2.3
profile = sampled
starts = 4
scale_errors = yes
lsf = table lsf.txt
refit = no
monte_carlo = 0
individual_spec = no
[loading]
scidata: SCI
primary: 0
ivar: IVAR
variance: None
redshift: 0.01
wcs_axis: 3
flags_zero_is_bad: yes
spatial_mask: MASK, 2
nan_spaxels: all
[minimization]
ftol: 1e-8
maxiter: 40
disp: no
[continuum]
mode: rejection
degr: 2
niterate: 3
lower_threshold: 1.5
upper_threshold: 2.5
line_weight: 0
weights: weights.txt
[equivalent_width]
sigma_factor: 5
"""
        + HA
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_config(path)
    assert found.source == path
    assert (found.fit.optimize_fit, found.fit.optimization_window, found.fit.instrument_dispersion) == (True, 3.0, 2.3)
    assert (found.fit.starts, found.fit.scale_errors, found.fit.max_iter, found.fit.tolerance) == (4, True, 40, 1e-8)
    assert (found.output.write_fits, found.output.out_image, found.output.suffix) == (False, "out%1.fits", "_fit")
    assert found.output.overwrite is False
    assert found.model.profile == "sampled"
    assert found.model.lsf == LSF.table([4000, 9000], [2.9, 2.4])
    assert found.model.continuum_degree == 2
    assert (found.continuum.mode, found.continuum.n_iterate, found.continuum.line_weight) == ("rejection", 3, 0.0)
    assert found.continuum.weights == ((6400, 6500, 2), (6545, 6573, 0))
    assert (found.loading.primary, found.loading.ivar, found.loading.variance) == (0, "IVAR", None)
    assert (found.loading.redshift, found.loading.wcs_axis, found.loading.spatial_mask) == (0.01, 3, "MASK, 2")
    assert found.loading.flags_zero_is_bad is True


def test_no_continuum():
    found = config(FIT.replace("fit_continuum: yes", "fit_continuum: no") + "[continuum]\ndegree: 3\n" + HA)
    assert found.continuum.mode == "none"
    assert found.model.continuum_degree is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.5", LSF.constant(2.5)),
        ("constant 2.5", LSF.constant(2.5)),
        ("polynomial 2.6, -1e-5 @ 7000", LSF.polynomial([2.6, -1e-5], 7000)),
        ("polynomial 2.6", LSF.polynomial([2.6])),
        ("none", None),
    ],
)
def test_lsf(text, expected):
    assert config(FIT + f"lsf: {text}\n" + HA).model.lsf == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Bounded(start=0.0)),
        ("0,", Bounded(start=0.0)),
        ("0, -300:+300", Bounded(-300, 300, start=0.0)),
        ("-.5e1, -1e2:", Bounded(-100, start=-5.0)),
        ("0, :50,", Bounded(upper=50, start=0.0)),
        ("0, :", Bounded(start=0.0)),
        ("0, -inf:inf", Bounded(start=0.0)),
        ("10, +- 200", Bounded(-190, 210, start=10.0)),
        ("10,+-200", Bounded(-190, 210, start=10.0)),
        ("10, 10:10", Fixed(10.0)),
        ("0, , < 200", Bounded(upper=200, start=0.0)),
        ("0,,<200", Bounded(upper=200, start=0.0)),
        ("0, -300:300, > -50", Bounded(-50, 300, start=0.0)),
        ("0, -300:300, <= 5 * (4 + 6)", Bounded(-300, 50, start=0.0)),
        ("0, -300:300, 12", Fixed(12.0)),
        ("0, -300:300, n2.velocity", Tied("n2.velocity", -300, 300)),
        ("0,, n2", Tied("n2.velocity")),
        ("0,,[n2]", Tied("n2.velocity")),
        ("0,, [n2].velocity+10", Tied("n2.velocity + 10.0")),
        ("0,, [ n2.velocity ] * 2", Tied("n2.velocity * 2.0")),
        ("0, -9:9, <n2", Bounded(-9, 9, start=0.0, below="n2.velocity")),
        ("0, -9:9, > 2*(n2.velocity-n2.sigma)", Bounded(-9, 9, start=0.0, above="2.0 * (n2.velocity - n2.velocity_dispersion)")),
        ("0,, max(n2, n2.sigma)", Tied("max (n2.velocity, n2.velocity_dispersion)")),
    ],
)
def test_triples(text, expected):
    assert line(FIT + N2 + ha(velocity=text)).kinematics.velocity == expected


@pytest.mark.parametrize("word", ["peak", "mean", "Median"])
def test_amplitude_by_word(word):
    assert line(FIT + ha(amplitude=f"{word}, 0:1e-13,")).amplitude == Bounded(0, 1e-13, start=word.lower())


def test_amplitude_tie_keeps_bounds_and_flux_is_ours():
    found = line(FIT + N2 + ha(amplitude="peak, 0:1e-13, n2 * 3.06"))
    assert found.amplitude == Tied("n2.amplitude * 3.06", 0, 1e-13)
    found = line(FIT + ha(amplitude=None, flux="2, 0:"))
    assert (found.flux, found.amplitude) == (Bounded(0, start=2.0), None)


def test_sigma_never_reaches_zero():
    for text in ("100", "100, 0:300", "100, :300", "100, +- 200"):
        assert line(FIT + ha(sigma=text)).kinematics.velocity_dispersion.lower == 1.0
    assert line(FIT + ha(sigma="100, 0.2:300")).kinematics.velocity_dispersion.lower == 0.2


def test_groups_share_one_object_and_names_lead_to_the_first_member():
    text = (
        FIT
        + N2
        + "k_group: 0\n"
        + ha(velocity=None, sigma=None, k_group="0")
        + """
[broad]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0
sigma: 200, 40:900, > ha.sigma
"""
    )
    n2, first, broad = config(text).model.lines
    assert n2.kinematics is first.kinematics
    assert broad.kinematics is not first.kinematics
    assert broad.kinematics.velocity_dispersion.above == "n2.velocity_dispersion"


def test_lines_without_group_are_independent():
    n2, first = config(FIT + N2 + HA).model.lines
    assert n2.kinematics is not first.kinematics


def test_names_of_features():
    text = FIT + "[O-III 5007]\n" + N2.split("]", 1)[1] + ha(amplitude="peak, 0:, O-III 5007.amplitude / 3 - O-III 5007")
    assert line(text).amplitude.expression == "O-III 5007.amplitude / 3.0 - O-III 5007.amplitude"
    assert line(text.replace("O-III 5007", "3")).amplitude == Tied("3.amplitude / 3.0 - 3.0", 0.0)


def test_fixed_features_share_one_scale():
    text = (
        FIT
        + ha(amplitude="2, 0:9", fixed="yes")
        + "[b]\nrest_wavelength: 6583\namplitude: 5\nvelocity: 10, 0:20\nsigma: 90\nfixed: yes\n"
        + N2
    )
    first, b, n2 = config(text).model.lines
    assert first.amplitude == Bounded(0, 9, start=2.0)
    assert (first.kinematics.velocity, first.kinematics.velocity_dispersion) == (Fixed(0), Fixed(100))
    assert b.amplitude == Tied("ha.amplitude * 2.5")
    assert b.kinematics.velocity == Fixed(10)
    assert isinstance(n2.kinematics.velocity, Bounded)
    words = config(text.replace("amplitude: 2, 0:9", "amplitude: peak").replace("amplitude: 5", "amplitude: peak"))
    assert words.model.lines[1].amplitude == Tied("ha.amplitude * 1.0")


def test_fixed_member_of_a_free_group_stays_at_the_guess_of_the_first():
    text = FIT + N2 + "k_group: 1\n" + ha(velocity=None, sigma=None, k_group="1", fixed="yes", amplitude="2")
    n2, first = config(text).model.lines
    assert isinstance(n2.kinematics.velocity, Bounded)
    assert (first.kinematics.velocity, first.kinematics.velocity_dispersion) == (Fixed(0), Fixed(100))


def test_default_section_goes_where_its_options_are_known():
    found = config(
        "[DEFAULT]\nsigma: 100, 40:300\nfit_continuum: no\n" + FIT.replace("fit_continuum: yes\n", "") + ha(sigma=None)
    )
    assert found.continuum.mode == "none"
    assert found.model.lines[0].kinematics.velocity_dispersion == Bounded(40, 300, start=100)


def test_comments_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.cfg"
    path.write_bytes(b"\xef\xbb\xbf# caf\xc3\xa9\r\n" + (FIT + HA).replace("\n", "\r\n").encode())
    assert read_config(path).fit.window == (6450.0, 6650.0)
    path.write_bytes(b"; caf\xe9\n" + (FIT + HA).encode())
    assert read_config(str(path)).model.names == ("ha",)


def test_weights_fall_back_to_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "w.txt").write_text("1 2 3\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.cfg").write_text(FIT + "[continuum]\nweights: w.txt\n" + HA)
    monkeypatch.chdir(tmp_path)
    assert read_config("sub/a.cfg").continuum.weights == ((1, 2, 3),)


SHIPPED = [
    "halpha_cube.cfg",
    "halpha_cube_gh.cfg",
    "halpha_gauss.cfg",
    "halpha_gh.cfg",
    "ngc6300_nuc.cfg",
    "whole_spectrum.cfg",
    "ifscube/halpha_cube__ngc3081.cfg",
    "ifscube/halpha_cube_gh_norefit.cfg",
    "ifscube/halpha_cube_noconstr.cfg",
    "ifscube/halpha_gauss__manga.cfg",
    "ifscube/halpha_gauss_ngc6300.cfg",
    "ifscube/minicube_a478.cfg",
]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.filterwarnings("ignore::ifujax.errors.IfujaxWarning")
def test_shipped_files_are_read(name):
    found = read_config(reference_data("line_fitting", *name.split("/")))
    assert len(found.model.lines) >= 3
    hermite = "_gh" in name
    assert {item.shape for item in found.model.lines} == {"gauss_hermite" if hermite else "gaussian"}
    for item in found.model.lines:
        assert item.kinematics.velocity_dispersion.lower >= 40
        assert not hermite or item.kinematics.h3 == item.kinematics.h4 == Bounded(-0.2, 0.2, start=0.0)


# --- what has no effect -------------------------------------------------------------------------


def test_options_without_effect_warn_once_for_each_reason():
    text = FIT + "spiral_loop: yes\nspiral_center: cofm\nrefit_radius: 2\ndebug: yes\n"
    text += "[minimization]\neps: 1e-3\nworkers: 2\nftol: 1e-4\npopsize: 20\nseed: 3\npolish: yes\n"
    text += "[loading]\nweights: W\n" + N2 + "h3: 0\n" + HA + "h_3: 0\n"
    with pytest.warns(IfujaxWarning) as caught:
        found = parse_config(text)
    messages = [str(item.message) for item in caught]
    assert len(messages) == 9
    for part in [
        "[fit] spiral_loop, [fit] spiral_center: no effect here, because without refit",
        "[fit] refit_radius: no effect here",
        "[fit] debug: no effect",
        "[minimization] eps: no effect",
        "[minimization] popsize, [minimization] seed, [minimization] polish: no effect",
        "[minimization] ftol: no effect",
        "[loading] weights: no effect here, because weights beside a variance make chi2 and the errors wrong",
        "[n2] h3, [ha] h3: no effect here, because only gauss_hermite lines have it",
    ]:
        assert sum(part in message for message in messages) == 1, part
    assert found.fit.tolerance == 1e-6


@pytest.mark.parametrize(
    "option",
    [
        "refit: no",
        "monte_carlo: 0",
        "spiral_loop: no",
        "trivial: no",
        "test_jacobian: off",
        "debug: no",
        "update_bounds: no",
        "individual_spec: no",
    ],
)
def test_options_that_ask_for_nothing_are_silent(option):
    config(FIT + option + "\n" + HA)


def test_differential_evolution_becomes_multi_start():
    with pytest.warns(IfujaxWarning, match="starts from"):
        assert parse_config(FIT + "method: differential_evolution\n" + HA).fit.starts == MULTI_STARTS
    assert config(FIT + "method: differential_evolution\nstarts: 3\n" + HA).fit.starts == 3


def test_other_warnings():
    with pytest.warns(IfujaxWarning, match="first guess lies outside"):
        found = parse_config(FIT + ha(sigma="30, 40:300"))
    assert found.model.lines[0].kinematics.velocity_dispersion.start == 40
    with pytest.warns(IfujaxWarning, match="first member"):
        parse_config(FIT + N2 + "k_group: 0\n" + ha(k_group="0", sigma="50, 40:300"))
    with pytest.warns(IfujaxWarning, match="fixed: yes"):
        parse_config(FIT + N2 + ha(amplitude="1, 0:, n2", fixed="yes"))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["section for each spectral feature"]),
        ("fit_continuum: yes\n", ["line 1", "[fit]"]),
        (FIT, ["section for each spectral feature"]),
        (FIT + HA + FIT, ["sections must be unique", "[fit]"]),
        (FIT + "verbose: yes\n" + HA, ["[fit]", "once", "'verbose'"]),
        (FIT + "outimage: a\nout_image: b\n" + HA, ["[fit] out_image", "two spellings"]),
        (FIT + "no value here\n" + HA, ["line 7", "no value here"]),
        (FIT + "fiting_window: 1:2\n" + HA, ["[fit]", "'fiting_window'", "Did you mean 'fitting_window'"]),
        (FIT + "[loading]\nvarience: ERR\n" + HA, ["[loading]", "'varience'", "Did you mean 'variance'"]),
        (FIT + ha(sigm="1"), ["[ha]", "'sigm'", "Did you mean 'sigma'"]),
        (FIT + ha(wavelength="1"), ["[ha]", "rest_wavelength", "wavelength", "both"]),
        (FIT + "[minimisation]\neps: 1\n" + HA, ["[minimisation]", "Did you mean 'minimization'"]),
        (FIT + "[Loading]\nvariance: ERR\n" + HA, ["[Loading]", "[loading]", "capital"]),
        ("[DEFAULT]\nsigmo: 3\n" + FIT + HA, ["[DEFAULT]", "'sigmo'", "Did you mean 'sigma'"]),
        (FIT + "profile: round\n" + HA, ["[fit] profile", "integrated or sampled", "'round'"]),
        (FIT + "method: powell\n" + HA, ["[fit] method", "slsqp"]),
        (FIT + "function: triangle\n" + HA, ["[fit] function", "gaussian"]),
        (FIT + "lsf: wide\n" + HA, ["[fit] lsf", "constant 2.5"]),
        (FIT + "lsf: constant -1\n" + HA, ["[fit] lsf"]),
        (FIT + "lsf: table nowhere.txt\n" + HA, ["[fit] lsf", "must exist"]),
        (FIT + "starts: 0\n" + HA, ["[fit] starts", "1 or more"]),
        (FIT + "starts: 1.5\n" + HA, ["[fit] starts", "integer"]),
        (FIT + "overwrite: perhaps\n" + HA, ["[fit] overwrite", "yes or no", "'perhaps'"]),
        (FIT + "optimization_window: 3 # sigma\n" + HA, ["[fit] optimization_window", "lines of their own"]),
        (FIT + "optimization_window: nan\n" + HA, ["[fit] optimization_window"]),
        (FIT.replace("6450:6650", "6650:6450") + HA, ["[fit] fitting_window", "low:high"]),
        (FIT.replace("6450:6650", "6650") + HA, ["[fit] fitting_window", "low:high"]),
        (FIT + "[loading]\nvariance: A\nerror: B\n" + HA, ["[loading]", "variance and error"]),
        (FIT + "[loading]\nredshift: -1\n" + HA, ["[loading] redshift"]),
        (FIT + "[continuum]\ndegree: -1\n" + HA, ["[continuum] degree"]),
        (FIT + "[continuum]\nmode: both\n" + HA, ["[continuum] mode", "joint or rejection"]),
        (FIT + "[continuum]\nweights: nowhere.txt\n" + HA, ["[continuum] weights", "must exist", "nowhere.txt"]),
        (FIT + "[minimization]\nmaxiter: 0\n" + HA, ["[minimization] maxiter"]),
        (FIT + "monte_carlo: -1\n" + HA, ["[fit] monte_carlo", "0 or more"]),
        (FIT + "individual_spec: 3\n" + HA, ["[fit] individual_spec", "peak, cofm"]),
        (FIT + "individual_spec: 3, -4\n" + HA, ["[fit] individual_spec", "integers from 0"]),
        (FIT + "individual_spec: 3.5, 4\n" + HA, ["[fit] individual_spec", "integers from 0"]),
        (FIT + "spiral_center: middle\n" + HA, ["[fit] spiral_center", "peak, cofm"]),
        (FIT + "bounds_change: 1, 50\n" + HA, ["[fit] bounds_change", "3 or 5"]),
        (FIT + "bounds_change: 1, 50, 0\n" + HA, ["[fit] bounds_change", "positive"]),
        (FIT + "minimum_good_fraction: 80\n" + HA, ["[fit] minimum_good_fraction", "0 to 1"]),
        (FIT + "nan_spaxels: some\n" + HA, ["[fit] nan_spaxels", "all or any or other"]),
        (FIT + "intrinsic_sigma_constr: yes\n" + HA, ["[fit] intrinsic_sigma_constr", "With lsf"]),
        (FIT + ha(h3="0, +- x"), ["[ha] h3", "low:high"]),
        (FIT + ha(continuum_windows="1, 2, 4"), ["[ha] continuum_windows", "blue0, blue1, red0, red1"]),
        (FIT + ha(continuum_windows="1, 2, 4, 3"), ["[ha] continuum_windows", "ascending"]),
        (FIT + "[equivalent_width]\nsigma_factor: -3\n" + HA, ["[equivalent_width] sigma_factor", "positive"]),
        (FIT + "[velocity_width]\nwidth: 100\n" + HA, ["[velocity_width] width", "between 0 and 100"]),
        (FIT + "[velocity_width]\nlines: ha + hb\n" + HA, ["[velocity_width] lines", "'hb'", "Did you mean 'ha'"]),
        (FIT + "[velocity_width]\nlines: ha,, ha\n" + HA, ["[velocity_width] lines", "''"]),
        (FIT + "[velocity_width]\nlines: ha +\n" + HA, ["[velocity_width] lines", "''"]),
        (FIT + "[velocity_width]\nlines: ha + ha\n" + HA, ["[velocity_width] lines", "once"]),
        (FIT + ha(rest_wavelength=None), ["[ha]", "rest_wavelength"]),
        (FIT + ha(rest_wavelength="abc"), ["[ha] rest_wavelength", "positive number", "'abc'"]),
        (FIT + ha(amplitude=None), ["[ha]", "amplitude or flux", "none"]),
        (FIT + ha(flux="1"), ["[ha]", "amplitude or flux", "both"]),
        (FIT + ha(velocity=None), ["[ha] velocity", "k_group"]),
        (FIT + ha(k_group="first"), ["[ha] k_group", "integer"]),
        (FIT + ha(velocity="fast"), ["[ha] velocity", "number", "'fast'"]),
        (FIT + ha(velocity="peak"), ["[ha] velocity", "number", "'peak'"]),
        (FIT + ha(amplitude="pike, 0:"), ["[ha] amplitude", "peak, mean, median"]),
        (FIT + ha(velocity="0, 300"), ["[ha] velocity", "low:high"]),
        (FIT + ha(velocity="0, 300:-300"), ["[ha] velocity", "lower bound below"]),
        (FIT + ha(velocity="0, +- x"), ["[ha] velocity", "low:high"]),
        (FIT + ha(velocity="0, +- 0"), ["[ha] velocity", "positive number after +-"]),
        (FIT + ha(amplitude="peak, +- 5"), ["[ha] amplitude", "guess is a word"]),
        (FIT + ha(velocity="0\n  sigma: 3"), ["[ha] velocity", "\\n"]),
        (FIT + ha(sigma="-5"), ["[ha] sigma", "positive"]),
        (FIT + ha(sigma="5, -2:0"), ["[ha] sigma", "positive"]),
        (FIT + N2 + ha(amplitude="1,, n3.amplitude"), ["[ha] amplitude", "'n3'", "Did you mean 'n2'"]),
        (FIT + N2 + ha(amplitude="1,, [n3]"), ["[ha] amplitude", "'n3'", "Did you mean 'n2'"]),
        (FIT + N2 + ha(amplitude="1,, n2.amplitud * 2"), ["[ha] amplitude", "'amplitud'", "Did you mean 'amplitude'"]),
        (FIT + N2 + ha(amplitude="1,, n2.flux"), ["[ha] amplitude", "'flux'", "amplitude"]),
        (FIT + N2 + ha(amplitude="1,, 2 *"), ["[ha] amplitude", "arithmetic"]),
        (FIT + N2 + ha(amplitude="1,, 2 n2"), ["[ha] amplitude", "arithmetic"]),
        (FIT + N2 + ha(amplitude="1,, n2 % 2"), ["[ha] amplitude", "arithmetic", "'%'"]),
        (FIT + N2 + ha(amplitude="1,, (n2"), ["[ha] amplitude", "arithmetic"]),
        (FIT + N2 + ha(amplitude="1,, n2 / 0"), ["[ha] amplitude", "divide by zero"]),
        (FIT + N2 + ha(amplitude="1,, 1e999"), ["[ha] amplitude"]),
        (FIT + N2 + ha(amplitude="1,, (0 - 1) ** 0.5"), ["[ha] amplitude", "finite"]),
        (FIT + N2 + ha(amplitude="1,, " + "(" * 290 + "n2" + ")" * 290), ["[ha] amplitude", "300"]),
        (FIT + N2 + ha(amplitude="1,, " + "-" * 280 + "n2"), ["[ha] amplitude", "signs in a row"]),
        (FIT + N2 + ha(amplitude="1,, <"), ["[ha] amplitude"]),
        (FIT + ha(velocity="0,, >"), ["[ha] velocity", "compare"]),
        (FIT + ha(velocity="0, -9:9, > 10"), ["[ha] velocity", "within its bounds"]),
        (FIT + ha(velocity="0, -9:9, 10"), ["[ha] velocity", "within its bounds"]),
        (FIT + HA.replace("[ha]", "[h.a]"), ["'h.a'", "periods"]),
        (FIT + HA.replace("[ha]", "[Hα]"), ["'Hα'", "ASCII"]),
        (FIT + N2 + "k_group: 0\n" + ha(k_group="0", sigma="9,, < n2"), ["[ha] sigma", "[n2]"]),
        (FIT + N2 + "k_group: 0\nfixed: yes\n" + ha(k_group="0"), ["[n2] fixed", "[ha]"]),
        (FIT + N2 + "fixed: yes\n" + ha(fixed="yes", amplitude="3"), ["[ha] amplitude", "ratio to [n2]"]),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_remedy(text, parts):
    message = refusal(text)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("first", "second", "trail"),
    [
        ("1,, ha", "1,, n2.amplitude / 2", "n2.amplitude -> ha.amplitude -> n2.amplitude"),
        ("1", "1,, ha + n2", "ha.amplitude -> ha.amplitude"),
        ("1,, < ha", "1,, < n2", "n2.amplitude -> ha.amplitude -> n2.amplitude"),
    ],
)
def test_cycles(first, second, trail):
    message = refusal(FIT + N2.replace("peak, 0:", first) + ha(amplitude=second))
    assert trail in message
    assert "] amplitude" in message


def test_cycle_through_a_group():
    text = (
        FIT + N2.replace("100, 40:300", "100, 40:300, > ha.sigma") + "k_group: 0\n" + ha(velocity=None, sigma=None, k_group="0")
    )
    assert "[n2] sigma" in refusal(text)


@pytest.mark.parametrize(
    ("rows", "part"),
    [("1 2\n", "line 1"), ("1 2 3\n\n1 two 3\n", "line 3"), ("2 1 3\n", "low < high"), ("# none\n", "empty file")],
)
def test_bad_weights(tmp_path, rows, part):
    (tmp_path / "w.txt").write_text(rows)
    (tmp_path / "a.cfg").write_text(FIT + "[continuum]\nweights: w.txt\n" + HA)
    with pytest.raises(UsageError, match=part) as caught:
        read_config(tmp_path / "a.cfg")
    assert "[continuum] weights" in str(caught.value)


def test_files_that_are_no_configuration(tmp_path):
    (tmp_path / "halpha.cfg").write_text("")
    with pytest.raises(UsageError, match="got none"):
        read_config(tmp_path / "halpha.cfg")
    with pytest.raises(UsageError, match=r"Did you mean 'halpha\.cfg'"):
        read_config(tmp_path / "halfa.cfg")
    with pytest.raises(UsageError, match="readable"):
        read_config(tmp_path)
    with pytest.raises(UsageError, match="readable"):
        read_config("a\0b")
    (tmp_path / "cube.fits").write_bytes(b"SIMPLE  =                    T" + bytes(2880))
    with pytest.raises(UsageError, match="a FITS file"):
        read_config(tmp_path / "cube.fits")
    with pytest.raises(UsageError, match="binary"):
        parse_config("[fit]\0")


def test_messages_name_the_file(tmp_path):
    (tmp_path / "a.cfg").write_text(FIT + "refit: maybe\n" + HA)
    with pytest.raises(UsageError, match=r"a\.cfg: \[fit\] refit must"):
        read_config(tmp_path / "a.cfg")


def test_the_documentation_names_every_option():
    page = (Path(__file__).parents[3] / "docs" / "configuration.rst").read_text()
    for table in (*OPTIONS.values(), FEATURE_OPTIONS):
        for name, option in table.items():
            for spelling in (name, *option.spellings):
                assert f"``{spelling}``" in page, spelling
