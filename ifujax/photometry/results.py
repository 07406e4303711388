"""What a user gets of a fit of images: values with errors, images, a table line, a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.data.image import Image
from ifujax.images.geometry import celestial_of, pixel_steps
from ifujax.models.psf import MoffatPSF
from ifujax.photometry.outcome import Outcome
from ifujax.photometry.table import report_of, sentences, summary_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ifujax.images.corrections import Position
    from ifujax.photometry.config import PhotometryOptions
    from ifujax.photometry.forward.preparation import Prepared
    from ifujax.photometry.goodness import Misfit
    from ifujax.photometry.stars.fit import StarOutcome


_OPTIONAL = ("ellipticity", "angle", "rotation")
"""0 where they were not fitted."""


@dataclass(frozen=True)
class FittedValue:
    """A value, its 1 sigma error, and whether it was fixed (the error is then 0)."""

    value: float
    error: float
    fixed: bool = False

    @property
    def stdev(self) -> float:
        """The error, by the name that imphot gives it."""
        return self.error

    def __str__(self) -> str:
        return f"{self.value:.6g} (fixed)" if self.fixed else f"{self.value:.6g} +/- {self.error:.2g}"


_ORDER = ("scale", "bg", "dx", "dy", "fwhm", "beta")


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


@dataclass(frozen=True, repr=False)
class FittedPhotometry:
    """What was found of one image.

    Attributes
    ----------
    method : "image" or "stars"
    name : str
        Of the MUSE image.
    scale, bg : FittedValue
        ``MUSE = HST * scale + bg``, `bg` in flux units of the MUSE image.
    dx, dy : FittedValue
        MUSE less HST along the pixel axes, arcsec: HST features are moved by this to lie on those of MUSE.
    dra, ddec : FittedValue
        The same in celestial coordinates, arcsec; `dra` is a difference of coordinates. Subtract them from CRVAL1 and CRVAL2.
    dra_cosdec : FittedValue
        `dra` on the sky.
    fwhm, beta : FittedValue
        Moffat PSF of MUSE; `fwhm` in arcsec.
    rms_error : float
        Root mean square of ``data - model`` over the pixels that took part, in flux units of the MUSE image.
    chi2, n_good, n_free, n_iter : float and int
    status, warn : int
        Bits of `ifujax.inference.status`; 0 = usable. ``no_detection``: errors of all but `scale` and `bg` are NaN then.
    significance : float
    misfit : Misfit or None
        How significant the scene is in the image, and where residuals are worst.
    covariance : (n, n) array
        Of the free parameters, named by `covariance_names`.
    """

    method: str
    name: str
    outcome: Outcome
    muse: Image

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {getattr(self, name)}" for name in ("scale", "fwhm", "beta", "dx", "dy"))
        failed = "" if not self.status else f", failed: {self.reason}"
        return f"<{type(self).__name__} {self.name}: {shown}{failed}>"

    def value(self, name: str) -> FittedValue:
        """Return a parameter by its name."""
        outcome = self.outcome
        if name not in outcome.values and name in _OPTIONAL:
            return FittedValue(0.0, 0.0, True)
        error = outcome.errors[name]
        return FittedValue(outcome.values[name], error, error == 0.0)

    @property
    def scale(self) -> FittedValue:
        return self.value("scale")

    @property
    def bg(self) -> FittedValue:
        return self.value("bg")

    @property
    def dx(self) -> FittedValue:
        return self.value("dx")

    @property
    def dy(self) -> FittedValue:
        return self.value("dy")

    @property
    def fwhm(self) -> FittedValue:
        return self.value("fwhm")

    @property
    def beta(self) -> FittedValue:
        return self.value("beta")

    @property
    def dra(self) -> FittedValue:
        return self._sky[0]

    @property
    def ddec(self) -> FittedValue:
        return self._sky[1]

    @property
    def dra_cosdec(self) -> FittedValue:
        factor = float(np.cos(np.deg2rad(self._centre[1])))
        return FittedValue(self.dra.value * factor, self.dra.error * factor, self.dra.fixed)

    @property
    def rms_error(self) -> float:
        return self.outcome.rms

    @property
    def chi2(self) -> float:
        return self.outcome.chi2

    @property
    def reduced_chi2(self) -> float:
        """chi2 per degree of freedom: 1 where model and variances are right."""
        return self.chi2 / max(self.outcome.n_good - self.outcome.n_free, 1)

    @property
    def n_good(self) -> int:
        return self.outcome.n_good

    @property
    def n_free(self) -> int:
        return self.outcome.n_free

    @property
    def n_iter(self) -> int:
        return self.outcome.n_iter

    @property
    def status(self) -> int:
        return self.outcome.status

    @property
    def warn(self) -> int:
        return self.outcome.warn

    @property
    def significance(self) -> float:
        """How significant the scene is in the MUSE image, in sigma, all shifts and widths allowed for; NaN if nobody looked."""
        return self.outcome.significance

    @property
    def misfit(self) -> Misfit | None:
        """The square arcsecond in which residuals exceed noise most: pixels from 0, and shares of chi2."""
        return self.outcome.misfit

    @property
    def misfit_sky(self) -> tuple[float, float]:
        """Where it is on the sky of the MUSE image, RA and Dec in degrees; NaN if there is none."""
        if self.misfit is None:
            return np.nan, np.nan
        ra, dec = celestial_of(self.muse).wcs_pix2world(self.misfit.x, self.misfit.y, 0)
        return float(ra), float(dec)

    @property
    def reason(self) -> str:
        """Why the fit failed, or what to keep in mind; empty if nothing."""
        return sentences(self, self.warn)

    @property
    def covariance(self) -> np.ndarray:
        return self.outcome.covariance

    @property
    def covariance_names(self) -> tuple[str, ...]:
        return self.outcome.covariance_names

    @property
    def psf(self) -> MoffatPSF:
        """The PSF of MUSE, for other jobs."""
        return MoffatPSF(self.fwhm.value, self.beta.value)

    @property
    def parameters(self) -> dict[str, FittedValue]:
        """Every fitted quantity by its name, celestial offsets included."""
        found = {name: self.value(name) for name in sorted(self.outcome.values, key=_place)}
        return found | {"dra": self.dra, "ddec": self.ddec, "dra_cosdec": self.dra_cosdec}

    def summary(self, header: bool = True) -> str:
        """Return a line of imphot's table, and its three header lines first."""
        return summary_of(self, header)

    def fit_report(self) -> str:
        """Return values, errors, correlations, goodness of fit and warnings as text."""
        return report_of(self)

    def __str__(self) -> str:
        return self.summary()

    def as_dict(self) -> dict[str, Any]:
        """Return everything but images as plain numbers, lists and text, fit for JSON."""
        found: dict[str, Any] = {"name": self.name, "method": self.method}
        for name, item in self.parameters.items():
            found[name] = {"value": item.value, "error": item.error, "fixed": item.fixed}
        found |= {
            "rms_error": self.rms_error,
            "chi2": self.chi2,
            "reduced_chi2": self.reduced_chi2,
            "n_good": self.n_good,
            "n_free": self.n_free,
            "n_iter": self.n_iter,
            "status": self.status,
            "warn": self.warn,
            "reason": self.reason,
            "significance": self.significance,
            "misfit": None if self.misfit is None else {**asdict(self.misfit), "ra_dec": list(self.misfit_sky)},
            "covariance_names": list(self.covariance_names),
            "covariance": self.covariance.tolist(),
        }
        return found

    @cached_property
    def _centre(self) -> tuple[float, float]:
        ny, nx = self.muse.shape
        ra, dec = celestial_of(self.muse).wcs_pix2world(nx / 2.0, ny / 2.0, 0)
        return float(ra), float(dec)

    @cached_property
    def _sky(self) -> tuple[FittedValue, FittedValue]:
        """The shift in celestial coordinates: exact for the values, to first order for the errors."""
        step_y, step_x = pixel_steps(self.muse)
        ny, nx = self.muse.shape
        wcs = celestial_of(self.muse)
        ra, dec = self._centre

        def moved(dx: float, dy: float) -> np.ndarray:
            new_ra, new_dec = wcs.wcs_pix2world(nx / 2.0 + dx / step_x, ny / 2.0 + dy / step_y, 0)
            across = (float(new_ra) - ra + 180.0) % 360.0 - 180.0
            return np.array([across, float(new_dec) - dec]) * 3600.0

        if self.status:
            nothing = FittedValue(np.nan, np.nan)
            return nothing, nothing
        size = 0.1 * step_x
        slopes = np.stack([moved(size, 0.0), moved(0.0, size)], axis=1) / size
        names = self.covariance_names
        covariance = np.zeros((2, 2))
        for i, one in enumerate(("dx", "dy")):
            for j, two in enumerate(("dx", "dy")):
                if one in names and two in names:
                    covariance[i, j] = self.covariance[names.index(one), names.index(two)]
        errors = np.sqrt(np.diag(slopes @ covariance @ slopes.T))
        values = moved(self.dx.value, self.dy.value)
        fixed = self.dx.fixed and self.dy.fixed
        return FittedValue(float(values[0]), float(errors[0]), fixed), FittedValue(float(values[1]), float(errors[1]), fixed)


