"""`sample_batch` against posteriors on grids: what is drawn, whatever the batch, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import gamma, kstest, lognorm, norm
from scipy.stats import t as student

from ifujax import (
    Bounded,
    Fixed,
    HalfNormal,
    LeastSquaresOptions,
    LogNormal,
    Normal,
    Observations,
    ParameterSpace,
    UsageError,
    fit_batch,
)
from ifujax.inference import status as bits
from ifujax.inference.sampling import chains
from ifujax.inference.sampling.importance import ROUNDS, ImportanceSampler, Weighted
from ifujax.inference.sampling.laplace import laplace
from ifujax.inference.sampling.nuts import NutsDraws
from ifujax.inference.sampling.options import SamplingOptions
from ifujax.inference.sampling.sample import DEFAULT_SAMPLING, sample_batch
from tests.inference.sampling.problems import CONTINUUM, ELIMINATE, Lines, X, fit_near, lines_numpy, noisy, wide_line

SIGMA = 0.5
IMPORTANCE, NUTS = SamplingOptions(method="importance"), SamplingOptions(method="nuts")


def flux(model, params, linear, coords):
    """Flux of the line, and the mean of the continuum: one quantity of parameters, one of coefficients."""
    return {"flux": params["first"] * params["width"], "mean": linear[0]}


class Grid:
    """A posterior on a grid of its parameters: weights that sum to 1 over axes."""

    def __init__(self, log_density, axes):
        self.axes = axes
        mesh = np.meshgrid(*axes, indexing="ij")
        for k, axis in enumerate(axes):
            end = np.where((axis == axis[0]) | (axis == axis[-1]), 0.5, 1.0)
            log_density = log_density + np.log(end).reshape([-1 if i == k else 1 for i in range(len(axes))])
        self.weight = np.exp(log_density - log_density.max())
        self.weight /= self.weight.sum()
        self.mesh = mesh

    def share_below(self, k, values):
        """Marginal probability below `values` of parameter k."""
        marginal = self.weight.sum(axis=tuple(i for i in range(len(self.axes)) if i != k))
        return np.interp(values, self.axes[k], np.cumsum(marginal) - 0.5 * marginal)

    def moments(self, values):
        """Mean and standard deviation of a function of the parameters, given on the mesh."""
        mean = (self.weight * values).sum()
        return mean, np.sqrt((self.weight * (values - mean) ** 2).sum())


def axes_about(draws, row, names, boxes, size):
    """Axes that hold what there is of a posterior, by its draws; they say only where to look."""
    axes = []
    for name in names:
        drawn, (low, high) = draws.params[name][row], boxes[name]
        margin = 0.6 * (drawn.max() - drawn.min())
        axes.append(np.linspace(max(low, drawn.min() - margin), min(high, drawn.max() + margin), size))
    return axes


def check_moments(drawn, mean, sd, ess):
    assert abs(drawn.mean() - mean) < 4.5 * sd / np.sqrt(ess)
    assert drawn.std() == pytest.approx(sd, rel=6 / np.sqrt(ess))


def effective(draws, row):
    """Effective number of the draws returned, which may be fewer than the weights or the chains are worth."""
    return min(draws.ess[row], DEFAULT_SAMPLING.draws)


def check_against(grid, draws, row, names):
    """Every parameter's draws follow its marginal, as well as their effective number says."""
    ess = effective(draws, row)
    for k, name in enumerate(names):
        drawn = draws.params[name][row].ravel()
        check_moments(drawn, *grid.moments(grid.mesh[k]), ess)
        share = grid.share_below(k, drawn)
        assert kstest(share, "uniform").statistic * np.sqrt(ess) < 2.0, name
        for edge in (0.025, 0.16, 0.5, 0.84, 0.975):
            assert abs((share < edge).mean() - edge) < 4.5 * np.sqrt(edge * (1 - edge) / ess), (name, edge)


# A line on a continuum that is eliminated: strong, weak and absent, and a spectrum without data.
BOXES = {"centre": (-4.0, 4.0), "width": (0.3, 3.0), "first": (0.0, 50.0)}


