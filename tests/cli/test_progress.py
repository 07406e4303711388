"""Progress where there is no terminal, and the time of each stage."""

import io

from ifujax.cli.progress import ProgressReporter
from ifujax.cli.runtime import CompilationTime


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_plain_lines_and_seconds():
    clock, stream = Clock(), io.StringIO()
    with ProgressReporter(stream=stream, clock=clock) as progress:
        progress("compile", 0, 1)
        clock.now = 4.0
        progress("compile", 1, 1)
        for done in range(0, 1000, 10):
            progress("fit", done, 1000)
            clock.now += 0.25
        progress("fit", 1000, 1000)
        progress("write", 0, 1)
        clock.now += 1.0
    lines = stream.getvalue().splitlines()
    assert lines[0] == "ifujax: compiling…"
    assert lines[-1] == "ifujax: fitting 1,000 of 1,000, 40 spaxels/s"
    assert 3 <= len(lines) <= 5
    assert "s to go" in lines[1]
    assert progress.seconds == {"compile": 4.0, "fit": 25.0, "write": 1.0}


def test_quiet():
    stream = io.StringIO()
    with ProgressReporter(quiet=True, stream=stream) as progress:
        progress("compile", 0, 1)
        progress("fit", 0, 10)
        progress("fit", 10, 10)
    assert stream.getvalue() == ""
    assert set(progress.seconds) == {"compile", "fit"}


def test_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with ProgressReporter(stream=stream) as progress:
        for stage in ("read", "compile", "fit", "compile", "fit", "sample", "nuts", "write"):
            progress(stage, 0, 10)
            progress(stage, 5, 10)
        progress("write", 10, 10)
    assert set(progress.seconds) == {"read", "compile", "fit", "sample", "write"}


def test_compilation_time_counts_parallel_work_once(monkeypatch):
    count = CompilationTime()
    now = [10.0]
    monkeypatch.setattr("ifujax.cli.runtime.time.monotonic", lambda: now[0])
    count.add("/jax/core/compile/backend_compile_duration", 4.0)
    count.add("/jax/core/compile/backend_compile_duration", 1.0)
    count.add("/something/else", 9.0)
    now[0] = 12.0
    count.add("/jax/core/compile/backend_compile_duration", 3.0)
    assert count.seconds == 6.0


def test_the_end_of_a_stage_is_said_once():
    stream = io.StringIO()
    with ProgressReporter(stream=stream) as progress:
        for _ in range(2):
            progress("fit", 10, 10)
    assert len(stream.getvalue().splitlines()) == 1


def test_parts_of_a_stage_are_said_as_such():
    clock, stream = Clock(), io.StringIO()
    with ProgressReporter(stream=stream, clock=clock) as progress:
        for chunk in range(1, 5):
            clock.now += 4.0
            progress("sample", 256 * chunk - 100, 1024)
            for done in range(4):
                clock.now += 1.0
                progress("nuts", done, 3)
            progress("sample", 256 * chunk, 1024)
        progress("nuts", 3, 3)  # of the last chunk, when all has gone through the first
    lines = stream.getvalue().splitlines()
    assert "ifujax: sampling: NUTS 1 of 3" in lines
    # The rate counts the time of the parts.
    assert lines[-1] == "ifujax: sampling 1,024 of 1,024, 31 spaxels/s"
    assert len(lines) == 4
    assert set(progress.seconds) == {"sample", "nuts"}
