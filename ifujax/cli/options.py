"""Options that several commands have, each declared once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from ifujax.errors import UsageError


def _at_least_one_spaxel(chunk_size: int | None) -> int | None:
    if chunk_size is not None and chunk_size < 1:
        raise UsageError(f"--chunk-size must be 1 or more; got {chunk_size}.")
    return chunk_size


ConfigOption = Annotated[
    list[Path], typer.Option("-c", "--config", metavar="FILE", help="Configuration, in the style of IFSCube.")
]
OverwriteOption = Annotated[bool, typer.Option("-o", "--overwrite", help="Replace products that exist.")]
ProductOption = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Name of the product; wins over out_image.")]
DirectoryOption = Annotated[
    Path,
    typer.Option("--directory", metavar="DIR", help="Folder for what is written; it must exist.", show_default="this one"),
]
UnitOption = Annotated[
    str | None,
    typer.Option("--unit", metavar="UNIT", help="Flux unit of MUSE files that have no BUNIT: 1e-20 erg/s/cm2/Angstrom."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="cpu|gpu|cpu:N", help="Where to compute; cpu:4 shows jax four devices.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", metavar="N", help="Processor cores to use; all by default.")]
ChunkOption = Annotated[
    int | None,
    typer.Option(
        "--chunk-size",
        metavar="N",
        callback=_at_least_one_spaxel,
        help="Spaxels in memory at a time; the results don't depend on it.",
    ),
]
PrecisionOption = Annotated[
    Literal["float64", "float32"], typer.Option("--precision", help="float32 is for GPUs; float64 is right anywhere.")
]
Noise = Literal["given", "scaled", "correlated"]
NoiseOption = Annotated[
    Noise | None,
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


def single_config(config: list[Path]) -> Path:
    """Return the one configuration of a command that takes no more.

    Raises
    ------
    UsageError
        For several.
    """
    if len(config) != 1:
        raise UsageError(f"--config must be given once; got {len(config)} configurations. Run the command once for each.")
    return config[0]


def as_given(context: typer.Context) -> str:
    """Return the command as it was given, options first."""
    options, arguments = [], []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[parameter.name or ""]
        values = ["none"] if value is None else list(value) if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            arguments += values
        else:
            options += [parameter.opts[-1]] + ([] if value is True else values)
    return shlex.join(str(each) for each in ["ifujax", context.info_name, *options, *arguments])
