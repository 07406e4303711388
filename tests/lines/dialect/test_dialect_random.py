"""Configurations nobody thought of: what is written comes back, and any text is read or refused."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ifujax.errors import IfujaxWarning, UsageError
from ifujax.inference.parameter_space.declarations import Bounded, Declaration, Fixed, Tied
from ifujax.inference.parameter_space.priors import HalfNormal, LogNormal, Normal
from ifujax.lines.config import (
    SHAPE_PARAMETERS,
    ContinuumOptions,
    EmissionModel,
    EquivalentWidthOptions,
    FitOptions,
    Kinematics,
    Line,
    LineFitConfig,
    LoadingOptions,
    OutputOptions,
    VelocityWidthOptions,
)
from ifujax.lines.dialect import parse_config
from ifujax.lines.dialect.of_2018 import wavelength_at, width_of
from tests.lines.dialect.dialect_texts import FIT, N2, ha
from tests.reference import ROOT

FIXED_PROFILE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
FILE_NAMES = {"velocity_dispersion": "sigma"}

# --- random configurations ----------------------------------------------------------------------

name = st.text("abcxyz0189_ +-'()|", min_size=1, max_size=6).map(str.strip).filter(lambda text: text[:1].isalnum())


@st.composite
def bounded(draw, low: float, high: float, others: list[str], words: bool = False) -> Declaration:
    """A declaration within ``low:high``, perhaps tied to or limited by `others`."""
    share = st.integers(0, 999)
    ends = sorted(low + (high - low) * k / 999 for k in draw(st.tuples(share, share).filter(lambda pair: pair[0] != pair[1])))
    other = draw(st.sampled_from([None, None, *others]))
    kind = draw(st.sampled_from(["free", "free", "above", "below", "tied", "fixed"]))
    if kind == "fixed":
        return Fixed(ends[0])
    start = ends[0] + (ends[1] - ends[0]) * draw(share) / 1000
    start = draw(st.sampled_from(["peak", "mean", "median", start])) if words else start
    lower = -float("inf") if low < 0 and draw(st.booleans()) else ends[0]
    upper = float("inf") if draw(st.booleans()) else ends[1]
    width = ends[1] - ends[0]
    priors = [Normal(ends[0], width), Normal(ends[1] + width, 0.5 * width)]
    if ends[0] > 0:
        priors += [HalfNormal(ends[1]), LogNormal(ends[0], 2.0)]
    prior = draw(st.sampled_from([None, None, *priors]))
    if other is None or kind == "free":
        return Bounded(lower, upper, start, prior=prior)
    expression = draw(st.sampled_from(["{}", "{} * 2.5", "0.5 * ({} + 1.0)", "max ({}, 3.0) ** 2.0"])).format(other)
    if kind == "tied":
        return Tied(expression, lower, upper)
    return replace(Bounded(lower, upper, start, prior=prior), **{kind: expression})


@st.composite
def lines(draw, ties: bool = True) -> tuple[Line, ...]:
    """Lines in up to three groups; what one declares may depend on those before it."""
    names = draw(st.lists(name, min_size=1, max_size=5, unique=True))
    groups: dict[int, tuple[Kinematics, str]] = {}
    owned: dict[str, list[str]] = {}  # parameters that exist already, by kind
    made: list[Line] = []
    for number, each in enumerate(names):
        shape = draw(st.sampled_from(sorted(SHAPE_PARAMETERS))) if ties else "gaussian"
        group = draw(st.integers(0, 2))
        if group not in groups:
            parameters = {}
            for parameter, low, high in (
                ("velocity", -900.0, 900.0),
                ("velocity_dispersion", 2.0, 900.0),
                ("h3", -0.4, 0.4),
                ("h4", -0.4, 0.4),
                ("lorentz_fwhm", 0.0, 900.0),
            ):
                others = owned.get(parameter, []) if ties else []
                parameters[parameter] = draw(bounded(low, high, others))
                if parameter in SHAPE_PARAMETERS[shape]:
                    owned.setdefault(parameter, []).append(f"{each}.{parameter}")
            # Only what the first member's shape has is written; later members of other shapes use the defaults.
            groups[group] = Kinematics(**{k: v for k, v in parameters.items() if k in SHAPE_PARAMETERS[shape]}), shape
        kinematics, shape = groups[group]
        kind = draw(st.sampled_from(["amplitude", "flux"])) if ties else "amplitude"
        strength = draw(bounded(-5.0, 900.0, owned.get(kind, []) if ties else [], words=True))
        owned.setdefault(kind, []).append(f"{each}.{kind}")
        windows = draw(st.sampled_from([None, (6480.0, 6530.0, 6600.0, 6670.5)]))
        rest = 6500.0 + 20.5 * number
        made.append(Line(each, rest, kinematics, **{kind: strength}, shape=shape, continuum_windows=windows))
    return tuple(made)


positive = st.floats(1e-3, 1e3)
fit_options = st.builds(
    FitOptions,
    window=st.sampled_from([None, (6450.0, 6650.25)]),
    optimize_fit=st.booleans(),
    optimization_window=positive,
    starts=st.integers(1, 30),
    max_iter=st.integers(1, 500),
    tolerance=st.floats(1e-11, 1e-6),
    scale_errors=st.booleans(),
    instrument_dispersion=positive,
    fixed=st.booleans(),
    guess_parameters=st.booleans(),
    trivial=st.booleans(),
    test_jacobian=st.booleans(),
    minimum_good_fraction=st.floats(0, 1),
    sig_threshold=st.floats(0, 10),
    individual_spec=st.sampled_from([None, "peak", "cofm", (0, 12)]),
    refit=st.just(True),
    refit_radius=positive,
    bounds_change=st.sampled_from([(), (1.0, 50.0, 30.0), (1.0, 50.0, 30.0, 0.1, 0.2)]),
    spiral_center=st.sampled_from([None, "peak", "cofm", (1.5, 20.0)]),
    spiral_loop=st.just(True),
    coherence=st.floats(0, 20),
    monte_carlo=st.integers(0, 100),
    seed=st.integers(0, 10**6),
    ifscube_compat=st.booleans(),
    verbose=st.booleans(),
    disp=st.booleans(),
)
hdu = st.sampled_from([None, 1, "SCI", "DATA, 2"])
loading = st.builds(
    LoadingOptions,
    scidata=hdu,
    primary=hdu,
    error=hdu,
    flags=hdu,
    stellar=hdu,
    wavelength=hdu,
    redshift=st.none() | st.floats(-0.5, 9),
    wcs_axis=st.sampled_from([None, 1, 3]),
    spatial_mask=hdu,
    flags_zero_is_bad=st.booleans(),
    nan_spaxels=st.sampled_from([None, "all", "any"]),
    vortab=hdu,
    flag_bits=st.sampled_from([None, 1, 6]),
    instrument=st.sampled_from([None, "muse", "gmos"]),
)
continuum = st.builds(
    ContinuumOptions,
    mode=st.sampled_from(["joint", "rejection"]),
    n_iterate=st.integers(0, 9),
    lower_threshold=positive,
    upper_threshold=positive,
    line_weight=st.floats(0, 2),
)


@st.composite
def configurations(draw) -> LineFitConfig:
    made = draw(lines())
    names = [item.name for item in made]
    groups = st.lists(st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple), min_size=1, max_size=3).map(tuple)
    return LineFitConfig(
        EmissionModel(made, draw(st.integers(0, 9)), draw(st.sampled_from(["integrated", "sampled"]))),
        draw(continuum),
        draw(fit_options),
        draw(loading),
        EquivalentWidthOptions(draw(positive)),
        draw(st.none() | st.builds(VelocityWidthOptions, groups, st.floats(1, 99))),
        OutputOptions(draw(st.booleans()), draw(st.sampled_from([None, "out.fits"])), "_fit", draw(st.booleans())),
    )


# --- how a user writes them ---------------------------------------------------------------------


def plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(plain(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def triple(item: Declaration) -> str:
    """``value, bounds, constraint`` of a declaration."""
    if isinstance(item, Fixed):
        return f"{item.value!r}, {item.value!r}:{item.value!r}"
    low, high = ("" if abs(end) == float("inf") else repr(end) for end in (item.lower, item.upper))
    bounds = f"{low}:{high}" if low or high else ""
    if isinstance(item, Tied):
        return f"1, {bounds}, {in_file(item.expression)}"
    constraint = f"> {in_file(item.above)}" if item.above else f"< {in_file(item.below)}" if item.below else ""
    return f"{item.start if isinstance(item.start, str) else repr(item.start)}, {bounds}, {constraint}".rstrip(", ")


def in_file(expression: str) -> str:
    return expression.replace("velocity_dispersion", "sigma")


def section(head: str, options: object, skip: tuple[str, ...] = (), **renamed: str) -> str:
    """A reserved section from a dataclass; None and empty values are left out."""
    values = {item.name: getattr(options, item.name) for item in fields(options)}  # type: ignore[arg-type]
    body = [
        f"{renamed.get(key, key)}: {plain(value)}"
        for key, value in values.items()
        if key not in skip and value is not None and value != ()
    ]
    return "\n".join([f"[{head}]", *body, ""])


def written(config: LineFitConfig) -> str:
    """A file in today's dialect that says all of a configuration."""
    fit = section("fit", config.fit, ("window", "max_iter", "tolerance", "disp", "bound_range"))
    fit += section("fit", config.output).partition("\n")[2]
    if config.fit.window is not None:
        fit += "fitting_window: {!r}:{!r}\n".format(*config.fit.window)
    fit += f"profile: {config.model.profile}\n"
    minimization = (
        f"[minimization]\nmaxiter: {config.fit.max_iter}\nftol: {config.fit.tolerance!r}\ndisp: {plain(config.fit.disp)}\n"
    )
    text = fit + minimization + section("loading", config.loading)
    text += section("continuum", config.continuum) + f"degree: {config.model.continuum_degree}\n"
    text += section("equivalent_width", config.equivalent_width)
    if config.velocity_width is not None:
        groups = ", ".join(" + ".join(group) for group in config.velocity_width.groups)
        text += f"[velocity_width]\nlines: {groups}\nwidth: {config.velocity_width.width!r}\n"
    numbers: dict[int, int] = {}
    for item in config.model.lines:
        first = id(item.kinematics) not in numbers
        number = numbers.setdefault(id(item.kinematics), len(numbers))
        text += f"[{item.name}]\nrest_wavelength: {item.rest_wavelength!r}\nk_group: {number}\nfunction: {item.shape}\n"
        text += f"{item.strength}: {triple(item.strength_declaration)}\n"
        written = [(item.strength, item.strength_declaration)]
        if item.continuum_windows:
            text += f"continuum_windows: {plain(item.continuum_windows)}\n"
        for parameter in SHAPE_PARAMETERS[item.shape] if first else ():
            text += f"{FILE_NAMES.get(parameter, parameter)}: {triple(getattr(item.kinematics, parameter))}\n"
            written.append((FILE_NAMES.get(parameter, parameter), getattr(item.kinematics, parameter)))
        text += priors_of(written)
    return text


