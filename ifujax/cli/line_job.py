"""What the commands that fit lines do with one input: its name, its identity, and the work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifujax.cli.inputs import read_cube_as, read_spectrum_as
from ifujax.cli.job import Run
from ifujax.cli.options import Noise
from ifujax.cli.outputs import Outputs, product_name, require_distinct, require_single, stem
from ifujax.cli.resume import run_identity
from ifujax.cli.select import SUFFIX, Selection
from ifujax.errors import UsageError

if TYPE_CHECKING:
    from ifujax.lines.config import LineFitConfig, OutputOptions
    from ifujax.lines.results import CubeFit
    from ifujax.lines.selection.results import ComponentFit

_DPI = 120
_WITHOUT_EFFECT = frozenset(
    f"{section}.{option}"
    for section, options in {
        "fit": ("write_fits", "writefits", "out_image", "outimage", "suffix", "overwrite", "verbose"),
        "minimization": ("disp", "workers"),
    }.items()
    for option in options
)
"""Options that say where results go, not what they are."""


def configurations(paths: Sequence[Path], noise: Noise | None) -> list[LineFitConfig]:
    """Read configurations, with the noise that the command asks for, if it does."""
    from ifujax.lines.dialect import read_config

    every = [read_config(path) for path in paths]
    if noise is None:
        return every
    return [
        replace(
            config,
            fit=replace(config.fit, noise=noise, scale_errors=False),
            text={**config.text, "fit.noise": noise} if config.text else config.text,
        )
        for config in every
    ]


def plan_outputs(
    cubes: Sequence[Path],
    options: OutputOptions,
    *,
    output: Path | None = None,
    maps: Path | None = None,
    plot: bool = False,
    kind: str = "cube",
    candidates: Sequence[str] = (),
) -> list[Outputs]:
    """Name the files of every input's fit: ``product``, ``maps``, ``page`` and the names of candidates. Messages call it `kind`.

    Raises
    ------
    UsageError
        If two inputs would write to one file, a product would replace its own input, or nothing would be written.
    """
    require_single(cubes, kind, {"--output": output, "--maps": maps, "[fit] out_image": options.out_image})
    if not options.write_fits and output is None and maps is None and not plot:
        raise UsageError("a product must be asked for; got write_fits: no, and nothing else to make. Set write_fits: yes.")
    plans = []
    for path in cubes:
        product = output or Path(options.out_image or product_name(path, options.suffix))
        files = {
            "product": product if options.write_fits or output is not None else None,
            "maps": maps,
            "page": product.with_name(stem(product) + ".png") if plot else None,
        }
        plans.append(Outputs({**files, **{_candidate(name): _candidate_path(product, name) for name in candidates}}))
    require_distinct(cubes, plans, kind, "use --output or another suffix")
    return plans


def _candidate(name: str) -> str:
    """The key of a candidate's product: names of candidates are the user's."""
    return f"candidate {name}"


def _candidate_path(product: Path, name: str) -> Path:
    from ifujax.lines.selection.product import candidate_path

    return candidate_path(product, name)


@dataclass(frozen=True)
class CubeWork:
    """Reading, fitting and writing of one cube.

    Attributes
    ----------
    config : LineFitConfig
        With a `selection`, only how the cube is read is taken from it.
    selection : Selection, optional
        Candidates to be fitted instead.
    precision, chunk_size, device
        As the options.
    line : str, optional
        Shown by the page; the strongest by default.
    """

    config: LineFitConfig
    selection: Selection | None = None
    precision: str = "float64"
    chunk_size: int | None = None
    device: str | None = None
    line: str | None = None

    def plan(self, cubes: Sequence[Path], **files: Any) -> list[Outputs]:
        """Name the files of every cube: see `plan_outputs`."""
        options = self.config.output
        if self.selection is not None:
            options = replace(options, write_fits=True, out_image=None, suffix=SUFFIX)
        return plan_outputs(cubes, options, **files)

    def identify(self, path: Path) -> dict[str, str]:
        """Return what the fit of the cube at `path` depends on."""
        options = {"precision": self.precision, "chunk_size": self.chunk_size, "device": self.device}
        try:
            if self.selection is None:
                return line_identity(path, self.config, **options)
            return {
                f"{name} of {candidate}": value
                for candidate, config in zip(self.selection.names, self.selection.configs)
                for name, value in line_identity(path, config, **options).items()
            }
        except OSError:
            read_cube_as(path, self.config.loading)  # which says what is wrong with it
            raise

    def fit(self, run: Run) -> CubeFit | ComponentFit:
        """Read and fit a cube, and write what is asked for."""
        run.progress("read", 0, 1)
        cube = read_cube_as(run.path, self.config.loading)
        from ifujax.lines.run import fit_cube  # jax and all the rest: not before the file is known to be good

        with run.counting_compilation():
            options: dict[str, Any] = {
                "progress": run.progress,
                "precision": self.precision,
                "chunk_size": self.chunk_size,
                "checkpoint": run.store,
            }
            fit: Any = fit_cube(cube, self.config, **options) if self.selection is None else self.selection.fit(cube, **options)
        run.progress("write", 0, 1)
        run.write("product", fit.write)
        run.write("maps", lambda draft: fit.write_maps(draft))
        if self.selection is not None:
            for name, candidate in zip(self.selection.names, fit.fits):
                run.write(_candidate(name), candidate.write)
        run.write("page", lambda draft: fit.plot_page(self.line).savefig(draft, format="png", dpi=_DPI))
        return fit

    def summary(self, run: Run) -> str:
        """Fit a cube, and return what to print."""
        fit: Any = self.fit(run)
        lines = [f"{run.path.name}: {fit.summary()}, {run.times}"]
        if self.config.fit.disp and not run.job.quiet:
            lines[:0] = [fit.describe(int(x), int(y)) for y, x in zip(*(fit.status == 0).nonzero())]
        return "\n".join(lines)


def spectrum_work(config: LineFitConfig, precision: str, focused: bool) -> Callable[[Run], str]:
    """Return the work that reads, fits and writes a spectrum and returns what was found."""

    def work(run: Run) -> str:
        run.progress("read", 0, 1)
        spectrum = read_spectrum_as(run.path, config.loading)
        from ifujax.lines.spectrum import fit_spectrum  # jax: not before the file is known to be good

        run.progress("compile", 0, 1)
        fit = fit_spectrum(spectrum, config, precision=precision)
        run.progress("write", 0, 1)
        run.write("product", fit.write)
        run.write("page", lambda draft: fit.plot(focused=focused).savefig(draft, format="png", dpi=_DPI))
        return f"{fit.describe()}\n  {run.elapsed:.1f} s with compiling, reading and writing"

    return work


def line_identity(path: Path, config: LineFitConfig, **options: object) -> dict[str, str]:
    """Return what the fit of the file at `path` depends on: see `run_identity`.

    The configuration counts as written and as understood, with what it reads from other files, such as the table of an LSF.
    """
    fit = replace(config.fit, verbose=False, disp=False)
    understood = (config.loading, config.continuum, fit, config.equivalent_width, config.model.lsf)
    facts = {
        "order of the lines": ", ".join(config.model.names),
        "configuration": hashlib.sha256(repr(understood).encode()).hexdigest()[:16],
    }
    facts |= {f"option {option}": value for option, value in config.text.items() if option not in _WITHOUT_EFFECT}
    return run_identity({"input": path}, facts, **options)
