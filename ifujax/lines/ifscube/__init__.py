"""IFSCube 1.3 (git HEAD of April 2026) reproduced, its faults included: what ``ifscube_compat: yes`` computes.

Nothing here is used without that option. What this module names is pure NumPy, batched over spaxels; `fitter` joins it to
the engine. Each module names the faults that it keeps.
The sections in the comments are those of the specification of IFSCube that the project works from.
"""

from ifujax.lines.ifscube.continuum import pseudo_continuum
from ifujax.lines.ifscube.goodness import chi_square, degrees_of_freedom, flux_scale
from ifujax.lines.ifscube.measure import measure
from ifujax.lines.ifscube.order import loop_order
from ifujax.lines.ifscube.profiles import LineParameters, line_profiles
from ifujax.lines.ifscube.refit import sequential_refit
from ifujax.lines.ifscube.stopping import forward_difference_point
from ifujax.lines.ifscube.windows import fitted_pixels

__all__ = [
    "LineParameters",
    "chi_square",
    "degrees_of_freedom",
    "fitted_pixels",
    "flux_scale",
    "forward_difference_point",
    "line_profiles",
    "loop_order",
    "measure",
    "pseudo_continuum",
    "sequential_refit",
]