def priors_of(declared: list[tuple[str, Declaration]]) -> str:
    """The option that says the priors of a section's parameters, if there are any."""
    kinds = {Normal: "normal", HalfNormal: "half_normal", LogNormal: "log_normal"}
    entries = []
    for option, item in declared:
        prior = item.prior if isinstance(item, Bounded) else None
        if prior is not None:
            numbers = ", ".join(repr(getattr(prior, entry.name)) for entry in fields(prior))
            entries.append(f"{option} ~ {kinds[type(prior)]}({numbers})")
    return f"prior: {'; '.join(entries)}\n" if entries else ""


def comparable(config: LineFitConfig) -> dict[str, object]:
    """What two equal configurations have in common; objects of kinematics by who shares them."""
    seen: dict[int, int] = {}
    items = []
    for item in config.model.lines:
        kinematics = {entry.name: getattr(item.kinematics, entry.name) for entry in fields(Kinematics)}
        own = {key: value for key, value in kinematics.items() if key in SHAPE_PARAMETERS[item.shape]}
        items.append((item.strength_declaration, own, seen.setdefault(id(item.kinematics), len(seen))))
        items.append((item.name, item.rest_wavelength, item.shape, item.strength, item.continuum_windows))
    rest = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.name not in ("model", "source", "text")}
    return {"lines": items, "model": (config.model.continuum_degree, config.model.profile, config.model.lsf)} | rest


