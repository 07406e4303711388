"""Catalogues and parameter files as users have them."""

import numpy as np
import pytest
from astropy.table import Table

from ifujax.errors import DataError, UsageError
from ifujax.extraction.catalog import read_catalog
from ifujax.extraction.param_file import read_param_file
from tests.reference import reference_data


def written(tmp_path, text, name="cat.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "size", "reference"),
    [
        ("# id ra dec\n6 63.3561058 10.4661665\n", None, None),
        ("6 63.3561058 10.4661665 4", 4.0, None),
        ("6 63.3561058 10.4661665 4 hst\n", 4.0, "hst"),
        ("6 63.3561058 10.4661665 - -\n", None, None),
        ("id,ra,dec\n6,63.3561058,10.4661665\n", None, None),
        ("6, 63.3561058, 10.4661665, 4, hst\n", 4.0, "hst"),
        ("ID RA DEC SIZE REF\n6 63.3561058 10.4661665 4 hst  # the first\n", 4.0, "hst"),
        ("# id mag ra dec\n6 22.1 63.3561058 10.4661665\n", None, None),
        ("6 63.3561058 10.4661665 22.1 0.4 1 7\n", None, None),
        ("6 04:13:25.46539 +10:27:58.1994\n", None, None),
        ("6,04 13 25.46539,+10 27 58.1994\n", None, None),
        ("6 4h13m25.46539s 10d27m58.1994s\n", None, None),
    ],
)
def test_text_catalogues(tmp_path, text, size, reference):
    catalog = read_catalog(written(tmp_path, text))
    (source,) = catalog.sources
    assert source.id == "6"
    np.testing.assert_allclose([source.ra, source.dec], [63.3561058, 10.4661665], atol=1e-6)
    assert (source.size, source.reference) == (size, reference)


def test_its_own_catalogues():
    assert len(read_catalog(reference_data("source_extraction", "autospec", "run_minicube", "catalog.txt"))) == 8
    assert len(read_catalog(reference_data("source_extraction", "autospec_test", "catalog.txt"))) == 9


@pytest.mark.parametrize("name", ["cat.fits", "cat.ecsv", "cat.csv"])
def test_tables(tmp_path, name):
    table = Table({"ID": [3, 4], "RA": [63.1, 63.2], "DEC": [10.1, 10.2], "size": [3.0, np.nan], "sky_subtraction": ["no", ""]})
    table.write(tmp_path / name)
    first, second = read_catalog(tmp_path / name).sources
    assert (first.id, first.ra, first.size, second.size) == ("3", 63.1, 3.0, None)
    assert str(first.settings["sky_subtraction"]) == "no"


def test_hours_in_a_table(tmp_path):
    table = Table({"id": [1], "ra": [4.2], "dec": [10.0]}, units={"ra": "hourangle", "dec": "deg"})
    table.write(tmp_path / "cat.ecsv")
    assert read_catalog(tmp_path / "cat.ecsv").sources[0].ra == pytest.approx(63.0)


def test_bad_rows_are_named_and_left_out(tmp_path):
    text = "1 63.1 10.1\n2 63.1 100\n3 a1c 10\n1 63.2 10.2\n../4 63.1 10.1\n5 nan 10\n6 63.1\n7 63.3 10.3\n"
    catalog = read_catalog(written(tmp_path, text))
    assert [source.id for source in catalog.sources] == ["1", "7"]
    reasons = dict(catalog.rejected)
    assert "between -90 and 90" in reasons["2"]
    assert "sexagesimal" in reasons["3"]
    assert "unique" in reasons["1"]
    assert "name for a file" in reasons["../4"]
    assert "finite" in reasons["5"]
    assert "dec" in reasons["6"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "1 2\n", "id,x,y\n1,2,3\n"])
def test_no_catalogue(tmp_path, text):
    with pytest.raises(DataError):
        read_catalog(written(tmp_path, text))
    with pytest.raises(DataError, match="isn't there"):
        read_catalog(tmp_path / "none.txt")


def test_its_own_parameter_files():
    found = read_param_file(reference_data("source_extraction", "autospec", "run_minicube", "param.py"))
    assert found.config.apertures == (0.6, 1.0)
    assert found.config.object_mask == "union"
    assert found.config.keep_cubes
    assert [path.name for path in found.images] == ["hst.fits"]
    assert found.cube is not None
    assert found.cube.name == "datacube.fits"
    assert found.origin == {"FROM": "CATTXT", "FROM_V": "1", "CUBE": "minicube.fits", "CUBE_V": "0.1"}
    assert not found.notes
    theirs = read_param_file(reference_data("source_extraction", "autospec_test", "param.py"))
    assert len(theirs.images) == 2
    assert [path.name for path in theirs.segmentations] == ["g-seg.fits"]


def test_nothing_is_executed(tmp_path):
    harm = tmp_path / "harm"
    for text in (
        f"import pathlib\npathlib.Path({str(harm)!r}).touch()\n",
        f"SIZE = __import__('pathlib').Path({str(harm)!r}).touch()\n",
        f"open({str(harm)!r}, 'w')\n",
        "APER = [x for x in (1, 2)]\n",
    ):
        with pytest.raises(DataError, match="read, not run"):
            read_param_file(written(tmp_path, text, "param.py"))
    assert not harm.exists()


def test_values_that_autospec_refuses(tmp_path):
    path = written(tmp_path, "APER = ''\nIMG = ['a.fits', 'b.fits']\nREF = 0.6\nSIZE = 4\nSIZES = 3\n", "param.py")
    found = read_param_file(path)
    assert found.config.apertures == ()
    assert len(found.images) == 2
    assert found.config.reference == "0.6"
    assert any("SIZES" in note for note in found.notes)
    for text, message in (
        ("XCOR = 1\n", "XCOR of param.py must be True or False"), ("APER = 'wide'\n", "radii in arcsec"),
        ("SIZE = (\n", "NAME = value"), ("DATA_EXT = (1, 2, 3, 4)\n", "DATA_EXT"), ("OUTPUT = True\n", "must be a text"),
        ("SIZE = -3\n", "size must be"), ("OBJ_MASK = 'BOTH'\n", "object_mask"),
    ):  # fmt: skip
        with pytest.raises((DataError, UsageError), match=message):
            read_param_file(written(tmp_path, text, "param.py"))
