"""Ways of sharing lines between components that hold the same lines: narrow and broad, or one on either side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ifujax.lines.starts.components import Component


@dataclass(frozen=True)
class Share:
    """Two components made of one: their velocities, in widths from its own, and their widths over its own."""

    shift: tuple[float, float]
    width: tuple[float, float]


SHARES = (
    Share((0.0, 0.0), (0.6, 1.8)),
    Share((-0.7, 0.7), (0.7, 0.7)),
    Share((0.2, -0.8), (0.7, 1.5)),
    Share((-0.2, 0.8), (0.7, 1.5)),
    Share((0.0, 0.0), (0.8, 3.0)),
)


def shared(components: list[Component], whole: np.ndarray, pair: tuple[int, int], share: Share) -> np.ndarray:
    """Return the grid points (n, 2) of two components that share the lines of one.

    Parameters
    ----------
    components : list of Component
    whole : int array (n,)
        Where the first of the pair is best by itself, a grid point of its own.
    pair : (int, int)
    share : Share
    """
    v, s = components[pair[0]].velocity[whole], components[pair[0]].observed[whole]
    found = []
    for k, c in enumerate(pair):
        grid = components[c]
        wanted_v, wanted_s = v + share.shift[k] * s, share.width[k] * s
        far = np.abs(grid.velocity[None] - wanted_v[:, None]) / wanted_s[:, None]
        far = far + np.abs(np.log(grid.observed[None] / wanted_s[:, None]))
        found.append(np.argmin(far, axis=1))
    return np.stack(found, axis=1)