@settings(FIXED_PROFILE, max_examples=150)
@given(configurations())
def test_what_is_written_comes_back(config):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parse_config(written(config))
    assert comparable(found) == comparable(config)


@settings(FIXED_PROFILE, max_examples=100)
@given(lines(ties=False))
def test_2018_sections_mean_the_same_as_those_of_today(made):
    text = FIT
    for number, item in enumerate(made):
        ends = {}
        for kind, convert in (("velocity", wavelength_at), ("velocity_dispersion", width_of)):
            declared = getattr(item.kinematics, kind)
            declared = (
                Bounded(declared.value - 1, declared.value + 1, declared.value) if isinstance(declared, Fixed) else declared
            )
            start = 0.0 if kind == "velocity" else declared.start
            low, high = (convert(end, item.rest_wavelength) for end in (declared.lower, declared.upper))
            ends[kind] = convert(start, item.rest_wavelength), low, high, declared
        text += f"[{item.name}]\nflux: {triple(item.strength_declaration)}\n"
        text += priors_of([("flux", item.strength_declaration)])
        for option, kind in (("wavelength", "velocity"), ("sigma", "velocity_dispersion")):
            start, low, high, _ = ends[kind]
            text += f"{option}: {start!r}, {low!r}:{high!r}\n".replace("-inf:", ":").replace(":inf", ":")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IfujaxWarning)  # a first guess of zero velocity may lie outside
            found = parse_config(text).model.lines[number]
        assert found.rest_wavelength == pytest.approx(item.rest_wavelength, rel=1e-12)
        assert found.amplitude == item.amplitude
        for kind, (_, _, _, declared) in ends.items():
            got = getattr(found.kinematics, kind)
            assert (got.lower, got.upper) == (pytest.approx(declared.lower, abs=1e-6), pytest.approx(declared.upper, abs=1e-6))