@dataclass(frozen=True, repr=False)
class ImagePhotometry(FittedPhotometry):
    """What `fit_image_photometry` found of one image: see `FittedPhotometry`.

    Attributes
    ----------
    options : PhotometryOptions
    prepared : Prepared or None
        What was fitted, for `sample`; None with ``method="fourier"``.
    """

    options: PhotometryOptions = field(kw_only=True)
    prepared: Prepared | None = field(kw_only=True, default=None)

    @property
    def ellipticity(self) -> FittedValue:
        """``1 - b/a`` of the PSF."""
        return self.value("ellipticity")

    @property
    def angle(self) -> FittedValue:
        """Of the PSF's major axis, degrees counter-clockwise from +x."""
        return self.value("angle")

    @property
    def rotation(self) -> FittedValue:
        """Of MUSE against HST, degrees from +x to +y."""
        return self.value("rotation")

    @property
    def psf(self) -> MoffatPSF:
        """The PSF of MUSE, for other jobs."""
        values = self.outcome.values
        pixel = float(np.mean(pixel_steps(self.muse))) if self.options.integrate_pixels else 0.0
        ellipticity, angle = values.get("ellipticity", 0.0), values.get("angle", 0.0)
        return MoffatPSF(values["fwhm"], values["beta"], ellipticity, angle, pixel)

    @property
    def data(self) -> Image:
        """What was compared with the model; NaN where pixels took no part."""
        return self._image(self.outcome.data, "data")

    @property
    def model(self) -> Image:
        """The HST image as MUSE should show it."""
        return self._image(self.outcome.model, "model")

    @property
    def residual(self) -> Image:
        """``data - model``."""
        return self._image(self.outcome.data - self.outcome.model, "residual")

    def _image(self, values: np.ndarray, title: str) -> Image:
        return Image(
            values, unit=self.muse.unit, title=f"{self.name} {title}", celestial=self.muse.celestial, name=f"{self.name}_{title}"
        )

    def corrected(
        self,
        image: Image | None = None,
        corrections: Sequence[str] = ("xy", "scale", "zero"),
        position: Position = "crpix",
    ) -> Image:
        """Return a MUSE image with what was found taken out of it: see `ifujax.apply_corrections`.

        Parameters
        ----------
        image : Image, optional
            Another image of the same exposure; the one that was fitted by default.
        corrections : sequence of "xy", "scale", "zero"
        position : "crpix", "crval" or "resample"
        """
        from ifujax.photometry.products import aligned_image

        return aligned_image(self, image, corrections=corrections, position=position)

    def plot(self) -> Figure:
        """Return a figure of data, model and residuals."""
        from ifujax.photometry.figures import image_figure

        return image_figure(self)

    def sample(self, draws: int = 1000, seed: int = 0) -> Mapping[str, np.ndarray]:
        """Draw from the posterior: see `ifujax.photometry.posteriors.sample_image`."""
        from ifujax.photometry.posteriors import sample_image

        return sample_image(self, draws=draws, seed=seed)


