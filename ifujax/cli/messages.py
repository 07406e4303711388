"""One line to the user, on the standard error stream."""

from __future__ import annotations

import os
import sys

import typer


def report(kind: str, message: str) -> None:
    """Write ``ifujax: <kind>: <message>`` in one line, in colour on a terminal.

    Parameters
    ----------
    kind : "error" or "warning"
    message : str
        Line breaks become blanks.
    """
    line = f"ifujax: {kind}: {' '.join(message.split())}"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        line = typer.style(line, fg=typer.colors.RED if kind == "error" else typer.colors.YELLOW)
    typer.echo(line, err=True)