@cache
def line_problem():
    rng = np.random.default_rng(5)
    clean = lines_numpy([0.5, -1.0, 0.0, 0.0], [1.2, 0.8, 1.0, 1.0], [[6.0, 1.2, 0.0, 5.0]]) + CONTINUUM @ [2.0, -1.0]
    obs = noisy(rng, clean, SIGMA)
    space = ParameterSpace.build(wide_line(first=Bounded(0, 50, prior=HalfNormal(6.0))))
    fit = fit_near(space, {"centre": [0.5, -0.9, 1.0, 0.0], "width": [1.3, 0.7, 0.5, 1.0], "first": [5.8, 1.3, 0.1, 1.0]}, 0.2)
    fit.x[3], fit.status[3] = np.nan, bits.NO_DATA.value
    return Lines(), space, obs, fit


def cut(fit, rows):
    """Return some rows of a fit."""
    parts = {name: getattr(fit, name)[rows] for name in ("x", "covariance", "chi2", "status", "warn", "n_good", "n_iter")}
    return replace(fit, **parts, **{name: {k: v[rows] for k, v in getattr(fit, name).items()} for name in ("params", "error")})


@cache
def line_draws(sampling=IMPORTANCE, precision="float64"):
    model, space, obs, fit = line_problem()
    return sample_batch(
        model, space, obs, fit, options=ELIMINATE, sampling=sampling, seed=3, derived=flux, precision=precision, ids=[7, 1, 40, 2]
    )


def line_grid(draws, row):
    """The posterior of the three parameters, and mean and sd of the level of the continuum."""
    values = line_problem()[2].values[row]
    axes = axes_about(draws, row, BOXES, BOXES, 90)
    inverse = np.linalg.inv(CONTINUUM.T @ CONTINUUM / SIGMA**2)
    project = inverse @ CONTINUUM.T / SIGMA**2
    form = np.eye(X.size) / SIGMA**2 - CONTINUUM @ project / SIGMA**2
    centre, width, strength = np.meshgrid(*axes, indexing="ij")
    line = lines_numpy(centre[:, :, 0], width[:, :, 0], [1.0])
    square = np.einsum("abi,ij,abj->ab", line, form, line)[:, :, None]
    cross = (line @ form @ values)[:, :, None]
    grid = Grid(-0.5 * square * strength**2 + cross * strength - 0.5 * (strength / 6.0) ** 2, axes)
    level = (project @ values)[0] - strength * (line @ project.T)[:, :, [0]]
    mean, sd = grid.moments(level)
    return grid, mean, np.hypot(sd, np.sqrt(inverse[0, 0]))


@pytest.mark.parametrize(
    ("sampling", "precision"),
    [
        (IMPORTANCE, "float64"),
        (NUTS, "float64"),
        pytest.param(IMPORTANCE, "float32", marks=pytest.mark.slow),
        pytest.param(NUTS, "float32", marks=pytest.mark.slow),
    ],
)
def test_a_line_against_a_grid(sampling, precision):
    draws = line_draws(sampling, precision)
    assert draws.params["centre"].shape == (4, 4, 250)
    assert draws.linear.shape == (4, 4, 250, 2)
    tier = 1 if sampling is IMPORTANCE else 2
    assert draws.tier.tolist() == [tier] * 3 + [0]
    assert draws.status.tolist() == [0, 0, 0, bits.NO_FIT.value]
    for row in range(3):
        grid, level, sd = line_grid(draws, row)
        check_against(grid, draws, row, BOXES)
        check_moments(draws.linear[row, ..., 0], level, sd, effective(draws, row))
        # Correlations too: the flux is narrower than width and amplitude would have it one by one.
        check_moments(draws.derived["flux"][row], *grid.moments(grid.mesh[1] * grid.mesh[2]), effective(draws, row))
    for name, (low, high) in BOXES.items():
        assert ((draws.params[name][:3] >= low) & (draws.params[name][:3] <= high)).all()
    np.testing.assert_allclose(draws.derived["flux"], draws.params["first"] * draws.params["width"], rtol=1e-6)
    np.testing.assert_array_equal(draws.derived["mean"], draws.linear[..., 0])
    if tier == 1:
        assert (draws.khat[:3] < 0.7).all()
        assert (draws.ess[:3] > 200).all()
        assert np.isnan(draws.rhat).all()
    else:
        assert np.isnan(draws.khat).all()
        assert (draws.rhat[:3] < 1.01).all()
        chains = np.minimum(draws.ess_bulk, draws.ess_tail)[:3]
        assert (chains > 400).all()
        assert (draws.ess[:3] <= chains).all()  # of the draws handed out, half of all
        assert (draws.ess[:3] > 400).all()
    assert not draws.divergences.any()