@dataclass(frozen=True, repr=False)
class StarPhotometry(FittedPhotometry):
    """What `fit_star_photometry` found of one star: see `FittedPhotometry`.

    Attributes
    ----------
    star : (ra, dec, radius)
        Degrees, degrees, arcsec.
    details : StarOutcome
        Each image by itself, pixels and models included.
    options : PhotometryOptions
    """

    star: tuple[float, float, float] = field(kw_only=True)
    details: StarOutcome = field(kw_only=True)
    options: PhotometryOptions = field(kw_only=True)

    @property
    def psf(self) -> MoffatPSF:
        """The PSF of MUSE, for other jobs."""
        pixel = float(np.mean(pixel_steps(self.muse))) if self.options.integrate_pixels else 0.0
        return MoffatPSF(self.fwhm.value, self.beta.value, pixel=pixel)

    @property
    def hst_psf(self) -> MoffatPSF:
        """The PSF of HST as this star shows it, for ``hst_psf`` of other fits with the same image on its own pixels."""
        # A known PSF, of a regridded image, has no error: it is that of the options
        measured = self.options.integrate_pixels and not self.detail("hst_fwhm").fixed
        pixel = float(np.mean(self.details.hst.step)) if measured else 0.0
        return MoffatPSF(self.detail("hst_fwhm").value, self.detail("hst_beta").value, pixel=pixel)

    @property
    def hst_psf_error(self) -> tuple[float, float, float]:
        """Its errors and their correlation, for ``hst_psf_error`` of other fits."""
        return self.detail("hst_fwhm").error, self.detail("hst_beta").error, self.details.hst_correlation

    @property
    def reason(self) -> str:
        """Why the fit failed, or what to keep in mind, and of which image; empty if nothing."""
        without = [name for name, star in (("MUSE", self.details.muse), ("HST", self.details.hst)) if star.variance is None]
        return super().reason.replace("no variance given", f"no variance of {' and '.join(without)} given")

    @property
    def ra(self) -> float:
        return self.star[0]

    @property
    def dec(self) -> float:
        return self.star[1]

    def detail(self, name: str) -> FittedValue:
        """Return a value of one image: ``muse_`` or ``hst_`` with fwhm, beta, dx, dy, bg or flux."""
        error = self.details.detail_errors[name]
        return FittedValue(self.details.details[name], error, error == 0.0)

    @property
    def parameters(self) -> dict[str, FittedValue]:
        """Every fitted quantity by its name, those of each image included."""
        return super().parameters | {name: self.detail(name) for name in self.details.details}

    def plot(self) -> Figure:
        """Return a figure of the star's profile in both images, and what is left of it."""
        from ifujax.photometry.figures import star_figure

        return star_figure(self)
