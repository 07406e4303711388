"""The command ``ifujax fit-cube``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ifujax.cli.messages import report
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.resume import claim, run_identity
from ifujax.cli.runtime import compilation_time, prepare
from ifujax.cli.select import SUFFIX, CandidatesOption, Selection, SelectOption, ThresholdOption
from ifujax.errors import DataError, UsageError

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore
    from ifujax.lines.config import LineFitConfig, OutputOptions

DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="cpu|gpu|cpu:N", help="Where to compute; cpu:4 shows jax four devices.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", metavar="N", help="Processor cores to use; all by default.")]
ChunkOption = Annotated[
    int | None, typer.Option("--chunk-size", metavar="N", help="Spaxels in memory at a time; the results don't depend on it.")
]
PrecisionOption = Annotated[
    Literal["float64", "float32"], typer.Option("--precision", help="float32 is for GPUs; float64 is right anywhere.")
]
CacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Don't keep compiled programs for the next run (in your cache folder).")
]
LockOption = Annotated[
    bool,
    typer.Option(
        "-l", "--lock", help="Skip what another run makes or has made; keep <output>.lock meanwhile (as IFSCube does, for farms)."
    ),
]
NoResumeOption = Annotated[
    bool, typer.Option("--no-resume", help="Start afresh where an earlier run was stopped, instead of going on from there.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but warnings and errors.")]


@dataclass(frozen=True)
class Outputs:
    """The files that one cube's fit makes; None for those not asked for."""

    product: Path | None = None
    maps: Path | None = None
    page: Path | None = None
    candidates: tuple[Path, ...] = ()

    def check(self, overwrite: bool, made: Callable[[Path], bool] | None = None) -> None:
        """Raise now for what could not be written after the fit.

        Parameters
        ----------
        overwrite : bool
        made : callable, optional
            Tells of a file whether it may be replaced in any case: by default, those that a run left which was killed
            before it had written all.

        Raises
        ------
        OutputTakenError
            For a file that exists.
        DataError
            For anything else.
        """
        from ifujax.io.checkpoint import left_by_killed_run
        from ifujax.io.locks import OutputTakenError
        from ifujax.io.output import check_output

        for path in self.written:
            mine = left_by_killed_run(self.written[0], path) if made is None else made(path)
            try:
                check_output(path, overwrite or mine)
            except UsageError as error:
                # What lies on the disk is data here: exit code 1.
                raise (OutputTakenError if path.is_file() else DataError)(str(error)) from None

    @property
    def written(self) -> list[Path]:
        return [path for path in (self.product, self.maps, self.page, *self.candidates) if path is not None]


