"""The command ``ifujax``: its commands, and how errors and warnings reach the user (one line each, no traceback)."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from ifujax import __version__
from ifujax.cli.cite import cite
from ifujax.cli.demo import demo
from ifujax.cli.extract import extract
from ifujax.cli.fit_cube import fit_cube
from ifujax.cli.fit_photometry import fit_photometry
from ifujax.cli.fit_spectrum import fit_spectrum
from ifujax.cli.messages import report
from ifujax.cli.regrid import regrid
from ifujax.cli.sample import sample
from ifujax.cli.wideband import wideband
from ifujax.errors import DataError, IfujaxWarning, UsageError

EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain text: the examples hold [sections], which rich would take for markup.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ifujax {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _ifujax(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Fast, probabilistic modelling of integral-field spectroscopy.

    \b
    Try:
      ifujax demo                                     fit a real MUSE cube, from nothing
      ifujax fit-cube mycube.fits -c halpha.cfg -p    fit your own
      ifujax fit-spectrum nucleus.fits -c halpha.cfg  fit a spectrum
      ifujax sample mycube.fits -c halpha.cfg -p      posteriors, where errors are not enough
      ifujax fit-photometry hst.fits image.fits       PSF and pointing of MUSE images, against HST
      ifujax extract mycube.fits --catalog cat.csv    spectra of sources, deblended
      ifujax fit-cube --help                          its options, with a configuration to start from
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("fit-cube", no_args_is_help=False)(fit_cube)
app.command("fit-spectrum", no_args_is_help=False)(fit_spectrum)
app.command("sample", no_args_is_help=False)(sample)
app.command("fit-photometry", no_args_is_help=False)(fit_photometry)
app.command("extract", no_args_is_help=False)(extract)
app.command("regrid", no_args_is_help=False)(regrid)
app.command("wideband", no_args_is_help=False)(wideband)
app.command("demo")(demo)
app.command("cite")(cite)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 (data) or 2 (usage); 130 when interrupted.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; ``sys.argv[1:]`` by default.
    """
    arguments = normalise_options(sys.argv[1:] if arguments is None else arguments)
    try:
        with _warnings_as_lines(), _cleaning_up_when_terminated():
            returned = app(args=arguments, prog_name="ifujax", standalone_mode=False)
            sys.stdout.flush()
            if returned == EXIT_INTERRUPTED:  # typer makes this of a KeyboardInterrupt
                raise KeyboardInterrupt
            return returned if isinstance(returned, int) else 0
    except typer.TyperException as error:
        return _fail(f"{error.format_message().rstrip('.')}.{_advice(error)}".replace("?.", "?"), EXIT_USAGE)
    except UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except DataError as error:
        return _fail(str(error), EXIT_DATA)
    except BrokenPipeError:
        # The reader (head, less) has left: nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DATA
    except OSError as error:
        return _fail(_describe(error), EXIT_DATA)
    except MemoryError:
        return _fail(_MEMORY, EXIT_DATA)
    except RuntimeError as error:
        # JAX's own class is not named here: it would have to be imported, which takes a third of a second.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail(_MEMORY, EXIT_DATA)
    except (KeyboardInterrupt, typer.Abort):
        then = _GOES_ON if arguments[:1] and arguments[0] in _RESUMED else _BEGINS_ANEW
        return _fail(f"interrupted. Products that were not finished are not there; {then}", EXIT_INTERRUPTED)


_MEMORY = (
    "the fit must fit into memory; got too little of it. Use a smaller --chunk-size, a narrower fitting_window, or fewer images."
)
_RESUMED = ("fit-cube", "sample", "demo", "extract")
_GOES_ON = "the same command goes on where it was."
_BEGINS_ANEW = "those that were are kept: leave out their inputs, or replace them with --overwrite."


def normalise_options(arguments: Sequence[str]) -> list[str]:
    """Turn ``--chunk_size=5`` into ``--chunk-size=5``; what follows a lone ``--`` stays as it is."""
    normalised: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*normalised, *arguments[position:]]
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            argument = name.replace("_", "-") + equals + value
        normalised.append(argument)
    return normalised


def _advice(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" See {context.command_path} --help." if context is not None else " See ifujax --help."


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


def _fail(message: str, code: int) -> int:
    report("error", message)
    return code


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each of our warnings once, as one line; those of other packages only when Python's -W asks for them."""
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message) if issubclass(category, IfujaxWarning) else f"({category.__name__}) {message}"
        if text not in shown:
            shown.add(text)
            report("warning", text)

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", IfujaxWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _cleaning_up_when_terminated() -> Iterator[None]:
    """Let ``kill`` unwind the stack as an exit does, so that half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
