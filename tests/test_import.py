"""``import ifujax`` is free, and its public names are there."""

import subprocess
import sys

import pytest

import ifujax

HEAVY = ("arviz", "astropy", "jax", "jaxopt", "matplotlib", "numpy", "numpyro", "optax", "rich", "scipy", "typer", "xarray")


def test_import_loads_nothing_heavy():
    code = f"import sys, ifujax; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_command_line_starts_without_jax():
    code = (
        "import sys, ifujax.cli.app; print([name for name in ('astropy', 'jax', 'matplotlib', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ifujax.__all__)
def test_public_name(name):
    assert getattr(ifujax, name) is not None
    assert name in dir(ifujax)


def test_each_public_name_has_a_home():
    assert {*ifujax.__all__} - {"__version__"} == {*ifujax._HOME}


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'fit_cubes'"):
        _ = ifujax.fit_cubes