def test_a_spectrum_without_a_fit_has_no_draws():
    draws = line_draws()
    for array in (*draws.params.values(), draws.linear, *draws.derived.values(), draws.khat, draws.ess, draws.rhat):
        assert np.isnan(array[3]).all()
        assert array is draws.rhat or np.isfinite(array[:3]).all()


@pytest.mark.parametrize("sampling", [IMPORTANCE, NUTS], ids=["is", "nuts"])
def test_the_same_draws_in_any_company(sampling):
    model, space, obs, fit = line_problem()
    whole = line_draws(sampling)
    rows = np.array([2, 1])
    part = sample_batch(
        *(model, space, Observations(obs.values[rows], obs.ivar[rows], X), cut(fit, rows)),
        options=ELIMINATE,
        sampling=sampling,
        seed=3,
        derived=flux,
        ids=np.array([40, 1]),
    )
    for name in whole.params:
        np.testing.assert_array_equal(part.params[name], whole.params[name][rows])
    np.testing.assert_array_equal(part.linear, whole.linear[rows])
    np.testing.assert_array_equal(part.derived["flux"], whole.derived["flux"][rows])
    for name in ("khat", "ess", "rhat", "ess_bulk", "ess_tail", "status", "tier", "divergences"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])


def test_more_than_a_block_and_other_seeds():
    model, space, obs, fit = line_problem()
    many = np.zeros(19, int)  # one spectrum, over and over
    wide = Observations(obs.values[many], obs.ivar[many], X)
    fit = cut(fit, many)
    seen = []
    call = {"options": ELIMINATE, "sampling": IMPORTANCE, "derived": flux}
    ids = np.array([7, 7, *range(100, 117)])
    draws = sample_batch(model, space, wide, fit, **call, seed=3, ids=ids, progress=lambda *args: seen.append(args))
    first = draws.params["centre"].reshape(19, -1)
    # The same id gives the same draws, another id or seed others.
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(first[0], line_draws().params["centre"][0].ravel())
    assert len(np.unique(first[:, 0])) == 18
    other = sample_batch(model, space, wide, fit, **call, seed=4, ids=ids).params["centre"].reshape(19, -1)
    assert not np.isin(other[0], first[0]).any()
    # Between ids they differ by chance alone.
    pull = (first.mean(axis=1) - first.mean()) / first.std() * np.sqrt(np.minimum(draws.ess, 1000))
    assert np.abs(pull[1:]).max() < 4
    assert 0.6 < pull[1:].std() < 1.4
    assert seen[-1] == ("importance", 19, 19)


# No linear block, nothing that is integrated: priors of all kinds, or uniform ones and a robust loss.
PRIORS = {"centre": norm(1.0, 0.5), "width": lognorm(0.4, scale=1.2), "height": gamma(3.0, scale=2.0)}
BUMP_BOXES = {"centre": (-3.0, 3.0), "width": (0.2, 6.0), "height": (0.0, 20.0)}


def bump(params, x):
    return params["height"] * jnp.exp(-0.5 * ((x - params["centre"]) / params["width"]) ** 2)


@cache
def bump_problem(loss):
    import numpyro.distributions as dist

    rng = np.random.default_rng(8)
    clean = lines_numpy([0.0, 0.0], [1.5, 1.0], [[5.0, 1.0]])
    obs = noisy(rng, clean, SIGMA)
    if loss == "student_t":
        obs.values[:, 20] += 20 * SIGMA  # an outlier at the peak
    priors = {"centre": Normal(1.0, 0.5), "width": LogNormal(1.2, 0.4), "height": dist.Gamma(3.0, 0.5)}
    if loss == "student_t":
        priors = dict.fromkeys(priors)
    space = ParameterSpace.build({name: Bounded(*BUMP_BOXES[name], prior=prior) for name, prior in priors.items()})
    near = {"centre": [0.1, 0.2], "width": [1.4, 1.2], "height": [4.8, 1.3]}
    return space, obs, fit_near(space, near, 0.2), LeastSquaresOptions(loss=loss)


