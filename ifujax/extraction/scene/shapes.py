"""Sources that are no points: their image in a sharper one, seen through the cube's PSF."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import next_fast_len

from ifujax.extraction.scene.psf import FieldPSF

_KEPT = 0.02
"""Share of the image's own transfer below which a frequency is not restored."""


@dataclass(frozen=True, eq=False)
class ImageShape:
    """The light of one source in an image, on the pixels of the cube.

    Parameters
    ----------
    values : (y, x) array
        Background and other sources taken off.
    rows, columns : slice
        Where it lies in the field.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    fwhm : float
        Of a Gaussian that the image is already blurred with, arcsec: its PSF.
    lowpassed : bool
        The image was brought to these pixels by `ifujax.images.regrid_like`, whose Blackman window is taken out.
    """

    values: np.ndarray
    rows: slice
    columns: slice
    step: tuple[float, float]
    fwhm: float = 0.0
    lowpassed: bool = False

    def moved(self, dy: int, dx: int) -> ImageShape:
        """Return the shape in a part of the field that begins at row `dy` and column `dx`."""
        rows, columns = (slice(each.start - by, each.stop - by) for each, by in ((self.rows, dy), (self.columns, dx)))
        return replace(self, rows=rows, columns=columns)

    def profiles(self, psf: FieldPSF, wavelengths: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Return the share of the source's flux in pixels of the field, (wave, y, x), through a PSF.

        Parameters
        ----------
        psf : FieldPSF
            Its offset and drift move the source.
        wavelengths : (wave,) array
            Angstrom.
        rows, columns : slice
            The pixels.
        """
        n_y, n_x = rows.stop - rows.start, columns.stop - columns.start
        # Room for the source and for what is seen of it, so that nothing comes round
        low_y, low_x = min(self.rows.start, rows.start), min(self.columns.start, columns.start)
        size_y = _fast(2 * (max(self.rows.stop, rows.stop) - low_y))
        size_x = _fast(2 * (max(self.columns.stop, columns.stop) - low_x))
        canvas = np.zeros((size_y, size_x))
        canvas[self.rows.start - low_y : self.rows.stop - low_y, self.columns.start - low_x : self.columns.stop - low_x] = (
            self.values / self.values.sum()
        )
        transform = np.fft.rfft2(canvas)
        fy, fx = np.fft.fftfreq(size_y)[:, None], np.fft.rfftfreq(size_x)[None, :]
        transfer = self._transfer(fy, fx)
        transform = transform * transfer / (transfer**2 + _KEPT**2) * (1.0 + _KEPT**2)
        y = (np.fft.fftfreq(size_y) * size_y * self.step[0])[:, None]
        x = (np.fft.fftfreq(size_x) * size_x * self.step[1])[None, :]
        y, x = np.broadcast_to(y, canvas.shape), np.broadcast_to(x, canvas.shape)
        kernels = np.fft.rfft2(psf.profiles(x, y, wavelengths, self.step[0] * self.step[1]), axes=(1, 2))
        seen = np.fft.irfft2(kernels * transform, s=canvas.shape, axes=(1, 2))
        at_y, at_x = rows.start - low_y, columns.start - low_x
        return seen[:, at_y : at_y + n_y, at_x : at_x + n_x]

    def _transfer(self, fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
        """What the image has left of each frequency (cycles per pixel)."""
        sigma = self.fwhm / np.sqrt(8.0 * np.log(2.0))
        blur = np.exp(-2.0 * np.pi**2 * ((sigma * fy / self.step[0]) ** 2 + (sigma * fx / self.step[1]) ** 2))
        if not self.lowpassed:
            return blur
        r = np.minimum(np.hypot(fy, fx) / 0.5, 1.0)
        return blur * (0.42 + 0.5 * np.cos(np.pi * r) + 0.08 * np.cos(2.0 * np.pi * r))


def _fast(size: int) -> int:
    """A length from `size` on that is transformed fast."""
    return int(next_fast_len(size, real=True) or size)


def shape_of(
    image: np.ndarray,
    labels: np.ndarray,
    x: float,
    y: float,
    step: tuple[float, float],
    near: float,
    *,
    fwhm: float,
    lowpassed: bool,
) -> ImageShape | None:
    """Return the shape of the source at a position, or None where the image shows none, or a point.

    Parameters
    ----------
    image : (y, x) array
        On the pixels of the cube, background taken off.
    labels : (y, x) int array
        Its objects.
    x, y : float
        0-based pixels.
    step : (float, float)
        Width of a pixel (y, x), arcsec.
    near : float
        Arcsec within which the object must lie.
    fwhm, lowpassed
        See `ImageShape`.
    """
    rows, columns = np.indices(image.shape)
    away = np.hypot((columns - x) * step[1], (rows - y) * step[0])
    shown = labels > 0
    if not shown.any():
        return None
    nearest = int(np.argmin(np.where(shown, away, np.inf)))
    if away.flat[nearest] > near:
        return None
    mine = labels == labels.flat[nearest]
    used_y, used_x = np.nonzero(mine)
    box = slice(int(used_y.min()), int(used_y.max()) + 1), slice(int(used_x.min()), int(used_x.max()) + 1)
    values = np.where(mine, np.nan_to_num(image), 0.0)[box]
    if not values.sum() > 0:
        return None
    return ImageShape(values, *box, step, fwhm, lowpassed)


def is_point(shape: ImageShape, wider: float = 1.5) -> bool:
    """Whether a source is no wider in its image than a point: by the width of its light about half its peak."""
    area = float((shape.values > 0.5 * shape.values.max()).sum()) * shape.step[0] * shape.step[1]
    own = np.hypot(shape.fwhm, 2.2 * np.mean(shape.step) if shape.lowpassed else np.mean(shape.step))
    return np.sqrt(4.0 * area / np.pi) < wider * own
