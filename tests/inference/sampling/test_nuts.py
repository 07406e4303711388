"""NUTS in blocks: targets with known moments, and rows that must not know of each other."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ifujax import UsageError
from ifujax.inference.precision import working_precision
from ifujax.inference.sampling import nuts
from ifujax.inference.sampling.adaptation import first_state
from ifujax.inference.sampling.nuts import NutsOptions, run_nuts
from ifujax.inference.sampling.nuts_kernel import Rows, Schedule, advance

N, ROWS = 3, 19
QUICK = NutsOptions(warmup=(40, 60, 40), draws=100, max_extensions=0)


def bent_gaussian(data, z):
    """A Gaussian of any covariance whose second element is bent by `bend` times the square of the first."""
    u = z - data["mean"]
    u = u.at[1].add(-data["bend"] * u[0] ** 2)
    r = jnp.sum(data["root"] * u[None, :], axis=1)
    return -0.5 * jnp.sum(data["unit"] * r**2)


@dataclasses.dataclass(frozen=True)
class Logistic:
    """Logistic regression with Gaussian priors of width `sigma`."""

    sigma: float

    def __call__(self, data, z):
        logit = z[0] + z[1] * data["x"]
        return jnp.sum(data["y"] * logit - jnp.logaddexp(0.0, logit)) - 0.5 * jnp.sum((z / self.sigma) ** 2)


class Problem:
    """Rows of bent Gaussians, each with its own mean, covariance and bend (none in the first half)."""

    def __init__(self):
        self.axes = {"mean": 0, "root": 0, "bend": 0, "unit": None}
        rng = np.random.default_rng(3)
        scale = 10 ** rng.uniform(-1, 1, (ROWS, N))
        root = (0.7 * rng.normal(size=(ROWS, N, N)) + 2 * np.eye(N)) / scale[:, None, :]
        self.covariance = np.linalg.inv(np.einsum("rki,rkj->rij", root, root))
        self.mean = 3 * rng.normal(size=(ROWS, N))
        variance = self.covariance[:, 0, 0]
        bend = np.where(np.arange(ROWS) < ROWS // 2, 0.0, 0.3) * np.sqrt(self.covariance[:, 1, 1]) / variance
        self.data = {"mean": self.mean, "root": root, "bend": bend, "unit": np.ones(N)}
        self.true_mean, self.true_sd = self.mean.copy(), np.sqrt(np.einsum("rii->ri", self.covariance))
        self.true_mean[:, 1] += bend * variance
        self.true_sd[:, 1] = np.sqrt(self.covariance[:, 1, 1] + 2 * (bend * variance) ** 2)
        self.ids = 1000 + np.arange(ROWS)
        # A guess that is off in its centre, scales and correlations.
        self.guess = self.mean + 0.5 * self.true_sd
        self.factor = 2 * self.true_sd[:, :, None] * np.eye(N)
        self.start = self.guess[:, None] + self.true_sd[:, None] * rng.normal(size=(ROWS, 4, N))

    def run(self, rows=None, options=QUICK, seed=1, data=None, **changes):
        rows = np.arange(ROWS) if rows is None else np.asarray(rows)
        data = self.data if data is None else data
        mine = {name: array if self.axes[name] is None else array[rows] for name, array in data.items()}
        given = {"start": self.start, "mean": self.guess, "factor": self.factor, "ids": self.ids}
        given = {name: array[rows] for name, array in given.items()} | {
            name: changes.pop(name)[rows] for name in list(changes) if name in given
        }
        ids = given.pop("ids")
        return run_nuts(bent_gaussian, mine, self.axes, **given, seed=seed, ids=ids, options=options, **changes)


@pytest.fixture(scope="module")
def problem():
    return Problem()


@pytest.fixture(scope="module")
def quick(problem):
    return problem.run()


def same(one, other, rows=...):
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name)[rows], err_msg=field.name)


def test_moments_of_gaussians_and_bananas(problem):
    drawn = problem.run(options=NutsOptions(draws=600))
    assert drawn.z.shape == (ROWS, 4, 600, N)
    assert (drawn.rhat < 1.01).all()
    assert (drawn.ess_bulk > 400).all()
    assert (drawn.ess_tail > 400).all()
    straight = problem.data["bend"] == 0
    assert (drawn.divergences[straight] == 0).all()
    assert (drawn.runs[straight] == 1).all()
    # The ends of the bananas are steep: first runs diverge there, smaller steps hardly.
    assert (drawn.runs[~straight] > 1).any()
    assert (drawn.divergences < 10).all()
    assert (drawn.accept > 0.7).all()
    assert (drawn.steps[straight] < 7).all()
    z = drawn.z.reshape(ROWS, -1, N)
    error = 1 / np.sqrt(drawn.ess_bulk)[:, None]
    pull = (z.mean(axis=1) - problem.true_mean) / problem.true_sd / error
    assert np.abs(pull).max() < 4.5
    assert 0.5 < pull.std() < 1.3  # of the worst element's size: the others are better than that
    np.testing.assert_allclose(z.std(axis=1), problem.true_sd, rtol=0.15)
    found = np.stack([np.cov(row.T) for row in z[straight]])
    scale = problem.true_sd[straight, :, None] * problem.true_sd[straight, None, :]
    assert np.abs((found - problem.covariance[straight]) / scale).max() < 0.15
    # The bananas are bent: what is left of the second element does not follow the first one's square.
    u = z[~straight] - problem.mean[~straight, None]
    before, after = (
        [np.corrcoef(row[:, 0] ** 2, row[:, 1] - factor * row[:, 0] ** 2)[0, 1] for row, factor in zip(u, factors)]
        for factors in (0 * problem.data["bend"][~straight], problem.data["bend"][~straight])
    )
    assert min(before) > 0.2
    assert np.abs(after).max() < 0.15


def test_logistic_regression_against_a_grid(rng):
    x, rows = rng.normal(size=40), 5
    y = (rng.uniform(size=(rows, 40)) < expit(np.linspace(-1, 2, rows)[:, None] + x)).astype(float)
    options = NutsOptions(warmup=(60, 60), draws=600, min_ess=0, max_extensions=0)
    start, mean, factor = rng.normal(size=(rows, 4, 2)), np.zeros((rows, 2)), np.broadcast_to(np.eye(2), (rows, 2, 2))
    data, axes = {"x": x, "y": y}, {"x": None, "y": 0}
    drawn = run_nuts(Logistic(2.0), data, axes, start, mean, factor, seed=5, ids=np.arange(rows), options=options)
    a, b = np.meshgrid(np.linspace(-4, 7, 220), np.linspace(-4, 7, 220), indexing="ij")
    logit = a[..., None] + b[..., None] * x
    for row in range(rows):
        log_density = (y[row] * logit - np.logaddexp(0, logit)).sum(axis=-1) - (a**2 + b**2) / 8
        weight = np.exp(log_density - log_density.max())
        weight /= weight.sum()
        for k, grid in enumerate((a, b)):
            mean = (weight * grid).sum()
            sd = np.sqrt((weight * (grid - mean) ** 2).sum())
            z = drawn.z[row, :, :, k]
            assert abs(z.mean() - mean) < 4.5 * sd / np.sqrt(drawn.ess_bulk[row])
            assert z.std() == pytest.approx(sd, rel=0.12)


def test_draws_depend_on_the_row_alone(problem, quick):
    same(problem.run(), quick)
    shuffled = np.random.default_rng(0).permutation(ROWS)
    same(problem.run(shuffled), quick, shuffled)
    for part in ([7], [18, 2, 11], range(3, 13)):
        same(problem.run(part), quick, np.asarray(part))


def test_chains_that_go_on_depend_on_the_row_alone(problem):
    options = dataclasses.replace(QUICK, draws=60, max_extensions=2, max_rhat=1.03, min_ess=120)
    whole = problem.run(options=options)
    assert 1 < whole.runs.max() <= 3
    assert whole.runs.min() < whole.runs.max()
    shuffled = np.random.default_rng(1).permutation(ROWS)
    same(problem.run(shuffled, options=options), whole, shuffled)


def test_seed_and_id_change_the_draws(problem, quick):
    assert (problem.run(seed=2).z != quick.z).mean() > 0.99
    assert (problem.run(ids=problem.ids + 1).z != quick.z).mean() > 0.99
    # Chains of a row, and rows of the same data, have random numbers of their own.
    twice = problem.run([4, 4], ids=problem.ids)
    np.testing.assert_array_equal(twice.z[0], twice.z[1])
    start = np.repeat(problem.start[:, :1], 4, axis=1)
    drawn = problem.run(start=start).z
    for one in range(4):
        for other in range(one):
            assert (drawn[:, one] != drawn[:, other]).mean() > 0.99


def test_bad_rows_are_nan_and_harm_nobody(problem, quick):
    start = problem.start.copy()
    start[2] = np.nan
    start[5, 1, 0] = np.inf
    data = {name: array.copy() for name, array in problem.data.items()}
    data["root"][8] = np.nan
    data["mean"][17, 0] = np.inf
    drawn = problem.run(start=start, data=data)
    bad = np.isin(np.arange(ROWS), [2, 8, 17])
    assert np.isnan(drawn.z[bad]).all()
    for name in ("rhat", "ess_bulk", "ess_tail", "steps", "accept"):
        assert np.isnan(getattr(drawn, name)[bad]).all(), name
        assert np.isfinite(getattr(drawn, name)[~bad]).all(), name
    np.testing.assert_array_equal(drawn.runs, np.where(bad, 0, 1))
    np.testing.assert_array_equal(drawn.divergences[bad], 0)
    good = ~bad
    good[5] = False
    np.testing.assert_array_equal(drawn.z[good], quick.z[good])
    # A chain that starts nowhere starts with another of its row.
    assert np.isfinite(drawn.z[5]).all()
    assert drawn.rhat[5] < 1.1


def test_nothing_to_sample(problem):
    nowhere = problem.run(start=np.full_like(problem.start, np.nan))
    assert np.isnan(nowhere.z).all()
    assert (nowhere.runs == 0).all()
    empty = problem.run(np.arange(0))
    assert empty.z.shape == (0, 4, 100, N)
    assert empty.rhat.shape == (0,)


def test_a_guess_that_is_no_use(problem):
    factor, mean = problem.factor.copy(), problem.guess.copy()
    factor[0] = np.nan
    factor[1, 1, 1] = 0
    mean[2] = np.nan
    factor[3] *= 100
    factor[4] /= 100
    drawn = problem.run(factor=factor, mean=mean)
    z = drawn.z[:5].reshape(5, -1, N)
    assert (np.abs(z.mean(axis=1) - problem.true_mean[:5]) < 0.5 * problem.true_sd[:5]).all()
    np.testing.assert_allclose(z.std(axis=1), problem.true_sd[:5], rtol=0.35)


def test_nothing_is_compiled_anew(problem, quick):
    before = advance._cache_size()
    data = problem.data | {"bend": problem.data["bend"] * 0.5}
    options = dataclasses.replace(QUICK, target_accept=0.9, max_extensions=1, max_rhat=1.0001)
    problem.run([4, 3, 2], data=data, options=options, seed=77, factor=2 * problem.factor)
    problem.run(ids=problem.ids + 5)
    assert advance._cache_size() == before


def test_extensions_are_longer_and_the_better_run_is_kept(problem, quick):
    options = dataclasses.replace(QUICK, max_extensions=2, max_rhat=1.000001)
    rows = np.arange(6)
    longer = problem.run(rows, options=options)
    np.testing.assert_array_equal(longer.runs, 3)
    assert longer.z.shape == (6, 4, 100, N)
    # Four times as many transitions, thinned: fewer chains disagree, and nothing is worse than the first run.
    badness = [nuts._badness(drawn, options, 1) for drawn in (longer, quick)]
    assert (badness[0] <= badness[1][:6]).all()
    assert (badness[0] < badness[1][:6]).sum() >= 3
    assert (longer.z != quick.z[:6]).any(axis=(1, 2, 3)).sum() >= 3


def test_smaller_steps_where_trajectories_diverge(problem, monkeypatch):
    rows = np.arange(5)
    first = problem.run(rows)
    original = nuts._Run._run_block
    targets = []

    def divergent_at_first(self, mine, device, windows, thin):
        state, found = original(self, mine, device, windows, thin)
        targets.extend(zip(mine.tolist(), self.state.target[mine].tolist()))
        found.divergences[state.target < 0.99] = 3
        return state, found

    monkeypatch.setattr(nuts._Run, "_run_block", divergent_at_first)
    drawn = problem.run(rows, options=dataclasses.replace(QUICK, max_extensions=3, max_rhat=2.0, min_ess=0))
    assert sorted(targets) == [(row, target) for row in range(5) for target in (0.8, 0.95, 0.99)]
    np.testing.assert_array_equal(drawn.runs, 3)
    np.testing.assert_array_equal(drawn.divergences, 0)
    assert (drawn.accept > 0.93).all()
    assert (first.accept < 0.93).all()
    assert (drawn.steps > 1.5 * first.steps).all()


def test_float32(problem, quick):
    drawn = problem.run(precision="float32", options=dataclasses.replace(QUICK, draws=400))
    assert drawn.z.dtype == np.float64
    assert np.array_equal(drawn.z, drawn.z.astype(np.float32))
    z = drawn.z.reshape(ROWS, -1, N)
    assert (np.abs(z.mean(axis=1) - problem.true_mean) < 0.25 * problem.true_sd).all()
    assert jnp.ones(1).dtype == np.float32


def test_calls_from_threads(problem, quick):
    with ThreadPoolExecutor(3) as pool:
        kinds = ["float64", "float32", "float64"]
        single = problem.run(precision="float32")
        for kind, drawn in zip(kinds, pool.map(lambda kind: problem.run(precision=kind), kinds)):
            same(drawn, quick if kind == "float64" else single)


def test_no_lapack(problem):
    """Two threads that call LAPACK from JAX can deadlock."""
    with working_precision("float64"):
        state = first_state(problem.start, problem.guess, problem.factor, 0.8)
        ids = problem.ids.astype(np.uint32)
        rows = Rows(problem.data, state.mean, state.factor, ids, state.stage.astype(np.uint32), state.target)
        schedule = Schedule(np.uint32(1), np.int32(0), np.int32(1), np.int32(1), np.bool_(True))
        leaf_axes = tuple(problem.axes[name] for name in sorted(problem.axes))
        lowered = advance.lower(bent_gaussian, leaf_axes, 250, (6, 10), rows, state.whitened(), state.step, schedule)
    text = lowered.as_text()
    assert "while" in text
    for word in ("lapack", "cholesky", "triangular_solve", "custom_call", "eigh", "householder"):
        assert word not in text, word


def test_progress_ends_with_all_rows(problem):
    calls = []
    problem.run(
        options=dataclasses.replace(QUICK, max_extensions=1, max_rhat=1.02, min_ess=100),
        progress=lambda *call: calls.append(call),
    )
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == ("nuts", ROWS, ROWS)


def test_learning_from_a_window(rng):
    true = np.array([[4.0, 1.2], [1.2, 0.5]])
    z = rng.multivariate_normal([1, 2], true, size=(3, 4, 100))
    z[1] = z[1, :, :1]  # chains that did not move
    z[2, 0, 5] = np.nan
    start = first_state(z[:, :, 0], np.zeros((3, 2)), np.broadcast_to(np.diag([30.0, 0.01]), (3, 2, 2)), 0.8)
    learnt = start.learn(z)
    np.testing.assert_allclose(learnt.mean[0], [1, 2], atol=0.3)
    np.testing.assert_allclose(learnt.factor[0] @ learnt.factor[0].T, true, rtol=0.25)
    np.testing.assert_array_equal(np.triu(learnt.factor, 1), 0)
    assert np.isfinite(learnt.factor).all()
    assert (np.einsum("rii->ri", learnt.factor) > 0).all()
    np.testing.assert_array_equal(learnt.factor[2], start.factor[2])
    np.testing.assert_allclose(learnt.whitened()[0] @ learnt.factor[0].T + learnt.mean[0], z[0, :, 0], atol=1e-12)
    # Every draw the same: the scale shrinks, by as much as is allowed.
    same_place = start.learn(np.ones((3, 4, 50, 2)))
    np.testing.assert_allclose(same_place.factor, 1e-3 * start.factor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chains": 0}, "chains must be 1 or more; got 0"),
        ({"draws": 3}, "draws must be 4 or more; got 3"),
        ({"warmup": ()}, "warmup must"),
        ({"warmup": (100, 5)}, "warmup must"),
        ({"target_accept": 1.0}, "target_accept must"),
        ({"max_tree_depth": 0}, "max_tree_depth must"),
        ({"max_rhat": 1.0}, "max_rhat must"),
        ({"min_ess": -1}, "min_ess must"),
        ({"max_extensions": -1}, "max_extensions must"),
    ],
)
def test_options_are_checked(change, message):
    with pytest.raises(UsageError, match=message):
        NutsOptions(**change)


def test_arguments_are_checked(problem):
    for changes, message in [
        ({"start": problem.start[:, :3]}, "start must have the shape"),
        ({"mean": problem.guess[:, :2]}, "mean must have the shape"),
        ({"factor": problem.factor[:, :2]}, "factor must have the shape"),
        ({"ids": problem.ids + 0.5}, "ids must be whole numbers"),
        ({"ids": problem.ids - 1001}, "ids must be whole numbers"),
        ({"seed": -1}, "seed must lie between"),
        ({"precision": "half"}, "precision must"),
    ]:
        with pytest.raises(UsageError, match=message):
            problem.run(**changes)
    start, guess = problem.start[:2], (problem.guess[:2], problem.factor[:2])
    with pytest.raises(UsageError, match="data must have 2 rows"):
        run_nuts(bent_gaussian, problem.data, problem.axes, start, *guess, seed=1, ids=np.arange(2))
    with pytest.raises(UsageError, match="data_axes must be 0 or None"):
        run_nuts(bent_gaussian, problem.data, 1, start, *guess, seed=1, ids=np.arange(2))


def test_axes_are_a_prefix():
    data = {"a": (np.zeros(2), np.zeros(3)), "b": np.zeros(4)}
    assert nuts._leaf_axes(0, data) == (0, 0, 0)
    assert nuts._leaf_axes(None, data) == (None, None, None)
    assert nuts._leaf_axes({"a": 0, "b": None}, data) == (0, 0, None)
    assert nuts._leaf_axes({"a": (None, 0), "b": 0}, data) == (None, 0, 0)
    assert jax.tree.leaves(data)[1].shape == (3,)
