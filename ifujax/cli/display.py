"""Showing figures in windows, where there is a display."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ifujax.errors import IfujaxWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAUSE = 0.5
"""Seconds that are given to a window which isn't waited for."""


class Display:
    """Shows figures one after the other.

    Parameters
    ----------
    wait : bool
        Whether to go on only when the window is closed.

    Warns
    -----
    IfujaxWarning
        Where there is no display; figures are then not shown.
    """

    def __init__(self, wait: bool = True) -> None:
        self._wait = wait
        self._pyplot: Any = None
        import matplotlib.pyplot as plt
        from matplotlib.backends.registry import BackendFilter, backend_registry

        try:
            name = plt.get_backend().lower()
            if name not in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE):
                plt.switch_backend(plt.get_backend())  # fails now, not after the fit
                self._pyplot = plt
                return
            reason = f"matplotlib draws with {name!r}"
        except ImportError as error:
            reason = " ".join(str(error).split())
        warnings.warn(
            f"--display: there is no display to show figures on ({reason}). Write them with --hardcopy png.",
            IfujaxWarning,
            stacklevel=2,
        )

    def __bool__(self) -> bool:
        return self._pyplot is not None

    def show(self, figure: Figure) -> None:
        """Show a figure."""
        plt = self._pyplot
        if plt is None:
            return
        # Windows belong to figures that pyplot made: this one takes the place of such a one
        window = plt.figure(figsize=figure.get_size_inches())
        canvas = window.canvas
        canvas.figure = figure
        figure.set_canvas(canvas)
        if self._wait:
            plt.show(block=True)
        else:
            plt.show(block=False)
            plt.pause(_PAUSE)
