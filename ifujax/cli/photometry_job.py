"""What ``ifujax fit-photometry`` does with one image after the other: fit, print, write, show."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from ifujax.cli.display import Display
from ifujax.cli.inputs import in_stated_unit
from ifujax.cli.job import Failures, Job
from ifujax.cli.messages import report
from ifujax.cli.outputs import Outputs
from ifujax.cli.progress import ProgressReporter
from ifujax.errors import DataError, IfujaxWarning, UsageError

if TYPE_CHECKING:
    from ifujax.data.image import Image
    from ifujax.photometry.config import PhotometryOptions
    from ifujax.photometry.results import FittedPhotometry, ImagePhotometry

Star = tuple[float, float, float]
_ERRORS = (DataError, UsageError, OSError)
_AT_ONCE = 8
"""Images that are held in memory."""


@dataclass(frozen=True)
class Products:
    """The files that are made of each image; `position` None: no corrected image."""

    save: bool = False
    position: Literal["crpix", "crval", "resample"] | None = None
    hardcopy: str | None = None
    star: bool = False
    title: str | None = None
    cards: Mapping[str, tuple[object, str]] = field(default_factory=dict)
    overwrite: bool = False

    def plan(self, prefix: Path) -> Outputs:
        """Name the files, each by its own name."""
        from ifujax.photometry.figures import figure_format
        from ifujax.photometry.products import SAVED, product_path

        paths = [product_path(prefix, kind) for kind in SAVED] if self.save else []
        if self.position is not None:
            paths.append(product_path(prefix, "aligned"))
        if self.hardcopy is not None:
            figure_format(self.hardcopy)  # an error for one that isn't known
            kinds = ("image_fit", "star_fit") if self.star else ("image_fit",)
            paths += [product_path(prefix, kind, self.hardcopy) for kind in kinds]
        return Outputs({path.name: path for path in paths})

    def write(self, results: Sequence[FittedPhotometry], prefix: Path, display: Display | None) -> list[Path]:
        """Write and show what there is of one image, and return the files; of a fit that failed there is nothing."""
        from ifujax.photometry.figures import image_figure, star_figure, write_figure
        from ifujax.photometry.products import product_path, write_images
        from ifujax.photometry.results import ImagePhotometry, StarPhotometry

        written: list[Path] = []
        for result in results:
            if result.status:
                continue
            if isinstance(result, ImagePhotometry) and self.save:
                written += write_images(result, prefix, self.overwrite, self.cards)
            if self.hardcopy is None and not display:
                continue
            if isinstance(result, StarPhotometry):
                kind, figure = "star_fit", star_figure(result, self.title)
            else:
                kind, figure = "image_fit", image_figure(cast("ImagePhotometry", result), self.title)
            if self.hardcopy is not None:
                written.append(write_figure(figure, product_path(prefix, kind, self.hardcopy), self.overwrite))
            if display:
                display.show(figure)
        return written

    def write_corrected(self, results: Sequence[FittedPhotometry], prefix: Path) -> list[Path]:
        """Write the corrected image, if it is wanted; a scale of 0, which nothing can be divided by, is an error."""
        from ifujax.photometry.products import write_aligned
        from ifujax.photometry.results import ImagePhotometry

        if self.position is None:
            return []
        fits = [each for each in results if isinstance(each, ImagePhotometry) and not each.status]
        return [write_aligned(each, prefix, self.overwrite, self.position, self.cards) for each in fits]


@dataclass(frozen=True)
class Fits:
    """The fits of every image: what they share.

    Attributes
    ----------
    hst : Image
    options, of_star : PhotometryOptions
        Of the fits of images, and of those of the star.
    regions : str, optional
    star : (ra, dec, radius), optional
    extramask : Image, optional
    unit : str, optional
        Of MUSE images that have none.
    """

    hst: Image
    options: PhotometryOptions
    of_star: PhotometryOptions
    regions: str | None = None
    star: Star | None = None
    extramask: Image | None = None
    unit: str | None = None
    _scaled: dict[str, Image] = field(default_factory=dict)

    def images(self, paths: Sequence[Path], on_error: Callable[[Any, Exception], None]) -> Iterator[ImagePhotometry]:
        """Yield the result of each image, in order, but of those that `on_error` was told of."""
        from ifujax.photometry.run import iterate_image_photometry

        shared = {"regions": self.regions, "star": self.star, "extramask": self.extramask, "options": self.options}
        if self.unit is None:
            yield from iterate_image_photometry(self.hst, list(paths), on_error=on_error, **shared)
            return
        for first in range(0, len(paths), _AT_ONCE):
            read = self._read(paths[first : first + _AT_ONCE], on_error)
            origin = {id(image): path for path, image in read}
            fail = partial(_of_file, origin, on_error)
            if read:
                yield from iterate_image_photometry(self.hst, [image for _, image in read], on_error=fail, **shared)

    def _read(self, paths: Sequence[Path], on_error: Callable[[Any, Exception], None]) -> list[tuple[Path, Image]]:
        """Return images in the unit that was stated, but for those that `on_error` was told of."""
        from ifujax.photometry.inputs import load_image

        read = []
        for path in paths:
            try:
                read.append((path, in_stated_unit(load_image(path), self.unit, path)))
            except _ERRORS as error:
                on_error(path, error)
        return read

    def with_star(self, image: ImagePhotometry) -> list[FittedPhotometry]:
        """Return the result of an image, and that of the star in it."""
        if self.star is None:
            return [image]
        from ifujax.photometry.inputs import in_unit_of
        from ifujax.photometry.run_stars import compare_scales, fit_star_photometry

        unit = image.muse.unit
        if unit not in self._scaled:
            self._scaled[unit] = in_unit_of(self.hst, image.muse)
        star = fit_star_photometry(self._scaled[unit], image.muse, self.star, extramask=self.extramask, options=self.of_star)
        compare_scales(image, star)
        return [image, star]


def _of_file(origin: Mapping[int, Path], on_error: Callable[[Any, Exception], None], image: Any, error: Exception) -> None:
    on_error(origin[id(image)], error)


def run_each(
    job: Job,
    fits: Fits,
    products: Products,
    prefixes: Sequence[Path],
    *,
    verbose: bool = False,
    display: Display | None = None,
    command: str = "",
) -> None:
    """Fit one image after the other, print its lines and write its files, and the table; a bad one doesn't stop the others.

    Raises
    ------
    DataError, UsageError, OSError
        What is wrong with the only image, or with what all share.
    typer.Exit
        With code 1, at the end, if a fit failed, a file could not be written, or one of several images could not be used.
    """
    from ifujax.photometry.products import without_pixels, write_table

    failures = Failures(len(job.inputs))
    kept: list[FittedPhotometry] = []
    with job.hold_all(failures) as held:
        waiting = [(job.inputs[i], prefixes[i]) for i in held]

        def fail(path: Path, error: Exception) -> None:
            failures.add(path, error)
            waiting.pop(next(i for i, (each, _) in enumerate(waiting) if each == path))

        images = fits.images([path for path, _ in waiting], fail) if waiting else iter(())
        while True:
            with ProgressReporter(job.quiet, unit=job.unit) as progress:
                progress("fit", 0, 1)
                image = next(images, None)
                if image is None:
                    break
                path, prefix = waiting[0]
                try:
                    results = fits.with_star(image)
                except _ERRORS as error:
                    fail(path, error)
                    continue
            if not job.quiet:
                _print(results, fits.options.method, verbose, header=not kept)
            failures.seen |= _tell(results)
            kept += [without_pixels(result) for result in results]
            waiting.pop(0)
            # What can be written is, and the table too: it says why the rest can't
            for write in (partial(products.write, results, prefix, display), partial(products.write_corrected, results, prefix)):
                try:
                    _wrote(write(), job.quiet)
                except _ERRORS as error:
                    failures.note(path, error)
        if "table" in job.common and any(not result.status for result in kept):
            write_table(kept, job.common["table"], job.overwrite, command)
            _wrote([job.common["table"]], job.quiet)
    failures.exit()


def _wrote(paths: Sequence[Path], quiet: bool) -> None:
    if not quiet:
        for path in paths:
            typer.echo(f"wrote {path}", err=True)


def _print(results: Sequence[FittedPhotometry], method: str, verbose: bool, header: bool) -> None:
    """Print lines of the table, after a report each if that is asked for. Nothing else goes to the standard output."""
    for i, result in enumerate(results):
        if verbose:
            of = result.method if result.method == "stars" or method == "forward" else f"{result.method} ({method})"
            typer.echo(f"Report of HST {of} photometry fit of MUSE observation {result.name}")
            typer.echo(result.fit_report())
        typer.echo(result.summary(header=header and i == 0))


def _tell(results: Sequence[FittedPhotometry]) -> bool:
    """Say what went wrong, or what to keep in mind; return whether a fit failed."""
    from ifujax.photometry.figures import remarks

    failed = False
    for result in results:
        if result.status:
            report("error", f"{result.name}: the {result.method} fit failed: {remarks(result)}")
            failed = True
        elif text := remarks(result):
            warnings.warn(f"{result.name}, {result.method} fit: {text}.", IfujaxWarning, stacklevel=2)
    return failed
