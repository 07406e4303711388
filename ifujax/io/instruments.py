"""Files of instruments and pipelines that are recognised by their extensions.

Each function takes the file, the number of axes of the data (3: a cube, 1: a spectrum) and whether the user
said that it is such a file; it returns what each plane is, or None.
"""

from __future__ import annotations

from ifujax.errors import DataError
from ifujax.io.fits import FitsFile, header_text
from ifujax.io.layouts import Layout, Recogniser, has_axes
from ifujax.io.pycasso import pycasso

MANGA_DRP_BITS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 10
"""MANGA_DRP3PIXMASK: NOCOV, LOWCOV, DEADFIBER, FORESTAR, DONOTUSE."""
MANGA_DAP_BITS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
"""MANGA_DAPSPECMASK: IGNORED, FORESTAR, FLUXINVALID, IVARINVALID, ARTIFACT; its other bits are about fits."""
JWST_BITS = 1 << 0
"""DO_NOT_USE."""
_JWST_KINDS = {"ERR": "error", "VAR": "variance", "IVAR": "ivar"}


def muse(file: FitsFile, axes: int, forced: bool) -> Layout | None:
    """MUSE pipeline and MPDAF: DATA, STAT (variance), DQ (non-zero is bad)."""
    data = _plane(file, "DATA", axes)
    if data is None:
        return None
    stat, quality = _plane(file, "STAT", axes), _plane(file, "DQ", axes)
    eso = header_text(file.header(data), "HDUCLASS").upper() == "ESO"
    if not (forced or eso or stat is not None or quality is not None):
        return None
    note = (
        f"{file.path.name} was read as a MUSE or MPDAF {_what(axes)}: DATA"
        + (", STAT as its variance" if stat is not None else ", without a variance")
        + (", DQ as flags (non-zero is bad)." if quality is not None else ", masked pixels as NaN.")
    )
    return Layout(data, stat, None if stat is None else "variance", quality, notes=(note,))


def manga(file: FitsFile, axes: int, forced: bool) -> Layout | None:
    """MaNGA LOGCUBE and LINCUBE: FLUX, IVAR, MASK (bits), WAVE (vacuum)."""
    flux, ivar, mask = (_plane(file, name, axes) for name in ("FLUX", "IVAR", "MASK"))
    wave = _plane(file, "WAVE", 1)
    if flux is None or wave is None or ivar is None:
        return None
    stated = header_text(file.header(0), "MASKNAME")
    if mask is not None:
        stated = header_text(file.header(mask), "MASKNAME") or stated
    dap = "DAPSPEC" in stated.upper()
    bits = MANGA_DAP_BITS if dap else MANGA_DRP_BITS
    note = (
        f"{file.path.name} was read as a MaNGA {_what(axes)} ({'DAP' if dap else 'DRP'}): FLUX, IVAR as its inverse variance, "
        + (f"MASK as flags (bits {bits:#x} are bad), " if mask is not None else "no flags, ")
        + "WAVE as its wavelengths, in vacuum."
    )
    bins = _named(file, "BINID") if dap and axes == 3 else None
    return Layout(flux, ivar, "ivar", mask, None, None if mask is None else bits, wave, medium="vacuum", bins=bins, notes=(note,))


def jwst(file: FitsFile, axes: int, forced: bool) -> Layout | None:
    """JWST ``s3d``: the planes that FLUXEXT, ERREXT (with ERRTYPE) and MASKEXT name; SCI, ERR and DQ if they don't."""
    head = file.header(0)
    if not forced and header_text(head, "TELESCOP").upper() != "JWST":
        return None
    names = {
        card: header_text(head, card) or default for card, default in (("FLUXEXT", "SCI"), ("ERREXT", "ERR"), ("MASKEXT", "DQ"))
    }
    science, error, quality = (_plane(file, names[card], axes) for card in ("FLUXEXT", "ERREXT", "MASKEXT"))
    if science is None:
        return None
    stated = header_text(head, "ERRTYPE").upper() or "ERR"
    if error is not None and stated not in _JWST_KINDS:
        raise DataError(
            f"ERRTYPE of {file.path.name} must be one of {', '.join(_JWST_KINDS)}; got {stated!r}. "
            "Name the planes yourself, e.g. scidata: SCI and error: ERR."
        )
    kind = None if error is None else _JWST_KINDS[stated]
    note = (
        f"{file.path.name} was read as a JWST {_what(axes)}: {names['FLUXEXT']}"
        + (f", {names['ERREXT']} as its {'1 sigma error' if kind == 'error' else kind}" if kind else ", without an uncertainty")
        + (f", {names['MASKEXT']} as flags (DO_NOT_USE is bad)" if quality is not None else "")
        + ", wavelengths in vacuum."
    )
    bits = None if quality is None else JWST_BITS
    return Layout(science, error, kind, quality, None, bits, medium="vacuum", notes=(note,))


def gmos(file: FitsFile, axes: int, forced: bool) -> Layout | None:
    """Files of the Gemini kind: SCI, VAR or STAT (variance), DQ (non-zero is bad).

    A plane called ERR is left alone: some of these files keep a variance in it.
    """
    science = _plane(file, "SCI", axes)
    if science is None:
        return None
    variance = _plane(file, "VAR", axes)
    variance = _plane(file, "STAT", axes) if variance is None else variance
    quality = _plane(file, "DQ", axes)
    if not forced and variance is None and quality is None:
        return None
    note = (
        f"{file.path.name} was read as a {_what(axes)} of the Gemini kind: SCI"
        + (f", {file.names[variance]} as its variance" if variance is not None else ", no uncertainty")
        + (", DQ as flags (non-zero is bad)." if quality is not None else ".")
    )
    return Layout(science, variance, None if variance is None else "variance", quality, notes=(note,))


INSTRUMENTS: dict[str, Recogniser] = {"muse": muse, "manga": manga, "jwst": jwst, "pycasso": pycasso, "gmos": gmos}
"""In the order in which they are tried."""


def _what(axes: int) -> str:
    return "cube" if axes == 3 else "spectrum"


def _named(file: FitsFile, name: str) -> int | None:
    names = [hdu.name.upper() for hdu in file.hdus]
    return names.index(name.upper()) if name.upper() in names else None


def _plane(file: FitsFile, name: str, axes: int) -> int | None:
    """The HDU of some name if it is an image with so many axes."""
    index = _named(file, name)
    return index if index is not None and has_axes(file, index, axes) else None
