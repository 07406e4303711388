"""Every configuration file that IFSCube ships, on its data, through the command line."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from ifujax.cli.app import main
from tests.reference import reference_data

RUNS = [
    ("fit-cube", "halpha_cube.cfg", "ngc3081_cube.fits", 3),
    ("fit-cube", "halpha_cube_gh.cfg", "ngc3081_cube.fits", 5),
    ("fit-spectrum", "halpha_gauss.cfg", "manga_onedspec.fits", 3),
    ("fit-spectrum", "halpha_gh.cfg", "manga_onedspec.fits", 5),
    ("fit-spectrum", "whole_spectrum.cfg", "manga_onedspec.fits", 3),
    ("fit-spectrum", "ngc6300_nuc.cfg", "ngc6300_nuc.fits", 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "recipe", "data", "parameters"), RUNS)
def test_runs(command: str, recipe: str, data: str, parameters: int, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(reference_data("line_fitting", data)), "-c", str(reference_data("line_fitting", recipe))]
    assert main([command, *arguments, "--output", "product.fits", "-o", "--no-cache"]) == 0
    assert "ifujax: error" not in capsys.readouterr().err
    with fits.open("product.fits") as product:
        status, solution = product["STATUS"].data, product["SOLUTION"].data
        fitted = status == 0
        assert fitted.sum() >= 0.9 * (product["MASK2D"].data == 0).sum() if command == "fit-cube" else fitted.all()
        lines = len(product["FEATWL"].data)
        assert len(solution) == parameters * lines
        flux = product["FLUX_M"].data[..., fitted] if command == "fit-cube" else product["FLUX_M"].data
        assert np.isfinite(flux).all()


@pytest.mark.parametrize("recipe", ["halpha_gauss.cfg", "halpha_gh.cfg"])
def test_other_extension_names_are_explained(recipe: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(reference_data("line_fitting", "ngc6300_nuc.fits")), "-c", str(reference_data("line_fitting", recipe))]
    assert main(["fit-spectrum", *arguments, "--output", "product.fits", "--no-cache"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "it has no F_OBS, F_VAR, F_FLAG, F_SYN" in message
    assert "Say scidata: SCI, and leave variance, flags, stellar out." in message
    assert not list(tmp_path.iterdir())
