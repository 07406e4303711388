"""What a source's status and warnings mean."""

from __future__ import annotations

from ifujax.inference.status import Flag

OFF_FIELD = Flag(1, "off_field", "the source lies outside the field")
NO_DATA = Flag(2, "no_data", "no good voxel in the stamp of the source")
BAD_ROW = Flag(4, "bad_row", "the row of the catalogue can't be used")
FAILED = Flag(8, "failed", "the extraction failed: see the reason")

STATUS_FLAGS = (OFF_FIELD, NO_DATA, BAD_ROW, FAILED)

RESCUED = Flag(1, "rescued", "no object at the position: its mask is a disc")
OTHER_REFERENCE = Flag(2, "other_reference", "the reference asked for isn't there: white light stood in")
IMAGE_MISSING = Flag(4, "image_missing", "an image does not cover the source")
NO_VARIANCE = Flag(8, "no_variance", "the cube has no variance: no weights, no errors of classic spectra")
PSF_ASSUMED = Flag(16, "psf_assumed", "the sources do not show the PSF: a usual one is assumed")
CATALOG_MOVED = Flag(32, "catalog_moved", "the scene model moved the catalogue by more than half the FWHM")
BLENDED = Flag(64, "blended", "a neighbour raises the error of the scene's flux by half or more")
SCENE_MISFIT = Flag(128, "scene_misfit", "residuals in the source's core are no noise: no point, or an unknown neighbour")
STAMP_ENLARGED = Flag(256, "stamp_enlarged", "the stamp was enlarged to hold the largest aperture")

DUPLICATE = Flag(512, "duplicate", "at the place of an earlier source, which has all the light of the scene")

WARN_FLAGS = (
    RESCUED, OTHER_REFERENCE, IMAGE_MISSING, NO_VARIANCE, PSF_ASSUMED, CATALOG_MOVED, BLENDED, SCENE_MISFIT, STAMP_ENLARGED,
    DUPLICATE,
)  # fmt: skip
