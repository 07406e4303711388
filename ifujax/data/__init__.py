"""Arrays with their mask, uncertainty and coordinates."""

from ifujax.data.cube import Cube
from ifujax.data.image import Image
from ifujax.data.spaxels import Spaxels
from ifujax.data.spectrum import Spectrum

__all__ = ["Cube", "Image", "Spaxels", "Spectrum"]
