"""IFSCube's configuration files (today's dialect): text to `LineFitConfig`.

A file has the reserved sections of `OPTIONS`; every other section is a spectral feature. Whatever
is not understood is an error, and whatever is understood but changes nothing is one warning.
"""

from __future__ import annotations

import configparser
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifujax.errors import IfujaxWarning, UsageError, nearest, unknown
from ifujax.lines.config import (
    LSF,
    ContinuumOptions,
    EmissionModel,
    FitOptions,
    LineFitConfig,
    LoadingOptions,
    OutputOptions,
)
from ifujax.lines.dialect_features import build_lines, check_not_2018
from ifujax.lines.dialect_options import FEATURE_OPTIONS, OPTIONS, Option, Unreadable, number, numbers, positive, quoted

MULTI_STARTS = 20
"""Starting points that stand in for ``method: differential_evolution``."""

_MAX_BYTES = 1_000_000
_TIGHTEST = 1e-12  # a smaller tolerance would only chase rounding errors
_DEFAULT_DEGREE = 6
_LISTED = 4  # options that one warning names
_FEATURE_NAME = re.compile(r"[ -~]*")


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
    return parse_config(_text_of(path, "configuration file"), path)


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
        listed = ", ".join(options[:_LISTED]) + (f" and {len(options) - _LISTED} more" if len(options) > _LISTED else "")
        warnings.warn(f"{listed}: {reason}.", IfujaxWarning, stacklevel=2)
    return config


def _parse(text: str, source: Path | None, notes: dict[str, list[str]]) -> LineFitConfig:
    written = _sections(text)
    features = [name for name in written if name not in OPTIONS]
    for name in features:
        _check_feature_name(name, written[name])
    check_not_2018({name: written[name] for name in features})
    if not features:
        raise UsageError("configuration must have a section for each spectral feature; got none. Add one, named as the line.")
    texts: dict[str, dict[str, str]] = {}
    values: dict[str, dict[str, Any]] = {}
    for name in [*(section for section in OPTIONS if section in written), *features]:
        texts[name], values[name] = _read_section(name, written[name], OPTIONS.get(name, FEATURE_OPTIONS), notes)

    fit, loading, output = values.get("fit", {}), values.get("loading", {}), values.get("fit", {})
    planes = [kind for kind in ("variance", "error", "ivar") if loading.get(kind) is not None]
    if len(planes) > 1:
        raise UsageError(f"[loading] must name one of variance, error and ivar; got {' and '.join(planes)}. Remove all but one.")

    def note(option: str, reason: str) -> None:
        notes.setdefault(reason, []).append(option)

    continuum = values.get("continuum", {})
    has_continuum = fit.get("fit_continuum", True)
    lsf = fit.get("lsf")
    model = EmissionModel(
        build_lines({name: texts[name] for name in features}, {name: values[name] for name in features}, note),
        continuum_degree=continuum.get("degree", _DEFAULT_DEGREE) if has_continuum else None,
        profile=fit.get("profile", "integrated"),
        lsf=None if lsf is None else _lsf(lsf, source),
    )
    return LineFitConfig(
        model,
        _continuum(continuum, source) if has_continuum else ContinuumOptions(mode="none"),
        _fit(fit, values.get("minimization", {}), note),
        LoadingOptions(**_chosen(loading, LoadingOptions)),
        OutputOptions(**_chosen(output, OutputOptions)),
        source,
        {f"{section}.{option}": value for section in written for option, value in written[section].items()},
    )


