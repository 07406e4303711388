"""What all commands share, shown on small jobs: outputs by name, many files in a folder, locks, progress, resume."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from ifujax.cli.job import Failures, Job, Run
from ifujax.cli.outputs import Outputs, require_distinct
from ifujax.cli.resume import run_identity
from ifujax.errors import DataError, UsageError
from ifujax.io.locks import OutputTakenError, output_lock

SOURCES = ("s1", "s2", "s3", "s4")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with two cubes, a catalogue, and a folder for spectra."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.fits", "b.fits", "catalogue.txt"):
        Path(name).write_text(name)
    Path("spectra").mkdir()
    return tmp_path


def made(folder: Path) -> list[str]:
    inputs = ("a.fits", "b.fits", "catalogue.txt", "spectra")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name not in inputs)


def copies(overwrite: bool = False, lock: bool = False, quiet: bool = False) -> Job:
    """A job with one output for each input, which keeps no chunks."""
    paths = [Path("a.fits"), Path("b.fits")]
    return Job(
        paths,
        [Outputs({"copy": path.with_suffix(".txt"), "page": None}) for path in paths],
        overwrite=overwrite,
        lock=lock,
        quiet=quiet,
    )


def copy(run: Run) -> str:
    run.write("copy", lambda draft: draft.write_text(run.path.read_text()))
    run.write("page", lambda draft: pytest.fail("was not asked for"))
    return f"{run.path.name}: copied"


def extraction(overwrite: bool = False, resume: bool = True) -> Job:
    """A job with many files in a folder and a table of them all."""
    files = {"table": Path("a_sources.txt"), **{name: Path("spectra") / f"{name}.txt" for name in SOURCES}}
    plan = Outputs(files, folder=Path("spectra"))
    return Job([Path("a.fits")], [plan], overwrite=overwrite, resume=resume, unit="sources")


def extract(extracted: list[str], stop: str = "") -> Callable[[Run], str]:
    """Return work that writes a spectrum of each source, and is killed at one of them."""

    def work(run: Run) -> str:
        for i, name in enumerate(SOURCES):
            run.progress("extract", i, len(SOURCES))
            if run.finished(name):
                continue
            if name == stop:
                raise KeyboardInterrupt
            extracted.append(name)
            run.write(name, lambda draft, name=name: draft.write_text(name))
        run.progress("extract", len(SOURCES), len(SOURCES))
        run.write("table", lambda draft: draft.write_text(" ".join(SOURCES)))
        return f"{run.path.name}: {len(SOURCES)} sources"

    return work


def identify(path: Path) -> dict[str, str]:
    return run_identity({"input": path, "catalogue": Path("catalogue.txt")}, {"weights": "optimal"}, chunk_size=None)


def test_what_is_written_and_said(folder, capsys):
    copies().run(copy)
    assert capsys.readouterr() == ("a.fits: copied\n  wrote a.txt\nb.fits: copied\n  wrote b.txt\n", "")
    assert made(folder) == ["a.txt", "b.txt"]
    with pytest.raises(OutputTakenError, match=r"output must not exist; got a\.txt"):
        copies()
    copies(overwrite=True, quiet=True).run(copy)
    assert capsys.readouterr() == ("", "")


def test_an_input_that_fails_does_not_stop_the_others(folder, capsys):
    def work(run: Run) -> str:
        if run.path.name == "a.fits":
            raise DataError("it must be good; got a bad one.")
        return copy(run)

    with pytest.raises(typer.Exit) as found:
        copies().run(work)
    assert found.value.exit_code == 1
    assert capsys.readouterr() == ("b.fits: copied\n  wrote b.txt\n", "ifujax: error: a.fits: it must be good; got a bad one.\n")
    assert made(folder) == ["b.txt"]


def test_the_error_of_a_single_input_is_raised(folder, capsys):
    with pytest.raises(DataError, match="of one"):
        Failures(1).add(Path("a.fits"), DataError("of one"))
    failures = Failures(2)
    failures.exit()
    failures.add(Path("a.fits"), DataError("of two"))
    assert "a.fits: of two" in capsys.readouterr().err
    with pytest.raises(typer.Exit):
        failures.exit()


def test_an_output_that_another_run_makes(folder, capsys):
    with output_lock("a.txt"):
        with pytest.raises(typer.Exit):
            copies().run(copy)
        assert capsys.readouterr().err.startswith("ifujax: error: a.fits: output a.txt is being written by another run (process ")
        assert [path for path in made(folder) if not path.startswith(".")] == ["b.txt"]
        Path("b.txt").unlink()
        copies(lock=True).run(copy)
        assert capsys.readouterr().out.startswith("a.fits: skipped: output a.txt is being written")


def test_work_on_several_at_a_time(folder, capsys):
    failures = Failures(2)
    with output_lock("a.txt"), copies().hold_all(failures) as held:
        assert held == [1]
        assert failures.seen
        with pytest.raises(OutputTakenError), output_lock("b.txt"):
            pass
    assert made(folder) == []


def test_what_is_made_of_all_inputs_together_is_held_all_the_time(folder):
    job = Job([Path("a.fits")], [Outputs()], common=Outputs({"table": Path("table.txt")}))

    def work(run: Run) -> str:
        with pytest.raises(OutputTakenError, match=r"table\.txt is being written"), output_lock("table.txt"):
            pass
        return ""

    job.run(work)
    with output_lock("table.txt"), pytest.raises(OutputTakenError):
        job.run(work)
    Path("table.txt").write_text("precious")
    with pytest.raises(OutputTakenError, match="must not exist"):
        Job([Path("a.fits")], [Outputs()], common=job.common)


def test_many_files_in_a_folder(folder, capsys):
    extracted: list[str] = []
    extraction().run(extract(extracted), identify)
    assert made(folder) == ["a_sources.txt", *(f"spectra/{name}.txt" for name in SOURCES)]
    Path("a_sources.txt").unlink()
    with pytest.raises(OutputTakenError, match=r"spectra/s1\.txt"):
        extraction()


def test_a_folder_is_held_as_a_whole(folder):
    def work(run: Run) -> str:
        # One lock, however many files.
        assert made(folder) == [".a_sources.txt.lock", "spectra/.ifujax.lock"]
        return ""

    extraction().run(work, identify)
    with output_lock("spectra"), pytest.raises(OutputTakenError, match="output spectra is being written by another run"):
        extraction().run(work, identify)
    assert made(folder) == []


def test_a_killed_job_goes_on_with_the_files_that_are_missing(folder, capsys):
    extracted: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        extraction().run(extract(extracted, stop="s3"), identify)
    assert made(folder)[-2:] == ["spectra/s1.txt", "spectra/s2.txt"]
    extraction().run(extract(extracted), identify)  # what it has written itself is not in its way
    assert extracted == ["s1", "s2", "s3", "s4"]
    assert made(folder) == ["a_sources.txt", *(f"spectra/{name}.txt" for name in SOURCES)]


@pytest.mark.parametrize("change", ["catalogue", "no resume"])
def test_a_killed_job_that_starts_afresh(folder, capsys, change):
    extracted: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        extraction().run(extract(extracted, stop="s3"), identify)
    if change == "catalogue":
        Path("catalogue.txt").write_text("another")
    extraction(overwrite=True, resume=change != "no resume").run(extract(extracted), identify)
    assert extracted == ["s1", "s2", *SOURCES]


def test_drafts_of_a_killed_run_go(folder):
    draft = Path("spectra") / f".partial-{'0' * 12}-s4.txt"
    other = Path("spectra") / f".partial-{'0' * 12}-others.txt"
    for path in (draft, other):
        path.write_text("half")
    extraction().run(extract([]), identify)
    assert not draft.exists()
    assert other.exists()


def test_what_identifies_a_run(folder):
    found = identify(Path("a.fits"))
    assert found["weights"] == "optimal"
    assert found["chunk size"] == "None"
    assert found["catalogue"] == os.path.realpath("catalogue.txt")
    assert found["size of the input"] == "6"
    Path("catalogue.txt").write_text("CATALOGUE.TXT")
    later = identify(Path("a.fits"))
    assert {name for name in found if found[name] != later[name]} <= {"content of the catalogue", "time of the catalogue"}
    assert found["content of the catalogue"] != later["content of the catalogue"]


def test_outputs_clash(folder):
    plans = [Outputs({"table": Path("x.txt"), "one": Path("spectra/x.txt")}), Outputs({"table": Path("spectra/../x.txt")})]
    with pytest.raises(UsageError, match="Rename a source, or think"):
        require_distinct([], plans, "source", "think")
    with pytest.raises(UsageError, match="different from the inputs"):
        require_distinct([Path("x.txt")], plans[:1], "source", "think")


def test_progress_counts_what_the_job_counts(folder, capsys, monkeypatch):
    def work(run: Run) -> str:
        run.progress("extract", 3, 3)
        run.progress.unit = "slits"
        run.progress("trace", 0, 4)
        run.progress("trace", 4, 4)
        return ""

    extraction().run(work, identify)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ifujax: extracting 3 of 3"
    assert lines[1].startswith("ifujax: trace 4 of 4, ")
    assert lines[1].endswith(" slits/s")
