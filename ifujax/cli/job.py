"""What every command does around its work: hold outputs, show progress, go through the inputs, report, resume.

A command makes a `Job` of its inputs and the files planned for each, and calls `Job.run` with the function that does the work
on one input. That function gets a `Run`, and returns what to print.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ifujax.cli.messages import report
from ifujax.cli.outputs import Outputs
from ifujax.cli.progress import ProgressReporter
from ifujax.cli.resume import claim
from ifujax.cli.runtime import compilation_time
from ifujax.errors import DataError

if TYPE_CHECKING:
    from ifujax.io.checkpoint import ChunkStore


@dataclass
class Run:
    """The work on one input, while its outputs are held: see `Job.run`.

    Attributes
    ----------
    job : Job
    path : Path
        The input.
    outputs : Outputs
    progress : ProgressReporter
        The ``progress=`` of the library.
    store : ChunkStore or None
        The ``checkpoint=`` of the library; None where the job has no `identify`, and thus keeps no chunks.
    """

    job: Job
    path: Path
    outputs: Outputs
    progress: ProgressReporter
    store: ChunkStore | None
    _began: float
    _compiling: float = 0.0

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Write the output called `name`, if it is asked for: under another name, which is changed when it is complete.

        Parameters
        ----------
        name : str
            A key of `outputs`.
        write : callable
            Makes the file whose path it gets.

        Raises
        ------
        UsageError, DataError
            As `ifujax.io.output.atomic_path`.
        """
        from ifujax.io.output import atomic_path, check_output

        path = self.outputs.get(name)
        if path is None:
            return
        with atomic_path(path, self.job.overwrite or self._mine(path)) as draft:
            write(draft)
            check_output(path, self.job.overwrite or self._mine(path))  # what took its place meanwhile is not ours
            if self.store is not None:
                self.store.announce(path, draft)

    def finished(self, name: str) -> bool:
        """Whether the output called `name` is complete already, by this run or by the killed one that it goes on from."""
        return self.job.resume and name in self.outputs and self._mine(self.outputs[name])

    @contextmanager
    def counting_compilation(self) -> Iterator[None]:
        """Count what is compiled within the block, for `times`. It imports jax."""
        with compilation_time() as compiled:
            yield
        self._compiling += compiled.seconds

    @property
    def elapsed(self) -> float:
        """Seconds since the run took up this input."""
        return time.monotonic() - self._began

    @property
    def times(self) -> str:
        """How long it took, for the end of a summary."""
        return f"{self._compiling:.1f} s of them compiling ({self.elapsed:.1f} s with reading and writing)"

    def _mine(self, path: Path) -> bool:
        return self.store is not None and self.store.made(path)


class Failures:
    """What went wrong with some of several inputs, which doesn't stop the others.

    Parameters
    ----------
    count : int
        Inputs. The error of a single one is raised.

    Attributes
    ----------
    seen : bool
        Whether anything failed.
    """

    def __init__(self, count: int) -> None:
        self._alone = count == 1
        self.seen = False

    def add(self, path: Path, error: Exception) -> None:
        """Report what is wrong with the input at `path`; raise it if that is the only one."""
        if self._alone:
            raise error
        self.note(path, error)

    def note(self, path: Path, error: Exception) -> None:
        """Report what is wrong with one of the outputs, and go on."""
        report("error", f"{path}: {error}")
        self.seen = True

    def exit(self) -> None:
        """End the command with exit code 1, if anything failed."""
        if self.seen:
            raise typer.Exit(1)


