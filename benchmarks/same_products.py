"""Whether two checkouts of ifujax give the same numbers: all arrays of the demo, of a posterior and of image fits.

``PYTHONPATH=. python benchmarks/same_products.py BEFORE AFTER`` runs the commands of both checkouts (folders that hold
``ifujax/``) with this interpreter and compares what they wrote, to the bit: FITS extensions by name, columns of tables,
variables of netCDF files. Cards of headers are not compared: they hold dates and versions. Commands run on one thread, since
several add up in an order of their own. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ifujax.io.demo import demo_file


def commands() -> dict[str, list[str]]:
    """Return the arguments of each run, by the name of its folder."""
    cube, hdfs = str(demo_file("minicube.fits")), [str(demo_file(name)) for name in ("HST-HDFS.fits", "IMAGE-HDFS-1.34.fits")]
    unit = "1e-20 erg/s/cm2/Angstrom"
    photometry = ["fit-photometry", "--save", "--table", "fit.fits", "--no-cache", "--threads", "1", "-q"]
    return {
        "demo": ["demo", "--directory", ".", "--no-cache", "--threads", "1", "-q"],
        "sample": [
            "sample",
            cube,
            "-c",
            "../demo/halpha.cfg",
            "--region",
            "10:17,10:17",
            "--ratio",
            "n2b/ha",
            "--no-cache",
            "-q",
        ],
        "hdfs": [*photometry, *hdfs, "--unit", unit],
        "regrid": ["regrid", hdfs[1], hdfs[0], "--field", "hdfs", "--unit", unit, "-q"],
        "fourier": [*photometry, "../regrid/hst_F606W_for_hdfs.fits", hdfs[1], "--unit", unit, "--method", "fourier"],
        "a478": [*photometry, str(demo_file("a478hst-cutout.fits")), "../image.fits"],
    }


def run(checkout: Path, folder: Path) -> None:
    """Run every command with the code of ``checkout``."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    _white_image(folder / "image.fits")
    for name, arguments in commands().items():
        (folder / name).mkdir()
        print(f"{checkout.name}: {name}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "ifujax", *arguments],
            cwd=folder / name, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{checkout}: ifujax {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def _white_image(path: Path) -> None:
    """Write the mean over wavelength of the demonstration's cube: the MUSE image of Abell 478."""
    with fits.open(demo_file("minicube.fits")) as cube:
        header = cube["DATA"].header.copy()
        for card in [card for card in header if card.endswith("3") or "3_" in card or card.startswith("CD3")]:
            del header[card]
        data, variance = cube["DATA"].data, cube["STAT"].data
        count = np.isfinite(data).sum(0)
        image = fits.ImageHDU(np.nanmean(data, 0).astype("f4"), header, name="DATA")
        noise = fits.ImageHDU((np.nansum(variance, 0) / count**2).astype("f4"), header, name="STAT")
        noise.header["BUNIT"] = cube["STAT"].header["BUNIT"]
        fits.HDUList([fits.PrimaryHDU(), image, noise]).writeto(path)


def arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and contents of every array in a file."""
    if path.suffix == ".fits":
        with fits.open(path) as hdus:
            for number, hdu in enumerate(hdus):
                if isinstance(hdu, fits.BinTableHDU):
                    for column in hdu.columns.names:
                        yield f"{hdu.name or number}[{column}]", np.asarray(hdu.data[column])
                elif hdu.data is not None:
                    yield f"{hdu.name or number}", np.asarray(hdu.data)
    elif path.suffix == ".ecsv":
        for column in (table := Table.read(path)).colnames:
            yield column, np.asarray(table[column])
    elif path.suffix == ".nc":
        import h5py

        found: list[tuple[str, np.ndarray]] = []
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.append((name, np.asarray(item[()]))) if isinstance(item, h5py.Dataset) else None
            )
        yield from found


def same(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two arrays are the same, NaN included."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return bool(np.array_equal(first, second, equal_nan=first.dtype.kind in "fc"))


def compare(before: Path, after: Path) -> int:
    """Print what differs; return how many arrays do."""
    differ = compared = 0
    files = {path.relative_to(folder) for folder in (before, after) for path in folder.rglob("*") if path.is_file()}
    for name in sorted(files):
        if name.suffix not in {".fits", ".ecsv", ".nc"}:
            continue
        if not ((before / name).exists() and (after / name).exists()):
            print(f"{name}: only in one")
            differ += 1
            continue
        old, new = dict(arrays(before / name)), dict(arrays(after / name))
        for key in sorted({*old, *new}):
            # What a file says of itself (configuration, versions) may be spelt anew; the numbers may not.
            if (kind := old.get(key, new.get(key))) is not None and kind.dtype.kind in "SUO":
                continue
            compared += 1
            if key not in old or key not in new:
                print(f"{name} {key}: only in one")
                differ += 1
            elif not same(old[key], new[key]):
                print(f"{name} {key}: differs")
                differ += 1
    print(f"{compared} arrays compared, {differ} differ")
    return differ


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--work", type=Path, help="Keep the products here; a folder that is not there yet.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name, checkout in (("before", options.before), ("after", options.after)):
            (work / name).mkdir(parents=True)
            run(checkout.resolve(), work / name)
        return int(compare(work / "before", work / "after") > 0)


if __name__ == "__main__":
    sys.exit(main())
