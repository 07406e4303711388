"""Files of single sources in MPDAF's format, as ``ifujax extract`` and AutoSpec write them: which of their spectra is meant."""

from __future__ import annotations

from dataclasses import replace

from ifujax.io.fits import FitsFile
from ifujax.io.layouts import Named

_PREFERRED = ("SPE_SCENE_DATA", "SPE_CROSS_CORRELATION_CONTSUB_SKYSUB_DATA", "SPE_CROSS_CORRELATION_SKYSUB_DATA")


def of_source(file: FitsFile, named: Named) -> tuple[Named, tuple[str, ...]]:
    """Return what is read of a file of a source: the spectrum that is named, else the scene's, with its variance.

    Other files, and what names an uncertainty of its own, are left as they are. Configurations that name the planes of a cube
    serve for its sources, too.

    Parameters
    ----------
    file : FitsFile
    named : Named

    Returns
    -------
    Named
    tuple of str
        A sentence that says which spectrum was taken, where none was named.
    """
    spectra = [hdu.name for hdu in file.hdus if hdu.name.startswith("SPE_") and hdu.name.endswith("_DATA")]
    if not spectra:
        return named, ()
    if named.scidata is not None and file.has(named.scidata):
        name = file.hdus[file.find(named.scidata, "scidata")].name
        if name not in spectra or named.uncertainty is not None:
            return named, ()
        notes: tuple[str, ...] = ()
    else:
        reference = f"SPE_{file.header(0).get('REFSPEC', '')}_SKYSUB_DATA"
        name = next((each for each in (*_PREFERRED, reference) if each in spectra), spectra[-1])
        others = ", ".join(each for each in spectra if each != name)
        notes = (f"of the source's spectra {name} was taken; scidata names another: {others}.",)
    variance = f"{name.removesuffix('_DATA')}_STAT"
    found = replace(named, scidata=name, uncertainty=None, kind=None, flags=None)
    if file.has(variance):
        found = replace(found, uncertainty=variance, kind="variance")
    return found, notes
