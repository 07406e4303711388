"""The command ``ifujax fit-cube``."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ifujax.cli.inputs import read_cube_as
from ifujax.cli.outputs import Keeping, Outputs, held, plan_outputs, process_each, write_output
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.resume import run_identity
from ifujax.cli.runtime import compilation_time, prepare
from ifujax.cli.select import SUFFIX, CandidatesOption, Selection, SelectOption, ThresholdOption
from ifujax.errors import UsageError

if TYPE_CHECKING:
    from ifujax.lines.config import LineFitConfig

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
NoiseOption = Annotated[
    Literal["given", "scaled", "correlated"] | None,
    typer.Option(
        "--noise", help="What errors rest on: given variances; these times chi2; or correlated too. Wins over [fit] noise."
    ),
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
    noise: NoiseOption = None,
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

    every = [with_noise(read_config(each), noise) for each in config]
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

    process_each(cubes, plans, fit, lock=lock, quiet=quiet)


def with_noise(config: LineFitConfig, noise: Literal["given", "scaled", "correlated"] | None) -> LineFitConfig:
    """Return a configuration with the noise that the command asks for, if it does."""
    if noise is None:
        return config
    text = {**config.text, "fit.noise": noise} if config.text else config.text
    return replace(config, fit=replace(config.fit, noise=noise, scale_errors=False), text=text)


def fit_one(
    path: Path,
    config: LineFitConfig,
    outputs: Outputs,
    overwrite: bool,
    precision: str = "float64",
    chunk_size: int | None = None,
    quiet: bool = False,
    line: str | None = None,
    keeping: Keeping | None = None,
    selection: Selection | None = None,
) -> tuple[Any, str]:
    """Read, fit and write one cube; return the `CubeFit` and a line that sums it up. The page shows `line`, or the strongest.

    With a `selection` its candidates are fitted, and it is a `ComponentFit`; `config` then says how the cube is read.
    """
    began = time.monotonic()
    keeping = keeping or Keeping()
    try:
        identify = selection.identity if selection is not None else partial(run_identity, config=config)
        identity = identify(path, precision=precision, chunk_size=chunk_size, device=keeping.device)
    except OSError:
        read_cube_as(path, config.loading)  # which says what is wrong with it
        raise
    with held(path.name, outputs, identity, overwrite, keeping, quiet) as store, ProgressReporter(quiet) as progress:
        progress("read", 0, 1)
        cube = read_cube_as(path, config.loading)
        from ifujax.lines.run import fit_cube as fit_lines  # jax and all the rest: not before the file is known to be good

        with compilation_time() as compiled:
            run = partial(fit_lines, cube, config) if selection is None else partial(selection.fit, cube)
            fit: Any = run(progress=progress, precision=precision, chunk_size=chunk_size, checkpoint=store)
        progress("write", 0, 1)
        write_output(outputs.product, overwrite, store, fit.write)
        write_output(outputs.maps, overwrite, store, lambda draft: fit.write_maps(draft))
        for each, candidate in zip(outputs.candidates, fit.fits if outputs.candidates else ()):
            write_output(each, overwrite, store, candidate.write)
        write_output(outputs.page, overwrite, store, lambda draft: fit.plot_page(line).savefig(draft, format="png", dpi=120))
    if config.fit.disp and not quiet:
        for y, x in zip(*(fit.status == 0).nonzero()):
            typer.echo(fit.describe(int(x), int(y)))
    everything = time.monotonic() - began
    seconds = f"{compiled.seconds:.1f} s of them compiling ({everything:.1f} s with reading and writing)"
    return fit, f"{fit.summary()}, {seconds}"