def fit_cube(
    cubes: Annotated[list[Path], typer.Argument(metavar="CUBE...", help="FITS cubes: plain, .gz, .bz2 or .fz.")],
    config: Annotated[
        list[Path],
        typer.Option("-c", "--config", metavar="FILE", help="Configuration, in the style of IFSCube; two or more with --select."),
    ],
    overwrite: Annotated[bool, typer.Option("-o", "--overwrite", help="Replace products that exist.")] = False,
    plot: Annotated[
        bool, typer.Option("-p", "--plot", help="Also draw a page of maps and example spectra (PNG) beside the product.")
    ] = False,
    maps: Annotated[
        Path | None, typer.Option("--maps", metavar="FILE", help="Also write one named 2-D image per quantity and error.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Name of the product; wins over out_image.")
    ] = None,
    select: SelectOption = None,
    threshold: ThresholdOption = None,
    candidates: CandidatesOption = False,
    lock: LockOption = False,
    no_resume: NoResumeOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    chunk_size: ChunkOption = None,
    precision: PrecisionOption = "float64",
    no_cache: CacheOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit emission lines in every spaxel of one or more cubes.

    The product goes to the current folder, as the cube's name with _linefit added, unless the configuration or --output names
    it. Several cubes are fitted one after the other with the same configuration.

    \b
    Example:
      ifujax fit-cube mycube.fits -c halpha.cfg --maps maps.fits -p
      ifujax fit-cube mycube.fits -c one.cfg -c two.cfg --select bic    how many components, spaxel by spaxel

    \b
    halpha.cfg, to start from (comments stand on lines of their own):
      [loading]
      scidata: DATA
      variance: STAT
      redshift: 0.0859
      [fit]
      fitting_window: 6450:6650
      fit_continuum: yes
      [continuum]
      degree: 2
      [ha]
      rest_wavelength: 6562.80
      amplitude: peak, 0:
      velocity: 0, -600:600
      sigma: 120, 20:500
      k_group: 0
      [n2b]
      rest_wavelength: 6583.46
      amplitude: peak, 0:
      k_group: 0

    A run that was stopped, however hard, goes on where it was when the same command is given again.

    Exit code: 0 done, 1 something is wrong with a file, 2 something is wrong with the command or the configuration. A spaxel
    that could not be fitted is no error: see STATUS in the product.
    """
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"--chunk-size must be 1 or more; got {chunk_size}.")
    prepare(device, threads, not no_cache)
    from ifujax.lines.dialect import read_config

    every = [read_config(each) for each in config]
    settings, selection = every[0], Selection.of(every, select, threshold, candidates=candidates, maps=maps)
    plans = plan_outputs(
        cubes,
        settings.output if selection is None else replace(settings.output, write_fits=True, out_image=None, suffix=SUFFIX),
        output=output,
        maps=maps,
        plot=plot,
        candidates=selection.names if selection is not None and candidates else (),
    )
    overwrite = overwrite or all(each.output.overwrite for each in every)
    for plan in plans:
        plan.check(overwrite or lock)  # with --lock, what exists is skipped at its turn
    keeping = Keeping(resume=not no_resume, lock_files=lock, device=device)

    def fit(path: Path, plan: Outputs) -> str:
        _, line = fit_one(path, settings, plan, overwrite, precision, chunk_size, quiet, keeping=keeping, selection=selection)
        return f"{path.name}: {line}"

    fit_each(cubes, plans, fit, lock=lock, quiet=quiet)


def fit_each(
    paths: Sequence[Path], plans: Sequence[Outputs], fit: Callable[[Path, Outputs], str], *, lock: bool, quiet: bool
) -> None:
    """Fit one input after the other and print what `fit` says; one that is bad, or another run's, doesn't stop the others.

    Raises
    ------
    typer.Exit
        With code 1, at the end, if one of several failed; the error itself if there is only one.
    """
    from ifujax.io.locks import OutputTakenError

    failed = False
    for path, plan in zip(paths, plans):
        try:
            text = fit(path, plan)
        except (DataError, OSError) as error:
            if lock and isinstance(error, OutputTakenError):
                if not quiet:
                    typer.echo(f"{path.name}: skipped: {error}")
                continue
            if len(paths) == 1:
                raise
            report("error", f"{path}: {error}")  # the others may well be good
            failed = True
            continue
        if not quiet:
            typer.echo(text)
            for each in plan.written:
                typer.echo(f"  wrote {each}")
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Keeping:
    """How a run keeps its chunks and its outputs: see `claim`."""

    resume: bool = True
    lock_files: bool = False
    device: str | None = None


def fit_one(
    path: Path,
    config: LineFitConfig,
    outputs: Outputs,
    overwrite: bool,
    precision: str = "float64",
    chunk_size: int | None = None,
    quiet: bool = False,
    line: str | None = None,
    keeping: Keeping = Keeping(),
    selection: Selection | None = None,
) -> tuple[Any, str]:
    """Read, fit and write one cube; return the `CubeFit` and a line that sums it up. The page shows `line`, or the strongest.

    With a `selection` its candidates are fitted, and it is a `ComponentFit`; `config` then says how the cube is read.
    """
    from ifujax.io.cubes import read_cube

    began = time.monotonic()
    loading = asdict(config.loading)
    try:
        identify = selection.identity if selection is not None else partial(run_identity, config=config)
        identity = identify(path, precision=precision, chunk_size=chunk_size, device=keeping.device)
    except OSError:
        read_cube(path, **loading)  # which says what is wrong with it
        raise
    with claim(outputs.written, identity, resume=keeping.resume, lock_files=keeping.lock_files) as store:
        outputs.check(overwrite, store.made)  # once more: now nobody else writes them
        if store.resumed and not quiet:
            chunks = "chunk" if store.resumed == 1 else "chunks"
            typer.echo(f"{path.name}: going on from {store.resumed} finished {chunks} of an earlier run")
        with ProgressReporter(quiet) as progress:
            progress("read", 0, 1)
            cube = read_cube(path, **loading)
            from ifujax.lines.run import fit_cube as fit_lines  # jax and all the rest: not before the file is known to be good

            with compilation_time() as compiled:
                run = partial(fit_lines, cube, config) if selection is None else partial(selection.fit, cube)
                fit: Any = run(progress=progress, precision=precision, chunk_size=chunk_size, checkpoint=store)
            progress("write", 0, 1)
            _write(outputs.product, overwrite, store, fit.write)
            _write(outputs.maps, overwrite, store, lambda draft: fit.write_maps(draft))
            for each, candidate in zip(outputs.candidates, fit.fits if outputs.candidates else ()):
                _write(each, overwrite, store, candidate.write)
            _write(outputs.page, overwrite, store, lambda draft: fit.plot_page(line).savefig(draft, format="png", dpi=120))
        store.remove()
    if config.fit.disp and not quiet:
        for y, x in zip(*(fit.status == 0).nonzero()):
            typer.echo(fit.describe(int(x), int(y)))
    everything = time.monotonic() - began
    seconds = f"{compiled.seconds:.1f} s of them compiling ({everything:.1f} s with reading and writing)"
    return fit, f"{fit.summary()}, {seconds}"


def _write(path: Path | None, overwrite: bool, store: ChunkStore, write: Callable[[Path], object]) -> None:
    """Write one output under another name; rename it when it is complete, and known to be this run's."""
    from ifujax.io.output import atomic_path

    if path is None:
        return
    with atomic_path(path, overwrite or store.made(path)) as draft:
        write(draft)
        store.announce(path, draft)


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
    """Name the files of every input; messages call it `kind`.

    Raises
    ------
    UsageError
        If two inputs would write to one file, a product would replace its own input, or nothing would be written.
    """
    if len(cubes) > 1:
        for option, value in (("--output", output), ("--maps", maps), ("[fit] out_image", options.out_image)):
            if value is not None:
                raise UsageError(f"{option} must be given with one {kind} only; got {len(cubes)} of them. Leave it out.")
    if not options.write_fits and output is None and maps is None and not plot:
        raise UsageError("a product must be asked for; got write_fits: no, and nothing else to make. Set write_fits: yes.")
    plans = []
    for path in cubes:
        product = output or Path(options.out_image or product_name(path, options.suffix))
        plan = Outputs(
            product=product if options.write_fits or output is not None else None,
            maps=maps,
            page=product.with_name(_stem(product) + ".png") if plot else None,
            candidates=tuple(_candidate_path(product, name) for name in candidates),
        )
        taken = [each.resolve() for other in plans for each in other.written] + [each.resolve() for each in cubes]
        for number, each in enumerate(plan.written):
            if each.resolve() in taken or each.resolve() in [one.resolve() for one in plan.written[:number]]:
                raise UsageError(
                    f"each product must have a name of its own, different from the inputs; got {each} twice. "
                    f"Rename a {kind}, or use --output or another suffix."
                )
        plans.append(plan)
    return plans


def _candidate_path(product: Path, name: str) -> Path:
    from ifujax.lines.selection.product import candidate_path

    return candidate_path(product, name)


def product_name(cube: Path, suffix: str) -> str:
    """Return the cube's name without folder and FITS endings, with `suffix` and ``.fits`` added."""
    return f"{_stem(cube)}{suffix}.fits"


def _stem(path: Path) -> str:
    return re.sub(r"(?i)(\.(fits|fit|fts))?(\.(gz|bz2|fz))?$", "", path.name, count=1) or path.name
