"""Objects in the images of a stamp, by photutils: SExtractor's method with its settings."""

from __future__ import annotations

import warnings

import numpy as np

from ifujax.extraction.sextractor_file import DetectionOptions

_CLIP = 3.0
"""Standard deviations at which SExtractor clips a piece of the background."""
_CROWDED = 0.3
"""Standard deviations between mean and median above which the median alone is the background (SExtractor)."""


def segment(image: np.ndarray, options: DetectionOptions = DetectionOptions()) -> np.ndarray:
    """Return labels of the objects in an image, (y, x) int32 array: 0 is sky.

    The background is subtracted, the image smoothed, pixels above the threshold gathered with their eight neighbours, and blended
    objects taken apart, as by SExtractor (Bertin & Arnouts 1996, A&AS 117, 393).

    Parameters
    ----------
    image : (y, x) array
        NaN where there is nothing.
    options : DetectionOptions

    Examples
    --------
    >>> y, x = np.mgrid[:25, :25]
    >>> image = np.exp(-((y - 12) ** 2 + (x - 12) ** 2) / 8) + np.random.default_rng(0).normal(0, 0.01, (25, 25))
    >>> labels = segment(image, DetectionOptions(threshold=3.0))
    >>> int(labels.max()), bool(labels[12, 12])
    (1, True)
    """
    from astropy.convolution import convolve_fft
    from photutils.segmentation import deblend_sources, detect_sources

    valid = np.isfinite(image)
    if not valid.any():
        return np.zeros(image.shape, np.int32)
    background, rms = _background(image, valid, options.mesh, options.filter_size)
    signal = np.where(valid, image - background, 0.0)
    threshold = options.threshold * rms
    if not np.all(threshold > 0):
        return np.zeros(image.shape, np.int32)
    smooth = signal
    if options.smooth:
        kernel = _gaussian(5.0, 9) if options.kernel is None else np.asarray(options.kernel)
        smooth = convolve_fft(signal, kernel, normalize_kernel=True, boundary="fill", fill_value=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no sources", which is an answer
        found = detect_sources(smooth, threshold, options.min_area, connectivity=8, mask=~valid)
        if found is not None and options.deblend_contrast < 1:
            found = deblend_sources(
                smooth, found, options.min_area, n_levels=options.deblend_levels, contrast=options.deblend_contrast,
                mode="exponential", connectivity=8, progress_bar=False,
            )  # fmt: skip
    return np.zeros(image.shape, np.int32) if found is None else np.asarray(found.data, np.int32)


def _background(image: np.ndarray, valid: np.ndarray, mesh: int, filter_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The background and its standard deviation at every pixel; images of one piece have constants."""
    if max(image.shape) <= mesh:
        level, rms = _mode(image[valid])
        return np.full(image.shape, level), np.full(image.shape, rms)
    from photutils.background import Background2D, SExtractorBackground

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Background2D(
            image, (min(mesh, image.shape[0]), min(mesh, image.shape[1])), filter_size=filter_size, mask=~valid,
            exclude_percentile=90.0, bkg_estimator=SExtractorBackground(),
        )  # fmt: skip
    # SExtractor takes one threshold, from the median of the standard deviations
    return np.asarray(found.background), np.full(image.shape, float(found.background_rms_median))


def _mode(values: np.ndarray) -> tuple[float, float]:
    """SExtractor's background of a piece: clipped about the median until nothing changes."""
    first = spread = float(values.std())
    kept = values
    for _ in range(100):
        middle = float(np.median(kept))
        inside = kept[np.abs(kept - middle) <= _CLIP * spread]
        if inside.size == kept.size or inside.size < 2:
            break
        kept = inside
        spread = float(kept.std())
    mean, middle = float(kept.mean()), float(np.median(kept))
    if spread <= 0 or not first:
        return middle, spread
    level = 2.5 * middle - 1.5 * mean if abs(mean - middle) < _CROWDED * spread else middle
    return level, spread


def _gaussian(fwhm: float, size: int) -> np.ndarray:
    at = np.arange(size) - size // 2
    profile = np.exp(-4.0 * np.log(2.0) * at**2 / fwhm**2)
    return np.outer(profile, profile) / profile.sum() ** 2