def _text_of(path: Path, kind: str) -> str:
    """Return a small text file's content."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{kind} must exist; got {str(path)!r}.{nearest(path.name, _names_beside(path))} Check the path."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{kind} must be readable; got {str(path)!r} ({reason}). Check the path.") from None
    if len(raw) > _MAX_BYTES or any(byte < 32 and byte not in b"\t\n\v\f\r" for byte in raw):
        what = "a FITS file" if raw.startswith(b"SIMPLE  =") else "something else"
        raise UsageError(f"{kind} must be a text file of less than 1 MB; got {what} in {str(path)!r}. Check the path.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # accents in old comments


def _names_beside(path: Path) -> list[str]:
    try:
        return sorted(item.name for item in path.parent.iterdir())
    except OSError:
        return []


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Split a file into ``{section: {option: value}}``; [DEFAULT] goes where its options are known."""
    if "\0" in text:
        raise UsageError("configuration must be text; got binary data. Check the path.")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text.replace("\r\n", "\n").replace("\r", "\n"))
    except configparser.DuplicateSectionError as error:
        raise UsageError(f"sections must be unique; got [{error.section}] again in line {error.lineno}. Join the two.") from None
    except configparser.DuplicateOptionError as error:
        raise UsageError(
            f"[{error.section}] must give each option once; got {error.option!r} again in line {error.lineno}. Remove one."
        ) from None
    except configparser.MissingSectionHeaderError as error:
        raise UsageError(
            f"line {error.lineno} must come after a section such as [fit]; got {quoted(error.line.strip())}."
        ) from None
    except configparser.ParsingError as error:
        line, what = error.errors[0] if error.errors else ("?", "")  # `what` is quoted already
        raise UsageError(f"line {line} must be '[section]' or 'option: value'; got {what[:80]}.") from None
    except configparser.Error as error:
        raise UsageError(f"configuration must consist of sections and 'option: value' lines; got {quoted(str(error))}.") from None
    found: dict[str, dict[str, str]] = {}
    for raw in parser.sections():
        name = raw.strip()
        if name in found:
            raise UsageError(f"sections must be unique; got [{name}] twice. Join the two.")
        found[name] = {option: value.replace("%%", "%") for option, value in parser.items(raw)}
    defaults = found.pop("DEFAULT", {})
    everywhere = [FEATURE_OPTIONS, *OPTIONS.values()]
    for option, value in defaults.items():
        if not any(_canonical(option, table) for table in everywhere):
            raise UsageError(
                "[DEFAULT]: " + unknown("option", option, sorted({known for table in everywhere for known in table}))
            )
        for name, section in found.items():
            table = OPTIONS.get(name, FEATURE_OPTIONS)
            canonical = _canonical(option, table)
            if canonical and canonical not in {_canonical(given, table) for given in section}:
                section[option] = value
    return found


def _canonical(option: str, table: Mapping[str, Option]) -> str | None:
    return option if option in table else next((name for name in table if option in table[name].spellings), None)


def _check_feature_name(name: str, section: Mapping[str, str]) -> None:
    reserved = {known.lower(): known for known in [*OPTIONS, "DEFAULT"]}
    if name.lower() in reserved:
        raise UsageError(f"section [{name}] must be written [{reserved[name.lower()]}]: capital letters count in section names.")
    if "rest_wavelength" not in section and "wavelength" not in section and nearest(name, OPTIONS):
        known = any(_canonical(option, table) for option in section for table in OPTIONS.values())
        if known or not section:
            raise UsageError(
                f"section [{name}] must be a reserved section or a feature with a rest_wavelength; got neither."
                f"{nearest(name, OPTIONS)} Reserved: {', '.join(OPTIONS)}."
            )
    if not name or not _FEATURE_NAME.fullmatch(name) or re.search(r'[.\[\],"]', name):
        raise UsageError(
            f"name of a feature must be ASCII without periods, commas, quotes, brackets; got {quoted(name)}. Rename the section."
        )


