"""Progress of a fit on the standard error stream: a live line on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_TITLES = {
    "read": "reading",
    "compile": "compiling…",
    "continuum": "continuum",
    "fit": "fitting",
    "refit": "fitting from neighbours",
    "coherence": "comparing minima",
    "monte_carlo": "drawing noise",
    "measure": "fluxes and widths",
    "sample": "sampling",
    "nuts": "NUTS",
    "psf": "fitting the PSF…",
    "scene": "fitting the scene",
    "extract": "extracting",
    "write": "writing",
    "download": "downloading…",
}
_UNCOUNTED = ("compile", "download", "psf")
_PARTS = ("nuts",)
"""Stages that return within another one: neither their ends nor their times are worth a line."""
_PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal


class ProgressReporter:
    """The callback ``progress(stage, done, total)`` of the jobs; a context manager.

    Parameters
    ----------
    quiet : bool
        Show nothing, only keep the time.
    stream : text stream, optional
        The standard error stream by default.
    clock : callable
        Seconds, from anywhere.
    unit : str
        What is counted: spaxels, images, sources.

    Attributes
    ----------
    unit : str
        It may be changed between stages.
    seconds : dict
        Wall time spent in each stage so far.
    """

    def __init__(
        self,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "spaxels",
    ) -> None:
        self.unit = unit
        self.seconds: dict[str, float] = {}
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._stage: str | None = None
        self._began = self._told = clock()
        self._first = 0
        self._finished: tuple[str, int, int] | None = None
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            self._live = _live_display(self._stream)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell that `done` of `total` have gone through `stage`."""
        if stage in _PARTS and self._stage not in (None, stage):
            self._tell_part(stage, done, total)
            return
        if stage != self._stage:
            if (stage, done, total) == self._finished:  # said already
                return
            self._leave()
            self._enter(stage, done, total)
        if self._live is not None and self._task is not None and stage not in _UNCOUNTED:
            self._live.update(self._task, description=_TITLES.get(stage, stage), completed=done, total=total)
        elif self._live is None and not self._quiet:
            self._tell(stage, done, total)
        if done >= total:
            self._finished = (stage, done, total)
            self._leave()

    def _enter(self, stage: str, done: int, total: int) -> None:
        self._stage, self._first, self._began = stage, done, self._clock()
        title = _TITLES.get(stage, stage)
        if self._live is not None:
            self._task = self._live.add_task(title, total=None if stage in _UNCOUNTED else total, completed=done, unit=self.unit)
        elif not self._quiet and stage in _UNCOUNTED and stage not in self.seconds and done < total:
            self._write(title)

    def _leave(self) -> None:
        if self._stage is None:
            return
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + self._clock() - self._began
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
        self._stage, self._task = None, None

    def _tell(self, stage: str, done: int, total: int) -> None:
        now = self._clock()
        if stage in _UNCOUNTED or total <= 1:
            return
        if (done < total or stage in _PARTS) and now - self._told < _PLAIN_INTERVAL:
            return
        self._told = now
        rate = (done - self._first) / max(now - self._began, 1e-3)
        speed = f", {rate:,.0f} {self.unit}/s" if done > self._first else ""
        ahead = f", {(total - done) / rate:.0f} s to go" if rate > 0 and done < total else ""
        self._write(f"{_TITLES.get(stage, stage)} {done:,} of {total:,}{speed}{ahead}")

    def _tell_part(self, stage: str, done: int, total: int) -> None:
        """Tell of a part of the stage at hand, which goes on."""
        text = f"{_TITLES.get(self._stage or '', self._stage)}: {_TITLES[stage]} {done:,} of {total:,}"
        if self._live is not None and self._task is not None:
            self._live.update(self._task, description=text)
        elif self._live is None and not self._quiet and self._clock() - self._told >= _PLAIN_INTERVAL:
            self._told = self._clock()
            self._write(text)

    def _write(self, text: str) -> None:
        self._stream.write(f"ifujax: {text}\n")
        self._stream.flush()


def _live_display(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.text import Text

    class Counted(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text()
            speed = f"  {task.speed:,.0f} {task.fields['unit']}/s" if task.speed else ""
            return Text(f"{task.completed:,.0f}/{task.total:,.0f}{speed}")

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        Counted(),
        TimeElapsedColumn(),
        Remaining(),
        console=Console(file=stream),
        transient=True,
    )
