"""What an extraction gives: a row for every source of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS

from ifujax.errors import UsageError, unknown
from ifujax.extraction.catalog import CatalogSource
from ifujax.extraction.classic import ClassicProducts, StampCube
from ifujax.extraction.config import ExtractionConfig
from ifujax.extraction.flags import STATUS_FLAGS, WARN_FLAGS
from ifujax.extraction.spectra import SourceSpectrum
from ifujax.inference.status import decode

if TYPE_CHECKING:
    from astropy.table import Table

    from ifujax.extraction.scene.scene import Scene


@dataclass(frozen=True, eq=False)
class SourceResult:
    """One source: its spectra, images and masks, or why there are none.

    Attributes
    ----------
    source : CatalogSource
    status, warn : int
        0, or bits: `ifujax.extraction.flags`.
    reason : str
        A sentence where the status isn't 0.
    config : ExtractionConfig
        With the source's own settings.
    cube : StampCube or None
        Only where cubes are kept.
    white, white_variance : (y, x) array or None
    images, segmentations : mapping of str to (y, x) array
    classic : ClassicProducts or None
    scene : mapping of str to SourceSpectrum
        ``SCENE`` and ``HORNE``.
    celestial : WCS or None
        Of the stamp.
    wavelength : (wave,) array
        Angstrom.
    unit : str
        Of flux densities.
    medium : str
        "air", "vacuum" or "unknown".
    seconds : float
    numbers : mapping of str to float
        For the summary: ``contamination``, ``inflation``, ...
    """

    source: CatalogSource
    status: int
    warn: int
    reason: str
    config: ExtractionConfig
    cube: StampCube | None = None
    white: np.ndarray | None = None
    white_variance: np.ndarray | None = None
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    segmentations: Mapping[str, np.ndarray] = field(default_factory=dict)
    classic: ClassicProducts | None = None
    scene: Mapping[str, SourceSpectrum] = field(default_factory=dict)
    celestial: WCS | None = None
    wavelength: np.ndarray = field(default_factory=lambda: np.empty(0))
    unit: str = ""
    medium: str = "unknown"
    seconds: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def spectra(self) -> dict[str, SourceSpectrum]:
        """All spectra by name, classic ones first."""
        classic = {} if self.classic is None else self.classic.spectra
        return {**classic, **self.scene}

    def without_arrays(self) -> SourceResult:
        """Return what a summary needs of it."""
        classic = self.classic
        if classic is not None:
            classic = ClassicProducts(reference=classic.reference, fell_back=classic.fell_back)
        return replace(
            self, cube=None, white=None, white_variance=None, images={}, segmentations={}, classic=classic, scene={},
            wavelength=np.empty(0),
        )  # fmt: skip

    def __getitem__(self, name: str) -> SourceSpectrum:
        if name not in self.spectra:
            raise UsageError(unknown("spectrum", name, self.spectra))
        return self.spectra[name]

    def __repr__(self) -> str:
        state = "extracted" if self.status == 0 else self.reason
        return f"<SourceResult {self.source.id}: {state}; spectra {', '.join(self.spectra) or 'none'}>"


@dataclass(frozen=True, eq=False)
class Extraction:
    """The sources of a catalogue, in its order. ``extraction["207"]`` is one of them.

    Attributes
    ----------
    results : tuple of SourceResult
    scene : Scene or None
    notes : tuple of str
        What was taken for what.
    """

    results: tuple[SourceResult, ...]
    scene: Scene | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[SourceResult]:
        return iter(self.results)

    def __getitem__(self, key: str | int) -> SourceResult:
        for result in self.results:
            if result.source.id == str(key):
                return result
        raise UsageError(unknown("source", str(key), [result.source.id for result in self.results]))

    def summary(self) -> Table:
        """Return a row for every source: success, signal to noise, flags and the reason of a failure."""
        return summary_table(self.results)

    def __repr__(self) -> str:
        good = sum(result.status == 0 for result in self.results)
        return f"<Extraction: {good} of {len(self.results)} sources>"


def snr_of(spectrum: SourceSpectrum | None) -> float:
    """Return the median signal to noise per channel; NaN without a variance."""
    if spectrum is None or spectrum.variance is None:
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = spectrum.values / np.sqrt(spectrum.variance)
    ratio = ratio[np.isfinite(ratio)]
    return float(np.median(ratio)) if ratio.size else np.nan


def summary_table(results: tuple[SourceResult, ...] | list[SourceResult]) -> Table:
    """Return the summary of some sources."""
    from astropy.table import Column, Table

    rows = list(results)

    def number(name: str) -> list[float]:
        return [float(row.numbers.get(name, np.nan)) for row in rows]

    def names(value: int, flags) -> str:
        return ",".join(flag.name for flag in decode(value, flags))

    table = Table()
    table["id"] = [row.source.id for row in rows]
    table["ra"] = Column([row.source.ra for row in rows], unit="deg", description="of the catalogue")
    table["dec"] = Column([row.source.dec for row in rows], unit="deg", description="of the catalogue")
    table["success"] = [row.status == 0 for row in rows]
    table["status"] = Column([row.status for row in rows], description="0 = extracted; bits")
    table["warn"] = Column([row.warn for row in rows], description="advisory bits")
    table["flags"] = [names(row.status, STATUS_FLAGS) or names(row.warn, WARN_FLAGS) for row in rows]
    table["snr_scene"] = Column(number("snr_scene"), format=".4g", description="median signal to noise of a channel, scene model")
    table["snr_reference"] = Column(number("snr_reference"), format=".4g", description="the same of the reference spectrum")
    table["flux_scene"] = Column(number("flux_scene"), format=".4g", description="median flux density, scene model")
    table["contamination"] = Column(
        number("contamination"),
        format=".4g",
        description="light of neighbours over the source's own in its PSF-weighted spectrum",
    )
    table["error_inflation"] = Column(
        number("inflation"), format=".4g", description="error of the scene's flux over that of a lone source"
    )
    table["neighbour"] = Column(
        [str(row.numbers.get("neighbour", "") or "") for row in rows], description="most correlated source"
    )
    table["correlation"] = Column(number("correlation"), format=".4g", description="of the errors of both")
    table["core_chi2"] = Column(
        number("misfit"), format=".4g", description="chi2 per degree of freedom of what is left in the source's core"
    )
    table["core_residual"] = Column(number("residual"), format=".4g", description="its size relative to the source")
    table["pixels"] = Column([int(row.numbers.get("pixels", 0)) for row in rows], description="of the object mask")
    table["reference"] = [row.classic.reference if row.classic is not None else "" for row in rows]
    table["seconds"] = Column([round(row.seconds, 3) for row in rows], unit="s")
    table["reason"] = [row.reason for row in rows]
    return table
