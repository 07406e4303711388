"""The files that a command makes: their names, what may be replaced, and how a run holds and writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ifujax.cli.messages import report
from ifujax.cli.resume import claim
from ifujax.errors import DataError, UsageError

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore
    from ifujax.lines.config import OutputOptions


@dataclass(frozen=True)
class Outputs:
    """The files that are made of one input; None for those not asked for."""

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


@dataclass(frozen=True)
class Keeping:
    """How a run keeps its chunks and its outputs: see `claim`."""

    resume: bool = True
    lock_files: bool = False
    device: str | None = None


@contextmanager
def held(
    name: str, outputs: Outputs, identity: dict[str, str], overwrite: bool, keeping: Keeping, quiet: bool
) -> Iterator[ChunkStore]:
    """Hold the outputs of an input called `name`, and yield the store of its chunks, which goes when all are written.

    Raises
    ------
    OutputTakenError, DataError
        As `claim` and `Outputs.check`.
    """
    with claim(outputs.written, identity, resume=keeping.resume, lock_files=keeping.lock_files) as store:
        outputs.check(overwrite, store.made)  # once more: now nobody else writes them
        if store.resumed and not quiet:
            chunks = "chunk" if store.resumed == 1 else "chunks"
            typer.echo(f"{name}: going on from {store.resumed} finished {chunks} of an earlier run")
        yield store
        store.remove()


def write_output(path: Path | None, overwrite: bool, store: ChunkStore, write: Callable[[Path], object]) -> None:
    """Write one output under another name; rename it when it is complete, and known to be this run's."""
    from ifujax.io.output import atomic_path, check_output

    if path is None:
        return
    with atomic_path(path, overwrite or store.made(path)) as draft:
        write(draft)
        check_output(path, overwrite or store.made(path))  # what took its place meanwhile is not ours
        store.announce(path, draft)


def process_each(
    paths: Sequence[Path], plans: Sequence[Outputs], process: Callable[[Path, Outputs], str], *, lock: bool, quiet: bool
) -> None:
    """Process one input after the other and print what `process` says; a bad one, or another run's, doesn't stop the others.

    Raises
    ------
    typer.Exit
        With code 1, at the end, if one of several failed; the error itself if there is only one.
    """
    from ifujax.io.locks import OutputTakenError

    failed = False
    for path, plan in zip(paths, plans):
        try:
            text = process(path, plan)
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
    """Name the files of every input's fit; messages call it `kind`.

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
        plans.append(
            Outputs(
                product=product if options.write_fits or output is not None else None,
                maps=maps,
                page=product.with_name(stem(product) + ".png") if plot else None,
                candidates=tuple(_candidate_path(product, name) for name in candidates),
            )
        )
    require_distinct(cubes, plans, kind, "use --output or another suffix")
    return plans


def require_single(paths: Sequence[Path], kind: str, given: dict[str, object]) -> None:
    """Raise UsageError where an option that names one file is given with several inputs."""
    for option, value in given.items():
        if value is not None and len(paths) > 1:
            raise UsageError(f"{option} must be given with one {kind} only; got {len(paths)} of them. Leave it out.")


def require_distinct(paths: Sequence[Path], plans: Sequence[Outputs], kind: str, advice: str) -> None:
    """Raise UsageError where two files to be written are one, or one of them is an input."""
    taken = [each.resolve() for each in paths]
    for plan in plans:
        for each in plan.written:
            if each.resolve() in taken:
                raise UsageError(
                    f"each product must have a name of its own, different from the inputs; got {each} twice. "
                    f"Rename a {kind}, or {advice}."
                )
            taken.append(each.resolve())


def _candidate_path(product: Path, name: str) -> Path:
    from ifujax.lines.selection.product import candidate_path

    return candidate_path(product, name)


def product_name(cube: Path, suffix: str) -> str:
    """Return the cube's name without folder and FITS endings, with `suffix` and ``.fits`` added."""
    return f"{stem(cube)}{suffix}.fits"


def stem(path: Path) -> str:
    """Return a file's name without FITS endings and those of compression."""
    return re.sub(r"(?i)(\.(fits|fit|fts))?(\.(gz|bz2|fz))?$", "", path.name, count=1) or path.name