@dataclass(frozen=True)
class Job:
    """A command's inputs and the files to be made of each.

    Parameters
    ----------
    inputs : sequence of Path
    plans : sequence of Outputs
        One for each input.
    overwrite, quiet, lock, resume : bool
        As the options ``--overwrite``, ``--quiet`` and ``--lock``, and the opposite of ``--no-resume``.
    unit : str
        What progress counts: spaxels, images, sources, slits. Work with steps that count different things sets
        ``run.progress.unit`` at each.
    common : Outputs
        Files that are made of all inputs together, such as a table.

    Raises
    ------
    DataError
        Now, for a file that could not be written after the work, such as one that exists without `overwrite`.

    Examples
    --------
    >>> job = Job([Path("a.fits")], [Outputs({"product": Path("a_doubled.fits")})])  # doctest: +SKIP
    >>> job.run(lambda run: run.write("product", double) or f"{run.path.name}: doubled")  # doctest: +SKIP
    """

    inputs: Sequence[Path]
    plans: Sequence[Outputs]
    _: KW_ONLY
    overwrite: bool = False
    quiet: bool = False
    lock: bool = False
    resume: bool = True
    unit: str = "spaxels"
    common: Outputs = field(default_factory=Outputs)

    def __post_init__(self) -> None:
        for plan in self.plans:
            plan.check(self.overwrite or self.lock)  # with --lock, what exists is skipped at its turn
        self.common.check(self.overwrite)

    def run(self, work: Callable[[Run], str], identify: Callable[[Path], dict[str, str]] | None = None) -> None:
        """Do `work` on one input after the other and print what it returns; a bad one, or another run's, doesn't stop the others.

        Parameters
        ----------
        work : callable
            Gets a `Run`. Reads, computes, calls `Run.write` for each output, and returns a text for the user.
        identify : callable, optional
            Returns everything that the results of an input depend on: see `ifujax.cli.resume.run_identity`. With it finished
            chunks are kept, and the same command goes on where it was killed.

        Raises
        ------
        typer.Exit
            With code 1, at the end, if one of several failed; the error itself if there is only one.
        """
        from ifujax.io.locks import OutputTakenError

        failures = Failures(len(self.inputs))
        with self._common_held():
            for path, outputs in zip(self.inputs, self.plans):
                try:
                    with self.hold(path, outputs, identify(path) if identify is not None else None) as run:
                        text = work(run)
                except (DataError, OSError) as error:
                    if self.lock and isinstance(error, OutputTakenError):
                        self._say(f"{path.name}: skipped: {error}")
                    else:
                        failures.add(path, error)  # the others may well be good
                    continue
                self._say("\n".join([text, *(f"  wrote {each}" for each in outputs.written)]))
        failures.exit()

    @contextmanager
    def hold(self, path: Path, outputs: Outputs, identity: dict[str, str] | None = None) -> Iterator[Run]:
        """Hold the outputs of the input at `path`, and yield the `Run`. Its chunks go when the block ends without an error.

        Raises
        ------
        OutputTakenError, DataError
            As `claim` and `Outputs.check`.
        """
        began = time.monotonic()
        with claim(outputs, identity, resume=self.resume, lock_files=self.lock) as store:
            outputs.check(self.overwrite, _nothing if store is None else store.made)  # once more: now nobody else writes them
            if store is not None and store.resumed:
                chunks = "chunk" if store.resumed == 1 else "chunks"
                self._say(f"{path.name}: going on from {store.resumed} finished {chunks} of an earlier run")
            with ProgressReporter(self.quiet, unit=self.unit) as progress:
                yield Run(self, path, outputs, progress, store, began)
            if store is not None:
                store.remove()

    @contextmanager
    def hold_all(self, failures: Failures) -> Iterator[list[int]]:
        """Hold the outputs of all inputs at once, for work that takes several at a time; such a job keeps no chunks.

        Yields
        ------
        list of int
            The inputs whose outputs are held, counted from 0; the others have been added to `failures`.
        """
        from ifujax.io.locks import allow_open_files

        allow_open_files(sum(len(plan.held) for plan in self.plans))
        with ExitStack() as stack:
            stack.enter_context(self._common_held())
            held = []
            for i, (path, outputs) in enumerate(zip(self.inputs, self.plans)):
                try:
                    stack.enter_context(claim(outputs, None, resume=False, lock_files=self.lock))
                    outputs.check(self.overwrite, _nothing)
                except (DataError, OSError) as error:
                    failures.add(path, error)
                    continue
                held.append(i)
            yield held

    @contextmanager
    def _common_held(self) -> Iterator[None]:
        with claim(self.common, None, resume=False, lock_files=False):
            self.common.check(self.overwrite, _nothing)
            yield

    def _say(self, text: str) -> None:
        if not self.quiet:
            typer.echo(text)


def _nothing(path: Path) -> bool:
    """No file may be replaced: without chunks nothing tells who has written it."""
    return False
