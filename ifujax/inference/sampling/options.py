"""How posteriors are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ifujax.errors import UsageError, unknown

Method = Literal["auto", "importance", "nuts"]


@dataclass(frozen=True)
class SamplingOptions:
    """Options of `sample_batch`.

    Parameters
    ----------
    method : "auto", "importance" or "nuts"
        Importance sampling first and NUTS for what fails it; or one of the two for all.
    draws : int
        Draws that are returned of each fit, all chains together; a multiple of `chains`.
    chains : int
        Chains of NUTS; draws of importance sampling, which have no order, are dealt to as many.
    max_khat : float
        Importance sampling is accepted below this Pareto k-hat.
    min_ess : float
        Draws of either method are accepted above this effective number of what is returned, for every parameter and in its
        tails; or above half of `draws`, if that is less.
    max_pull, least_distinct : float
        Importance sampling is accepted where two halves agree in the tails of every parameter within this many errors, and
        at least this share of the draws is distinct.
    max_rhat, min_chain_ess : float
        NUTS is accepted below this R-hat and above this effective sample size of all chains, bulk and tail, without
        divergences.
    proposals : int
        Points weighed for each draw that is returned.
    pilot, starts : int
        Points of the first round, which only says where to go on, and least-squares fits from the best of those from the
        prior, which look for other solutions than the fit's; 0 for none. As many for every two parameters to sample.
    rounds : int
        Rounds at most: fits that fail one go on with more points.
    prior_share : float
        Share of the points that comes from the prior, whatever the fit says.
    inflate : float
        How much wider than what was found the proposal is.
    max_sampled : int
        With "auto", fits with more parameters to sample than this go to NUTS at once.
    chain_draws : int
        Draws of each chain at first; chains that fail go on.
    """

    method: Method = "auto"
    draws: int = 1000
    chains: int = 4
    max_khat: float = 0.7
    min_ess: float = 200.0
    max_pull: float = 4.0
    least_distinct: float = 0.5
    max_rhat: float = 1.01
    min_chain_ess: float = 400.0
    proposals: int = 2
    pilot: int = 512
    starts: int = 6
    rounds: int = 6
    prior_share: float = 0.15
    inflate: float = 1.2
    max_sampled: int = 12
    chain_draws: int = 500

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(unknown("method", str(self.method), get_args(Method)))
        for name, least in (
            ("draws", 1),
            ("chains", 1),
            ("proposals", 1),
            ("pilot", 64),
            ("starts", 0),
            ("rounds", 1),
            ("chain_draws", 50),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
                raise UsageError(f"{name} must be a whole number, {least} or more; got {value!r}.")
        if self.draws % self.chains:
            above = -(-self.draws // self.chains) * self.chains
            raise UsageError(f"draws must be a multiple of the {self.chains} chains; got {self.draws}. Say {above}.")
        if not 0 < self.prior_share < 1:
            raise UsageError(f"prior_share must lie between 0 and 1; got {self.prior_share}.")
        if not 0 <= self.least_distinct <= 1:
            raise UsageError(f"least_distinct must lie between 0 and 1; got {self.least_distinct}.")
        for name in ("max_khat", "min_ess", "max_pull", "max_rhat", "min_chain_ess", "inflate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive; got {getattr(self, name)}.")

    @property
    def needed(self) -> float:
        """Effective number of draws from which on they are enough."""
        return min(self.min_ess, 0.5 * self.draws)

    def searched(self, n_sampled: int) -> tuple[int, int]:
        """Return points of the pilot and starts for so many parameters to sample."""
        times = -(-n_sampled // 2)
        return self.pilot * times, self.starts * times