@pytest.mark.parametrize(
    ("loss", "sampling"),
    [
        ("gaussian", IMPORTANCE),
        ("student_t", IMPORTANCE),
        pytest.param("gaussian", NUTS, marks=pytest.mark.slow),
        pytest.param("student_t", NUTS, marks=pytest.mark.slow),
    ],
)
def test_a_model_without_a_linear_part_against_a_grid(loss, sampling):
    space, obs, fit, options = bump_problem(loss)
    draws = sample_batch(bump, space, obs, fit, options=options, sampling=sampling, seed=1)
    assert draws.status.tolist() == [0, 0]
    assert draws.linear.shape == (2, 4, 250, 0)
    for row in range(2):
        axes = axes_about(draws, row, BUMP_BOXES, BUMP_BOXES, 60)
        centre, width, height = np.meshgrid(*axes, indexing="ij")
        residual = (obs.values[row] - lines_numpy(centre, width, [height])) / SIGMA
        each = student.logpdf(residual, options.degrees) if loss == "student_t" else -0.5 * residual**2
        log_density = each.sum(axis=-1)
        if loss == "gaussian":
            log_density += sum(prior.logpdf(mesh) for prior, mesh in zip(PRIORS.values(), (centre, width, height)))
        check_against(Grid(log_density, axes), draws, row, BUMP_BOXES)


class Pair:
    """Two Gaussians at plus and minus `apart`, whose sign leaves no trace in the data, and a height that enters linearly."""

    linear_in = ("height",)

    def __call__(self, params, x):
        total = sum(jnp.exp(-0.5 * ((x - sign * params["apart"]) / params.get("width", 0.8)) ** 2) for sign in (-1, 1))
        return params["height"] * total


PAIR = Pair()


@pytest.mark.parametrize("sampled", [["apart"], pytest.param(["apart", "width"], marks=pytest.mark.slow)], ids=["one", "two"])
def test_both_signs_are_found_with_their_shares(sampled):
    rng = np.random.default_rng(2)
    clean = 2.0 * (lines_numpy([2.5, 3.0, 0.6], 0.8, [[1.0] * 3]) + lines_numpy([-2.5, -3.0, -0.6], 0.8, [[1.0] * 3]))
    obs = noisy(rng, clean, 0.4)
    boxes = {"apart": Bounded(-5, 5, prior=Normal(0.5, 2.0)), "height": Bounded(0, 30), "width": Bounded(0.5, 1.2)}
    space = ParameterSpace.build({name: boxes[name] for name in ("apart", "height", *sampled[1:])})
    # Each fit knows of one sign.
    near = {"apart": [2.5, -3.0, 0.7], "height": [1.9, 2.0, 2.0], "width": [0.8, 0.8, 0.8]}
    fit = fit_near(space, {name: near[name] for name in space.names}, 0.1)
    draws = sample_batch(PAIR, space, obs, fit, sampling=IMPORTANCE, seed=2)
    assert draws.status.tolist() == [0, 0, 0]
    for row in range(3):
        axes = [np.linspace(-5, 5, 1001), np.linspace(0.5, 4.0, 120), np.linspace(0.5, 1.2, 30 if sampled[1:] else 1)]
        axes[2] = axes[2] if sampled[1:] else np.array([0.8])
        apart, height, _ = np.meshgrid(*axes, indexing="ij")
        at = np.stack(np.meshgrid(axes[0], axes[2], indexing="ij"))
        shape = lines_numpy(at[0], at[1], [1.0]) + lines_numpy(-at[0], at[1], [1.0])
        square, cross = (shape**2).sum(axis=-1)[:, None], (shape @ obs.values[row])[:, None]
        log_density = (-0.5 * square * height**2 + cross * height) / 0.4**2 - 0.5 * ((apart - 0.5) / 2.0) ** 2
        grid = Grid(log_density, axes)
        positive = grid.weight[axes[0] > 0].sum()
        assert 0.4 < positive < 0.8
        found = (draws.params["apart"][row] > 0).mean()
        assert abs(found - positive) < 4.5 * np.sqrt(positive * (1 - positive) / effective(draws, row))
        check_against(grid, draws, row, ["apart", "height"])


def test_auto_goes_on_with_nuts_where_weights_fail():
    model, space, obs, fit = line_problem()
    strict = SamplingOptions(max_pull=1e-9, rounds=1)  # never the same
    draws = sample_batch(model, space, obs, fit, options=ELIMINATE, sampling=strict, seed=3, derived=flux)
    assert draws.tier.tolist() == [2, 2, 2, 0]
    assert draws.status.tolist() == [0, 0, 0, bits.NO_FIT.value]
    assert np.isfinite(draws.khat[:3]).all()  # what the first tier said
    assert (draws.rhat[:3] < 1.01).all()
    for row in range(3):
        check_against(line_grid(draws, row)[0], draws, row, BOXES)
    few = sample_batch(
        *(model, space, obs, fit),
        options=ELIMINATE,
        sampling=replace(strict, method="importance"),
        seed=3,
        derived=flux,
    )
    assert few.tier.tolist() == [1, 1, 1, 0]
    assert few.status.tolist() == [bits.ROUNDS_DISAGREE.value] * 3 + [bits.NO_FIT.value]


