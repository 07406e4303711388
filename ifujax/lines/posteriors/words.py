"""Posteriors in words: one spaxel, or one line on all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ifujax.inference import status as bits
from ifujax.inference.sampling.draws import TIERS
from ifujax.inference.status import POSTERIOR_FLAGS, STATUS_FLAGS, decode
from ifujax.lines.noise import in_words
from ifujax.lines.posteriors.chunks import error_scale, problem
from ifujax.lines.posteriors.sampled import CONTINUUM, RATIO, WIDTH
from ifujax.lines.posteriors.store import width_percent

if TYPE_CHECKING:
    from ifujax.lines.posteriors.results import CubePosterior
    from ifujax.lines.results import CubeFit

_LIMITED = ("flux", "amplitude", "equivalent_width")
"""What a limit is given for where a line is not detected."""
_GOOD_KHAT = 0.5


def description(post: CubePosterior, x: int, y: int) -> str:
    """Return the posterior of one spaxel in words and numbers."""
    row = post.fit._row(x, y)
    head, status = f"spaxel x={x}, y={y}: ", int(post.status.flat[row])
    k = int(post.chosen.index[row])
    if k < 0:
        if not post.chosen.asked[row]:
            return head + "not sampled: not asked for."
        return head + f"not sampled: {_without_fit(post.fit, row)}."
    if status & bits.NO_DRAWS.value:
        return head + "not sampled: " + bits.NO_DRAWS.sentence + "."
    text = [f"{head}{post.draws_per_spaxel} draws by {_how(post, k)}"]
    text += [f"  caution: {flag.sentence}" for flag in decode(status, POSTERIOR_FLAGS)]
    for i, line in enumerate(post.lines):
        detected = bool(post.detected(line)[y, x])
        rest = post.fit.setup.lines[i].rest_wavelength
        text.append(f"  {line} ({rest:g} Angstrom)" + ("" if detected else ": not detected, 95 % limits of its strength"))
        for name in post.quantities:
            limit = name in _LIMITED and not detected
            text += _shown(post, name, i, k, name, limit=limit)
    titles = {RATIO: "log {}", WIDTH: f"W{width_percent(post.fit):g} of {{}}", CONTINUUM: "continuum coefficient {}"}
    for variable, title in titles.items():
        for i, name in enumerate(post.layout.variables.get(variable, ())):
            text += _shown(post, variable, i, k, title.format(name), indent="  ")
    home = post.chosen.rows[k]
    if post.fit.found.warn[home] & bits.NOISE_ESTIMATED.value:
        text.append("  note: the noise was estimated from the data and is taken for known")
    scale = float(error_scale(post.fit, np.array([home]))[0])
    if scale != 1.0:
        text.append(f"  note: noise times {scale:.3g}, the root of the reduced chi2")
    if post.fit.fitter.correlation is not None and post.fit.fitter.pooled is not None:
        text.append(f"  note: noise that is correlated along wavelength: {in_words(post.fit.fitter.pooled)}")
    return "\n".join([*text, "  priors:", *(f"    {line}" for line in priors_of(post, int(home)).splitlines())])


def _without_fit(fit: CubeFit, row: int) -> str:
    """Return why a spaxel that was asked for (flat index) can't be sampled."""
    why = decode(int(fit.found.status[row]), STATUS_FLAGS)
    if why:
        return "no fit: " + "; ".join(flag.sentence for flag in why)
    chi2, mode = float(fit.reduced_chi2.flat[row]), fit.config.fit.noise
    return f"no noise: it is scaled by the root of the reduced chi2 (noise: {mode}), which is {chi2:.3g}"


def priors_of(post: CubePosterior, row: int) -> str:
    """Return a table of the priors of one spaxel (flat index)."""
    posed = problem(post.fit, np.array([row]))
    space = posed.priors.first().of(post.fit.setup.space)
    text = space.describe()
    if posed.priors.continuum.size:
        text += f"\ncontinuum coefficients: Normal(0, {posed.priors.continuum[0, 0]:.4g})"
    return text


def summary(post: CubePosterior) -> str:
    """Return one line about all spaxels."""
    sampled = post.chosen.index >= 0
    tier, status = post.tier.ravel()[sampled], post.status.ravel()[sampled]
    parts = [f"{int((tier == k).sum())} by {_named(k)}" for k in range(1, len(TIERS)) if (tier == k).any()]
    doubtful = [
        f"{int(((status & flag.value) != 0).sum())} {flag.name.replace('_', ' ')}"
        for flag in POSTERIOR_FLAGS
        if (status & flag.value).any()
    ]
    caution = f"; {int((status != 0).sum())} not to be trusted ({', '.join(doubtful)})" if doubtful else ""
    count, missing = int(sampled.sum()), int((post.chosen.asked & ~sampled).sum())
    without = f", {missing} without a fit" if missing else ""
    return (
        f"{count} spaxel{'' if count == 1 else 's'} sampled ({', '.join(parts) or 'none with draws'}){without}; "
        f"{post.draws_per_spaxel} draws each{caution}; {post.seconds:.1f} s"
    )


def _named(tier: int) -> str:
    return "NUTS" if TIERS[tier] == "nuts" else "importance sampling"


def _how(post: CubePosterior, k: int) -> str:
    known = {name: values[k] for name, values in post.sampled.diagnostics.items()}
    khat = known["khat"]
    if TIERS[int(known["tier"])] == "nuts":
        count = int(known["divergences"])
        told = f"{count} divergence{'' if count == 1 else 's'}" if count else "no divergences"
        before = f" (importance sampling had k-hat {khat:.2f})" if np.isfinite(khat) else ""
        return (
            f"NUTS{before}: R-hat {known['rhat']:.3f}, effective draws {known['ess_bulk']:.0f} for the centre and "
            f"{known['ess_tail']:.0f} for the tails, {told}"
        )
    verdict = "good" if khat < _GOOD_KHAT else "sufficient" if khat < post.sampling.max_khat else "too high"
    return f"importance sampling: Pareto k-hat {khat:.2f} ({verdict}), {known['ess']:.0f} effective draws"


def _shown(
    post: CubePosterior, variable: str, element: int, k: int, title: str, *, limit: bool = False, indent: str = "    "
) -> list[str]:
    """Return the line about one quantity; none where it has no value."""
    low5, low, middle, high, high95 = post.sampled.summary[variable][k, element, [1, 2, 3, 4, 5]].astype(np.float64)
    if not np.isfinite(middle):
        return []
    unit = post.units[variable]
    if limit:
        # Equivalent widths of emission are negative; where both signs are allowed the limit is the upper one.
        number = f"> {low5:.5g}" if variable == "equivalent_width" else f"< {high95:.5g}"
    else:
        number = f"{middle:12.5g} +{high - middle:.2g} -{middle - low:.2g}"
    return [f"{indent}{title:<24}{number:>12} {unit}".rstrip()]
