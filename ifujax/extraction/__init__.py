"""Spectra of catalogue sources, deblended: the job of AutoSpec, and a scene model beside it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ifujax.extraction.catalog import Catalog, CatalogSource, read_catalog
    from ifujax.extraction.config import ExtractionConfig
    from ifujax.extraction.flags import STATUS_FLAGS, WARN_FLAGS
    from ifujax.extraction.param_file import read_param_file
    from ifujax.extraction.products import write_source
    from ifujax.extraction.results import Extraction, SourceResult
    from ifujax.extraction.run import extract_sources
    from ifujax.extraction.scene.psf import FieldPSF, read_psf
    from ifujax.extraction.scene.scene import Scene, SceneOptions, extract_scene
    from ifujax.extraction.scene.shapes import ImageShape
    from ifujax.extraction.segmentation import segment
    from ifujax.extraction.sextractor_file import DetectionOptions, read_sextractor_file
    from ifujax.extraction.spectra import SourceSpectrum

_HOME = {
    "Catalog": "catalog", "CatalogSource": "catalog", "read_catalog": "catalog", "ExtractionConfig": "config",
    "STATUS_FLAGS": "flags", "WARN_FLAGS": "flags", "read_param_file": "param_file", "write_source": "products",
    "Extraction": "results", "SourceResult": "results", "extract_sources": "run",
    "FieldPSF": "scene.psf", "read_psf": "scene.psf",
    "Scene": "scene.scene", "SceneOptions": "scene.scene", "extract_scene": "scene.scene", "ImageShape": "scene.shapes",
    "segment": "segmentation", "DetectionOptions": "sextractor_file", "read_sextractor_file": "sextractor_file",
    "SourceSpectrum": "spectra",
}  # fmt: skip

__all__ = [
    "STATUS_FLAGS",
    "WARN_FLAGS",
    "Catalog",
    "CatalogSource",
    "DetectionOptions",
    "Extraction",
    "ExtractionConfig",
    "FieldPSF",
    "ImageShape",
    "Scene",
    "SceneOptions",
    "SourceResult",
    "SourceSpectrum",
    "extract_scene",
    "extract_sources",
    "read_catalog",
    "read_param_file",
    "read_psf",
    "read_sextractor_file",
    "segment",
    "write_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