def test_more_draws_than_the_chains_have_at_first():
    model, space, obs, fit = line_problem()
    many = replace(NUTS, draws=2400)
    draws = sample_batch(model, space, obs, fit, options=ELIMINATE, sampling=many, seed=3, derived=flux)
    assert draws.params["centre"].shape == (4, 4, 600)
    assert len(np.unique(draws.params["centre"][0])) > 2300  # a few transitions stay where they are


def fake_round(khat, ess, distinct=1.0, pull=1.0, value=1.5):
    """What a round of importance sampling found, made up."""

    def weighted(rows, mixture):
        each = (np.full(rows, number) for number in (khat, ess, distinct, pull))
        return Weighted(np.full((rows, 1000, 3), value), *each, mixture)

    return weighted


def test_the_best_round_counts(monkeypatch):
    model, space, obs, fit = line_problem()
    # Only the last has all.
    found = [(0.9, 900.0), (0.2, 150.0), (0.3, 900.0, 0.4), (0.3, 900.0, 0.9, 5.0), (0.5, 700.0)]
    rounds = iter(fake_round(*each, value=1.0 + k) for k, each in enumerate(found))  # type: ignore[misc]

    def take(self, k, mixture, before, covariance, generators):
        return next(rounds)(len(generators), mixture)

    monkeypatch.setattr(ImportanceSampler, "round", take)
    draws = sample_batch(model, space, obs, fit, options=ELIMINATE, sampling=IMPORTANCE, seed=3, derived=flux)
    assert (draws.params["centre"][:3] == 5.0).all()
    assert draws.khat[:3].tolist() == [0.5] * 3
    assert draws.ess[:3].tolist() == [700.0] * 3
    assert draws.status[:3].tolist() == [0, 0, 0]
    assert next(rounds, None) is None


@pytest.mark.parametrize(("draws", "times"), [(4000, 16), (8000, 8), (200_000, 1)])
def test_rounds_of_many_draws_have_no_more_points_than_others(monkeypatch, draws, times):
    counts = []

    def counted(self, mixture, generators, count, prior_share):
        counts.append(count)

    monkeypatch.setattr(ImportanceSampler, "_points", counted)
    sampler = ImportanceSampler(None, SamplingOptions(draws=draws), None, ())
    with pytest.raises((AttributeError, TypeError)):  # it comes no further than the points of the first half, which are none
        sampler.round(len(ROUNDS) - 1, None, None, None, [])
    assert len(counts) == times
    assert times == 1 or sum(counts) < 135_000


def test_weights_that_are_even_but_few_stay_where_no_chains_meet(monkeypatch):
    model, space, obs, fit = line_problem()

    def few(self, k, mixture, before, covariance, generators):
        return fake_round(0.3, 150.0)(len(generators), mixture)

    def fake_nuts(*_, ids, options, **__):
        each = np.full(len(ids), 1.5)
        z = np.zeros((len(ids), options.chains, options.draws, 3))
        return NutsDraws(z, np.zeros(len(ids), int), each, each, each, 10 * each, 10 * each, np.ones(len(ids), int))

    monkeypatch.setattr(ImportanceSampler, "round", few)
    monkeypatch.setattr(chains, "run_nuts", fake_nuts)
    draws = sample_batch(model, space, obs, fit, options=ELIMINATE, seed=3)
    assert draws.tier.tolist() == [1, 1, 1, 0]
    assert (draws.params["centre"][:3] == 1.5).all()
    assert draws.status[:3].tolist() == [bits.FEW_EFFECTIVE.value] * 3


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["linear_names", "linear_in"])
@dataclass(frozen=True)
class Nowhere(Lines):
    """A model without a value."""

    def design(self, params, x):
        columns, total = super().design(params, x)
        return columns, total + jnp.nan * params["centre"]


@pytest.mark.parametrize(("method", "linear_in"), [("importance", ()), ("auto", ("first",))])
def test_a_density_that_is_finite_nowhere(method, linear_in):
    _, space, obs, fit = line_problem()
    sampling = SamplingOptions(method=method, rounds=1)
    draws = sample_batch(Nowhere(linear_in=linear_in), space, obs, fit, options=ELIMINATE, sampling=sampling, seed=3)
    assert draws.tier.tolist() == [0] * 4
    assert draws.status.tolist() == [bits.NO_DRAWS.value] * 3 + [bits.NO_FIT.value]
    assert np.isnan(draws.params["centre"]).all()


