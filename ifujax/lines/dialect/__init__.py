"""IFSCube's configuration files, today's dialect and that of 2018: text to `LineFitConfig`.

A file has the reserved sections of `OPTIONS`; every other section is a spectral feature, in either dialect. Whatever is not
understood is an error, and whatever is understood but changes nothing is one warning.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ifujax.errors import IfujaxWarning, UsageError
from ifujax.lines.config import (
    ContinuumOptions,
    EmissionModel,
    EquivalentWidthOptions,
    LineFitConfig,
    OutputOptions,
)
from ifujax.lines.dialect.assembly import chosen, continuum_options, fit_options, loading_options, velocity_width_options
from ifujax.lines.dialect.declarations import build_lines
from ifujax.lines.dialect.features import read_feature
from ifujax.lines.dialect.files import read_lsf, text_of
from ifujax.lines.dialect.options import FEATURE_OPTIONS, OPTIONS
from ifujax.lines.dialect.sections import check_feature_name, read_section, split_sections

_DEFAULT_DEGREE = 6
_LISTED = 4  # options that one warning names


def read_config(path: str | Path) -> LineFitConfig:
    """Read a configuration file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    LineFitConfig
        Paths in it (weights) are relative to the file, or else to the current directory.

    Raises
    ------
    UsageError
        For a file that can't be read or a line of it that can't be understood; one line that names
        the section and the option.

    Warns
    -----
    IfujaxWarning
        Once for each reason why options have no effect.
    """
    path = Path(path)
    return parse_config(text_of(path, "configuration file"), path)


def parse_config(text: str, source: str | Path | None = None) -> LineFitConfig:
    """Understand the text of a configuration file; see `read_config`.

    `source` is the file that the text came from: messages name it, and paths are relative to it.
    """
    source = None if source is None else Path(source)
    notes: dict[str, list[str]] = {}
    try:
        config = _parse(text, source, notes)
    except UsageError as error:
        message = str(error) if source is None else f"{source}: {error}"
        # Names may hold control characters; the message is one line all the same.
        raise UsageError("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)) from None
    for reason, options in notes.items():
        options = list(dict.fromkeys(options))
        if not options:
            continue
        listed = ", ".join(options[:_LISTED]) + (f" and {len(options) - _LISTED} more" if len(options) > _LISTED else "")
        warnings.warn(f"{listed}: {reason}.", IfujaxWarning, stacklevel=2)
    return config


def _parse(text: str, source: Path | None, notes: dict[str, list[str]]) -> LineFitConfig:
    written = split_sections(text)
    features = [name for name in written if name not in OPTIONS]
    for name in features:
        check_feature_name(name, written[name])
    if not features:
        raise UsageError("configuration must have a section for each spectral feature; got none. Add one, named as the line.")
    texts: dict[str, dict[str, str]] = {}
    values: dict[str, dict[str, Any]] = {name: {} for name in OPTIONS}
    for name in [*(section for section in OPTIONS if section in written), *features]:
        texts[name], values[name] = read_section(name, written[name], OPTIONS.get(name, FEATURE_OPTIONS), notes)

    if values["fit"].get("ifscube_compat"):
        for options in notes.values():
            options[:] = [option for option in options if option != "[minimization] eps"]  # it sets where IFSCube's fits stop

    def note(option: str, reason: str) -> None:
        notes.setdefault(reason, []).append(option)

    fit, continuum = values["fit"], values["continuum"]
    loading = loading_options(values["loading"], fit, note)
    compat, has_continuum = fit.get("ifscube_compat", False), fit.get("fit_continuum", True)
    shape = fit.get("function", "gaussian")
    read = {name: read_feature(name, texts[name], values[name], shape, written[name], note) for name in features}
    lsf = fit.get("lsf")
    model = EmissionModel(
        build_lines(read, note),
        continuum_degree=continuum.get("degree", _DEFAULT_DEGREE) if has_continuum else None,
        profile=fit.get("profile", "sampled" if compat else "integrated"),
        lsf=None if lsf is None else read_lsf(lsf, source),
    )
    widths = velocity_width_options(values["velocity_width"], features) if "velocity_width" in written else None
    return LineFitConfig(
        model,
        continuum_options(continuum, compat, source) if has_continuum else ContinuumOptions(mode="none"),
        fit_options(fit, values["minimization"], note),
        loading,
        equivalent_width=EquivalentWidthOptions(**chosen(values["equivalent_width"], EquivalentWidthOptions)),
        velocity_width=widths,
        output=OutputOptions(**chosen(fit, OutputOptions)),
        source=source,
        text={
            f"{section}.{option}": _in_one_line(option, value)
            for section in written
            for option, value in written[section].items()
        },
    )


def _in_one_line(option: str, value: str) -> str:
    """Return an option's text as it is kept; priors may stand on several lines, which products can't hold."""
    return "; ".join(line.strip("; ") for line in value.split("\n") if line.strip("; ")) if option == "prior" else value