# --- whatever else people write -----------------------------------------------------------------

TODAY = (
    FIT
    + "lsf: polynomial 2.6, 1e-5 @ 7000\n[loading]\nvariance: ERR\nredshift: 0.01\n"
    + "[minimization]\nftol: 1e-8\n[continuum]\ndegree: 2\n"
    + N2
    + "k_group: 0\nprior: velocity ~ normal(0, 100); sigma ~ log_normal(120, 0.5)\n    amplitude ~ half_normal(5)\n"
    + ha(k_group="0", amplitude="peak, 0:1e-13, [n2] * 3.06", velocity=None, sigma=None)
    + "[b]\nrest_wavelength: 6562.8\namplitude: 1, 0:\nvelocity: 0, +- 100\nsigma: 90, 40:900, > 2*(n2.sigma)\nfixed: no\n"
)
BOTH = (
    "[fit]\nfunction: gausshermite\nrefit: yes\nupdate_bounds: yes\nspiral_loop: yes\nspiral_center: 3, 4\nwritefits: no\n"
    "individual_spec: peak\nbounds_change: 1, 50, 30\n[velocity_width]\nlines: a + b, a\nwidth: 50\n"
    "[a]\nwavelength: 6562.8, +- 10\nsigma: 2, 1:5\nflux: peak, 0:\nh3: 0, +- 0.2\nh4: 0, -0.2:0.2\nk_group: 0\n"
    "[b]\nwavelength: 6583.4, 6573:6593, a + 20.6\nsigma: 2, 1:8, 2 * [a]\nflux: 3, 0:, a/3\nh3: 0,, a\nh4: 0\n"
    "continuum_windows: 6480, 6530, 6600, 6670\n[c]\nwavelength: 6548, +- 10\nsigma: 2, 1:5, < b\namplitude: 1\nfunction: voigt\n"
    "prior: wavelength ~ normal(6548, 3); sigma ~ half_normal(3)\n"
    "[d]\nrest_wavelength: 6716\nvelocity: 0, -300:300, < a\nsigma: 90,, b.sigma / 2\nflux: mean, 0:\n"
)
SAMPLES = [TODAY, BOTH]
SAMPLES += [path.read_text() for path in sorted(ROOT.joinpath("line_fitting").glob("**/*.cfg"))]
PIECES = list("[]():=,.<>+-*/%#;\n \t0123456789eEaxn_\r\v\x1c\x85\u2028é½") + [
    "[fit]", "[", "n2.sigma", "ha", "inf", "nan", "**", "+-", "1e999", "yes", "peak", "sqrt(",
    "\n ", "[DEFAULT]\n", "None", "%%", "0x1", "1_0", "k_group: 0\n", "fixed: yes\n", "max(", "1e-320", "1e308",
    "wavelength: 6562.8, +- 9\n", "function: voigt\n", "h3: 0,, ha\n", "gauss_hermite", "-1", "0", ".wavelength", "a / (a - a)",
    "~", "prior: velocity ~ normal(0, 1)\n", "half_normal(", "~ uniform", "sigma ~ log_normal(100, 1e-300)", "1e300)",
]  # fmt: skip


@st.composite
def mutated(draw) -> str:
    """A sample with characters, lines or options deleted, repeated, exchanged, or written over."""
    text = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 5))):
        what = draw(st.sampled_from(["characters", "characters", "line", "value"]))
        if what == "characters":
            start, length = draw(st.integers(0, len(text))), draw(st.sampled_from([0, 0, 1, 2, 5, 20]))
            middle = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=4)))
            text = text[:start] + middle + text[start + length :]
            continue
        rows = text.split("\n")
        i, j = (draw(st.integers(0, len(rows) - 1)) for _ in range(2))
        if what == "line":
            change = draw(st.sampled_from(["delete", "repeat", "exchange", "move"]))
            if change == "exchange":
                rows[i], rows[j] = rows[j], rows[i]
            elif change == "repeat":
                rows.insert(j, rows[i])
            else:
                row = rows.pop(i)
                rows[j:j] = [row] if change == "move" else []
        else:
            # One option with the value of another.
            rows[i] = rows[i].partition(":")[0] + ":" + rows[j].partition(":")[2]
        text = "\n".join(rows)
    return text


@settings(FIXED_PROFILE, max_examples=2000)
@given(mutated())
def test_any_text_is_read_or_refused_in_one_line(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", IfujaxWarning)
        try:
            message = parse_config(text).model.names[0]
        except UsageError as error:
            message = str(error)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("text", SAMPLES)
@pytest.mark.filterwarnings("ignore::ifujax.errors.IfujaxWarning")
def test_the_samples_themselves_are_read(text):
    assert len(parse_config(text).model.lines) >= 3
