"""What ``fit-cube`` does with several configurations: candidates, of which each spaxel gets one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ifujax.errors import IfujaxWarning, UsageError

if TYPE_CHECKING:
    from ifujax.data.cube import Cube
    from ifujax.lines.config import LineFitConfig
    from ifujax.lines.selection.results import ComponentFit

SUFFIX = "_components"
"""What is added to the cube's name."""

Criterion = Literal["bic", "aic"]
SelectOption = Annotated[
    Criterion | None, typer.Option("--select", help="With two or more -c: choose one of them in each spaxel by this criterion.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", metavar="X", help="With --select: by how much the criterion must fall for more components."),
]
CandidatesOption = Annotated[
    bool, typer.Option("--candidates", help="With --select: also write the whole product of each configuration.")
]


@dataclass(frozen=True)
class Selection:
    """Candidates and how to choose among them."""

    configs: tuple[LineFitConfig, ...]
    names: tuple[str, ...]
    criterion: Criterion
    threshold: float | None

    @classmethod
    def of(
        cls,
        configs: Sequence[LineFitConfig],
        criterion: Criterion | None,
        threshold: float | None,
        *,
        candidates: bool = False,
        maps: Path | None = None,
    ) -> Selection | None:
        """Return what several configurations ask for; None for a single one.

        Raises
        ------
        UsageError
            For options that don't go together, and candidates that can't be compared.
        """
        if criterion is None:
            if len(configs) > 1:
                raise UsageError(f"-c must be given once without --select; got {len(configs)}. Add --select bic (or aic).")
            for option, given in (("--threshold", threshold is not None), ("--candidates", candidates)):
                if given:
                    raise UsageError(f"{option} must be given with --select; got it alone. Add --select bic and a second -c.")
            return None
        if len(configs) < 2:
            raise UsageError("-c must be given twice or more with --select; got one. Add the other candidate's configuration.")
        if maps is not None:
            raise UsageError(f"--maps must be left out with --select; got {maps}. The product holds one image per quantity.")
        from ifujax.lines.selection.criteria import check_criterion
        from ifujax.lines.selection.run import candidate_names, check_alike

        check_criterion(criterion, threshold)
        names = candidate_names(configs)
        check_alike(configs, names)
        for config, name in zip(configs, names):
            if config.loading != configs[0].loading:
                raise UsageError(
                    f"[loading] must be the same in all configurations, which are fitted to one cube; got differences between "
                    f"{names[0]} and {name}. Make them alike."
                )
        if any(config.output.out_image is not None or not config.output.write_fits for config in configs):
            warnings.warn(
                f"no effect with --select: [fit] out_image and write_fits. The product is called as the cube with {SUFFIX}, "
                "or what --output says.",
                IfujaxWarning,
                stacklevel=2,
            )
        return cls(tuple(configs), names, criterion, threshold)

    def fit(self, cube: Cube, **options: Any) -> ComponentFit:
        """Fit all candidates and choose."""
        from ifujax.lines.selection.run import fit_components

        return fit_components(cube, self.configs, criterion=self.criterion, threshold=self.threshold, names=self.names, **options)