def _read_section(
    name: str, written: Mapping[str, str], table: Mapping[str, Option], notes: dict[str, list[str]]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return a section's texts and values by canonical option, and note what has no effect."""
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    for given, text in written.items():
        option = _canonical(given, table)
        if option is None:
            raise UsageError(f"[{name}]: " + unknown("option", given, table))
        if option in values:
            raise UsageError(f"[{name}] {option} must be given once; got it in two spellings. Remove one.")
        entry = table[option]
        try:
            value = entry.read(text)
        except Unreadable as error:
            raise UsageError(f"[{name}] {given} must {error.requirement}; got {quoted(text)}.{_hint(text, error)}") from None
        texts[option], values[option] = text, value
        if entry.effect == "honoured" or entry.idle(value):
            continue
        if entry.effect == "later":
            raise UsageError(f"[{name}] {given} must not be {quoted(text)}; {entry.reason}. Remove or change it.")
        notes.setdefault(f"no effect here, because {entry.reason}", []).append(f"[{name}] {given}")
    return texts, values


def _hint(text: str, error: Unreadable) -> str:
    if error.advice:
        return f" {error.advice}"
    if "\n" in text:
        return " A line that begins with a blank continues the one before: remove the blank."
    if re.search("[#;]", text):
        return " Put comments on lines of their own."
    return ""


def _chosen(values: Mapping[str, Any], target: type) -> dict[str, Any]:
    """Return the values that are fields of a dataclass."""
    return {name: value for name, value in values.items() if name in target.__dataclass_fields__}  # type: ignore[attr-defined]


def _continuum(values: Mapping[str, Any], source: Path | None) -> ContinuumOptions:
    options = _chosen(values, ContinuumOptions)
    name = options.pop("weights", None)
    if name is not None:
        options["weights"] = tuple(_rows(name, source, "[continuum] weights", 3))
        for low, high, weight in options["weights"]:
            if not low < high or weight < 0:
                raise UsageError(
                    f"[continuum] weights must have lines 'low high weight' with low < high and weight >= 0; "
                    f"got '{low:g} {high:g} {weight:g}' in {name!r}. Correct it."
                )
    return ContinuumOptions(**options)


def _fit(fit: Mapping[str, Any], minimization: Mapping[str, Any], note: Any) -> FitOptions:
    options = _chosen(fit, FitOptions)
    default = FitOptions()
    if "fitting_window" in fit:
        options["window"] = fit["fitting_window"]
    if fit.get("method") == "differential_evolution" and "starts" not in fit:
        options["starts"] = MULTI_STARTS
        note(
            "[fit] method: differential_evolution",
            f"each fit starts from {MULTI_STARTS} points instead and keeps the best ([fit] starts sets how many)",
        )
    if "maxiter" in minimization:
        options["max_iter"] = minimization["maxiter"]
    if "ftol" in minimization:
        if minimization["ftol"] > default.tolerance:
            note("[minimization] ftol", f"no effect here, because the tolerance may only be tightened from {default.tolerance:g}")
        options["tolerance"] = max(min(minimization["ftol"], default.tolerance), _TIGHTEST)
    return FitOptions(**options)


def _lsf(text: str, source: Path | None) -> LSF:
    """``constant 2.5``, ``2.5``, ``polynomial 2.6, 1e-5 @ 7000`` or ``table FILE`` (observed Angstrom)."""
    kind, _, rest = text.partition(" ")
    rest = rest.strip()
    try:
        if kind.lower() == "table" and rest:
            rows = _rows(rest, source, "table", 2)
            return LSF.table([row[0] for row in rows], [row[1] for row in rows])
        if kind.lower() == "polynomial":
            coefficients, at, reference = rest.partition("@")
            return LSF.polynomial(numbers(coefficients), number(reference) if at else 0.0)
        return LSF.constant(positive(rest if kind.lower() == "constant" else text))
    except UsageError as error:
        raise UsageError(f"[fit] lsf: {error}") from None
    except Unreadable:
        raise UsageError(
            "[fit] lsf must be 'constant 2.5', 'polynomial 2.6, 1e-5 @ 7000' or 'table FILE' (FWHM, observed Angstrom); "
            f"got {quoted(text)}."
        ) from None


def _rows(name: str, source: Path | None, option: str, columns: int) -> list[tuple[float, ...]]:
    """Read a text table whose path is relative to the configuration file or the current directory."""
    path = Path(name)
    beside = path if source is None else source.parent / path
    path = beside if beside.exists() else path
    rows: list[tuple[float, ...]] = []
    for line, text in enumerate(_text_of(path, f"{option} file").splitlines(), start=1):
        fields = text.partition("#")[0].split()
        if not fields:
            continue
        try:
            if len(fields) != columns:
                raise Unreadable("")
            rows.append(tuple(number(item) for item in fields))
        except Unreadable:
            raise UsageError(
                f"{option} must have {columns} numbers a line; got {quoted(text)} in line {line} of {name!r}."
            ) from None
    if not rows:
        raise UsageError(f"{option} must have {columns} numbers a line; got an empty file {name!r}. Check the path.")
    return rows
