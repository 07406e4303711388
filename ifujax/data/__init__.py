"""Arrays with their mask, uncertainty and coordinates."""

from ifujax.data.cube import Cube, Spaxels

__all__ = ["Cube", "Spaxels"]
