"""``fit-cube`` with several configurations: what goes together, and what is written; a stand-in takes the place of the fit."""

import os
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from ifujax.cli import fit_cube as command
from ifujax.cli.app import main
from ifujax.cli.line_job import plan_outputs
from ifujax.lines.config import OutputOptions

CONFIG = """
[loading]
redshift: 0.1
[fit]
fit_continuum: yes
{more}
[ha]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -300:300
sigma: 100, 40:300
"""
SECOND = """
[ha_broad]
rest_wavelength: 6562.8
amplitude: peak, 0:
velocity: 0, -600:600
sigma: 200, 40:600
"""


class StandIn:
    """As much of a ComponentFit as the command uses."""

    def __init__(self, count):
        self.fits = [SimpleNamespace(write=lambda path, k=k: path.write_text(f"candidate {k}")) for k in range(count)]

    def summary(self):
        return "6 spaxels: 4 one, 2 two"

    def write(self, path):
        path.write_text("product")

    def plot_page(self, line=None):
        return Figure(figsize=(1, 1))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Work in an empty folder; collect what the fit is asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(command, "prepare", lambda *_: None)
    monkeypatch.setattr("ifujax.io.cubes.read_cube", lambda path, **loading: path)
    collected = []

    def fit_components(cube, configs, **options):
        collected.append((cube.name, [len(config.model.lines) for config in configs], options))
        options["progress"]("fit", 6, 6)
        return StandIn(len(configs))

    monkeypatch.setattr("ifujax.lines.selection.run.fit_components", fit_components)
    (tmp_path / "one.cfg").write_text(CONFIG.format(more=""))
    (tmp_path / "two.cfg").write_text(CONFIG.format(more="") + SECOND)
    (tmp_path / "a.fits").write_bytes(b"cube")
    return collected


def test_what_is_fitted_and_written(calls, tmp_path, capsys):
    both = ["-c", "one.cfg", "-c", "two.cfg"]
    options = ["--select", "aic", "--threshold", "4", "--candidates", "-p", "--chunk-size", "9"]
    assert main(["fit-cube", "a.fits", *both, *options]) == 0
    name, lines, options = calls[0]
    assert (name, lines) == ("a.fits", [1, 2])
    assert options["criterion"] == "aic"
    assert options["threshold"] == 4.0
    assert options["names"] == ("one", "two")
    assert options["chunk_size"] == 9
    out = capsys.readouterr().out
    assert out.startswith("a.fits: 6 spaxels: 4 one, 2 two, 0.0 s of them compiling (")
    for name in ("a_components.fits", "a_components.png", "a_components_one.fits", "a_components_two.fits"):
        assert (tmp_path / name).stat().st_size > 0
        assert f"wrote {name}" in out
    assert (tmp_path / "a_components_two.fits").read_text() == "candidate 1"
    # Every file that would be replaced stands in the way.
    (tmp_path / "a_components.fits").unlink()
    (tmp_path / "a_components.png").unlink()
    assert main(["fit-cube", "a.fits", *both, "--select", "bic", "--candidates"]) == 1
    assert "a_components_one.fits" in capsys.readouterr().err
    assert main(["fit-cube", "a.fits", *both, "--select", "bic", "-q"]) == 0
    assert calls[-1][2]["threshold"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "one.cfg", "-c", "two.cfg"], "-c must be given once without --select; got 2. Add --select bic"),
        (["-c", "one.cfg", "--select", "bic"], "-c must be given twice or more with --select; got one."),
        (["-c", "one.cfg", "--threshold", "3"], "--threshold must be given with --select"),
        (["-c", "one.cfg", "--candidates"], "--candidates must be given with --select"),
        (["-c", "one.cfg", "-c", "two.cfg", "--select", "bik"], "Invalid value for '--select'"),
        (["-c", "one.cfg", "-c", "two.cfg", "--select", "bic", "--threshold", "-1"], "threshold must be zero or a positive"),
        (["-c", "one.cfg", "-c", "two.cfg", "--select", "bic", "--maps", "m.fits"], "--maps must be left out with --select"),
        (["-c", "one.cfg", "-c", "far.cfg", "--select", "bic"], r"[loading] must be the same in all configurations"),
        (["-c", "one.cfg", "-c", "cut.cfg", "--select", "bic"], "[fit] window must be the same in all candidates"),
        ([], "Missing option '-c'"),
    ],
)
def test_wrong_use(calls, tmp_path, capsys, options, message):
    (tmp_path / "far.cfg").write_text(CONFIG.format(more="").replace("0.1", "0.2"))
    (tmp_path / "cut.cfg").write_text(CONFIG.format(more="fitting_window: 6500:6600"))
    assert main(["fit-cube", "a.fits", *options]) == 2
    assert message in capsys.readouterr().err
    assert not calls


def test_names_of_products_in_the_configurations_are_not_used(calls, tmp_path, capsys):
    (tmp_path / "one.cfg").write_text(CONFIG.format(more="out_image: mine.fits\noverwrite: yes"))
    (tmp_path / "two.cfg").write_text(CONFIG.format(more="overwrite: yes") + SECOND)
    for _ in range(2):
        assert main(["fit-cube", "a.fits", "-c", "one.cfg", "-c", "two.cfg", "--select", "bic"]) == 0
    assert "no effect with --select: [fit] out_image and write_fits" in capsys.readouterr().err
    assert (tmp_path / "a_components.fits").exists()
    assert not (tmp_path / "mine.fits").exists()


def test_candidates_products_have_names_of_their_own(tmp_path):
    (plan,) = plan_outputs([tmp_path / "a.fits.gz"], OutputOptions(suffix="_components"), candidates=("1 a", "2"))
    assert [path.name for path in plan.written] == ["a_components.fits", "a_components_1_a.fits", "a_components_2.fits"]