def test_errors_that_are_as_good_as_infinite():
    _, space, _, fit = line_problem()
    covariance = np.array(fit.covariance)
    factor = np.array([[1, 0, 0], [0.999, 0.05, 0], [0.9, 0.3, 0.1]]) * np.array([[1e10], [1e9], [1e2]])
    covariance[0] = factor @ factor.T
    wide = replace(fit, covariance=covariance)
    z, found = laplace(space, space.broadcast(4), wide)
    assert np.isfinite(z[:3]).all()
    np.linalg.cholesky(found)
    assert (np.sqrt(np.diagonal(found[0])) < 2.0).all()  # of a uniform prior


@pytest.mark.slow
def test_a_fit_whose_parameters_are_all_linear():
    _, _, obs, _ = line_problem()
    boxes = wide_line(centre=Fixed(0.5), width=Fixed(1.2), first=Bounded(0, 50, prior=HalfNormal(6.0)))
    space = ParameterSpace.build(boxes)
    fit = fit_batch(Lines(), space, obs, {"first": 3.0}, options=ELIMINATE)
    draws = sample_batch(Lines(), space, obs, fit, options=ELIMINATE, seed=1)
    assert draws.status.tolist() == [0] * 4
    form = (np.eye(X.size) - CONTINUUM @ np.linalg.inv(CONTINUUM.T @ CONTINUUM) @ CONTINUUM.T) / SIGMA**2
    line, axis = lines_numpy(0.5, 1.2, [1.0]), np.linspace(0, 9, 2001)
    for row in range(4):
        log_density = -0.5 * axis**2 * (line @ form @ line) + axis * (line @ form @ obs.values[row]) - 0.5 * (axis / 6) ** 2
        check_against(Grid(log_density, [axis]), draws, row, ["first"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"ids": [1, 2]}, "ids must be one number"),
        ({"ids": [1, 2, -3, 4]}, "ids must be one number"),
        ({"linear_sigma": [1.0]}, r"linear_sigma must be \(2,\) or \(4, 2\)"),
        ({"linear_sigma": [1.0, 0.0]}, "linear_sigma must be"),
        ({"linear_sigma": [1.0, np.nan]}, "linear_sigma must be"),
        ({"options": LeastSquaresOptions(linear="nnls")}, "'nnls'"),
        ({"options": LeastSquaresOptions(linear="eliminate", loss="student_t")}, "loss must be 'gaussian'"),
        ({"precision": "float16"}, "precision must be"),
        ({"devices": "abacus"}, "abacus"),
    ],
)
def test_what_is_refused(change, message):
    model, space, obs, fit = line_problem()
    with pytest.raises(UsageError, match=message):
        sample_batch(model, space, obs, fit, **{"options": ELIMINATE, **change})


def test_improper_priors_are_refused_by_name():
    model, _, obs, fit = line_problem()
    space = ParameterSpace.build(wide_line(first=Bounded(0), width=Bounded()))
    with pytest.raises(UsageError, match="width, first have neither two bounds nor a prior"):
        sample_batch(model, space, obs, fit, options=ELIMINATE)


def test_a_fit_of_other_spectra_is_refused():
    model, space, obs, fit = line_problem()
    with pytest.raises(UsageError, match="one row for each of 2 spectra; got 4"):
        sample_batch(model, space, Observations(obs.values[:2], obs.ivar[:2], X), fit, options=ELIMINATE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "importence"}, "Did you mean 'importance'"),
        ({"draws": 1001}, "multiple of the 4 chains; got 1001. Say 1004"),
        ({"draws": 0}, "draws must be a whole number"),
        ({"draws": 10.0}, "draws must be a whole number"),
        ({"chains": True}, "chains must be a whole number"),
        ({"prior_share": 0.0}, "prior_share must lie between"),
        ({"prior_share": 1.0}, "prior_share must lie between"),
        ({"max_khat": 0.0}, "max_khat must be positive"),
        ({"inflate": np.nan}, "inflate must be positive"),
        ({"starts": -1}, "starts must be a whole number, 0 or more"),
        ({"least_distinct": 1.5}, "least_distinct must lie between"),
    ],
)
def test_options_that_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        SamplingOptions(**change)
