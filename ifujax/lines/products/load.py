"""`load_fit`: products read back, ifujax's own and those of IFSCube 1.3 and of its 2018 release."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ifujax.data.cube import Cube
from ifujax.data.scaled import Scaled
from ifujax.errors import DataError, IfujaxWarning, UsageError, unknown
from ifujax.inference.status import CONSTANT_DATA, NO_DATA, NOT_CONVERGED, SKIPPED
from ifujax.io.bins import kept_tables
from ifujax.io.fits import FitsFile, header_text, open_fits
from ifujax.io.wavelength import wavelength_from_header, wavelength_from_vector
from ifujax.lines.products.ifscube import flux_of, from_angstrom, textbook_h4, translated_status
from ifujax.lines.products.load_maps import celestial, load_maps, number, ordered, pairs
from ifujax.lines.products.load_widths import KINDS, load_widths
from ifujax.lines.products.loaded import Generation, LoadedFit
from ifujax.lines.products.product import BAD_INPUT
from ifujax.lines.velocity_width import VelocityWidth

_MEASURED = {"FLUX_M": "flux", "FLUX_D": "flux_direct", "EQW_M": "equivalent_width", "EQW_D": "equivalent_width_direct"}
_SPELLINGS = {"h_3": "h3", "h_4": "h4"}
_SPECTRA = ("FITSPEC", "FITCONT", "STELLAR", "MODEL")
_EXPECTED: Mapping[Generation, tuple[str, ...]] = {
    "ifujax": ("RESTWAVE", *_SPECTRA, "VAR", "FLAGS", *_MEASURED, "RED_CHI", "DOF", "STATUS", "WARN", "FEATWL"),
    "ifscube": ("RESTWAVE", *_SPECTRA, "VAR", *_MEASURED, "RED_CHI", "FEATWL"),
    "ifscube-2018": (*_SPECTRA, "EQW_M", "EQW_D"),
}
"""What each generation always writes beside SOLUTION and PARNAMES. (FITCONFIG is of the commands only.)"""

_KNOWN = {
    *(name + suffix for name in ("SOLUTION", "VELDISP", *_MEASURED) for suffix in ("", "_ERR")),
    *(name for names in _EXPECTED.values() for name in names),
    *(name + suffix for name in KINDS.values() for suffix in ("", "_ERR")),
    *("MASK2D", "DISP", "MC_RUNS", "INIGUESS"),
}

Values = dict[str, np.ndarray]


def load_fit(path: str | Path, *, rest_wavelength: Mapping[str, float] | None = None, convert_h4: bool = True) -> LoadedFit:
    """Read the product of a fit: ifujax's (files of maps and of chosen components too), IFSCube 1.3's, or its 2018 release's.

    Spectra stay on disk until they are asked for. `LoadedFit.notes` says what was converted; extensions that
    are missing are named in one warning, and what needs them is NaN or an error that says so.

    Parameters
    ----------
    path : str or Path
        FITS: plain, .gz, .bz2 or .fz; of a cube or of a single spectrum.
    rest_wavelength : mapping of str to float, optional
        Angstrom, of lines for which the file has none. Files of 2018 hold wavelengths in place of velocities; their
        rest wavelengths are the starting values in FITCONFIG, unless they are given here.
    convert_h4 : bool
        Turn amplitude, h3 and h4 of IFSCube 1.3, whose H4 has a wrong sign, into those of the textbook's
        Gauss-Hermite profile (van der Marel & Franx 1993).

    Raises
    ------
    DataError
        If the file is missing, truncated or damaged, or isn't a product.
    UsageError
        If `rest_wavelength` names an unknown line, or one for which the file has velocities already.

    Examples
    --------
    >>> fit = load_fit("ngc3081_linefit.fits")  # doctest: +SKIP
    >>> fit["ha", "velocity"], fit.status, fit.notes  # doctest: +SKIP
    """
    with open_fits(path) as file:
        names = {hdu.name.upper() for hdu in file.hdus}
        if {"SOLUTION", "PARNAMES"} <= names:
            return _Product.of(file, rest_wavelength or {}, convert_h4).load()
        if header_text(file.header(0), "CREATOR").startswith("ifujax") and any("LINE" in hdu.header for hdu in file.hdus):
            return load_maps(file)
        raise DataError(
            f"{path} must be the product of a fit, with extensions SOLUTION and PARNAMES, or a file of maps; "
            f"got {', '.join(file.names)}. If it is the data, fit it first."
        )


@dataclass(frozen=True)
class _Product:
    """One product; `notes` and `missing` grow while it is read."""

    file: FitsFile
    parameters: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]
    generation: Generation
    shape: tuple[int, int]
    spectrum: bool
    config: Mapping[str, str]
    redshift: float
    rest: np.ndarray
    convert_h4: bool
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, file: FitsFile, rest_wavelength: Mapping[str, float], convert_h4: bool) -> _Product:
        """Find out who wrote the file, and what its planes are."""
        parameters = tuple((line, _SPELLINGS.get(name, name)) for line, name in pairs(file, "PARNAMES"))
        lines = tuple(dict.fromkeys(line for line, _ in parameters))
        shape = file.image_shape(file.find("SOLUTION", "the product")) or (0,)
        # The first releases kept reduced chi2 as the last plane.
        extra = shape[0] - len(parameters) if len(shape) in (1, 3) else -1
        if extra not in (0, 1) or not parameters:
            raise DataError(
                f"SOLUTION of {file.path.name} must have a plane for each of the {len(parameters)} rows of PARNAMES; "
                f"got shape {shape}. Check that the file is the product as it was written."
            )
        header = file.header(0)
        generation: Generation = "ifscube-2018" if extra or any(name == "wl" for _, name in parameters) else "ifscube"
        # The card alone may be the data's, which IFSCube copies.
        if header_text(header, "CREATOR").startswith("ifujax") and "DOF" in file.names:
            generation = "ifujax"
        config = dict(pairs(file, "FITCONFIG"))
        redshift = number(header_text(header, "REDSHIFT"))
        if generation == "ifscube-2018":
            stated = number(config.get("loading.redshift", ""))
            redshift = redshift if np.isnan(stated) else stated
        known = {line: number(value) for line, value in pairs(file, "FEATWL")}
        rest = []
        for line in lines:
            written = config.get(f"{line}.rest_wavelength", config.get(f"{line}.wavelength", ""))
            rest.append(known.get(line, number(written.partition(",")[0])))
        for line, value in rest_wavelength.items():
            if line not in lines:
                raise UsageError("rest_wavelength: " + unknown("line", line, lines))
            i = lines.index(line)
            if generation != "ifscube-2018" and np.isfinite(rest[i]):
                raise UsageError(
                    f"rest_wavelength must be of a line for which the file has none; got {line!r}, which has {rest[i]:g}: "
                    "its velocities are relative to that. Leave it out."
                )
            rest[i] = float(value)
        spatial = (1, 1) if len(shape) == 1 else (shape[1], shape[2])
        return cls(file, parameters, lines, generation, spatial, len(shape) == 1, config, redshift, np.array(rest), convert_h4)

    def load(self) -> LoadedFit:
        """Read everything."""
        file = self.file
        self.missing.extend(name for name in _EXPECTED[self.generation] if not self._has(name))
        planes = np.array(self._planes("SOLUTION", None), dtype=np.float64)
        solution, last = planes[: len(self.parameters)], planes[len(self.parameters) :]
        values, errors, draws = self._parameters(solution)
        for name, quantity in _MEASURED.items():
            for source, suffix in ((values, ""), (errors, "_ERR")):
                if self._has(name + suffix):
                    source[quantity] = np.array(self._planes(name + suffix, len(self.lines)), dtype=np.float64)
        cube, continuum, model = self._spectra()
        status, codes = self._status(solution, cube)
        # What IFSCube calls unfinished (8, 9) often is at the minimum: its numbers stay, marked by the status.
        lost = (status != 0) & ((status != NOT_CONVERGED.value) | ~np.any(np.nan_to_num(solution) != 0, axis=0))
        for array in (*values.values(), *errors.values(), *draws.values()):
            array[..., lost] = np.nan
        if "flux" in values and "flux" in errors:
            with np.errstate(divide="ignore", invalid="ignore"):
                values["snr"] = values["flux"] / errors["flux"]
        chi2 = self._map("RED_CHI") if self._has("RED_CHI") else last[0] if len(last) else np.full(status.shape, np.nan)
        header = file.header(0)
        maps = {"status": status, "warn": np.zeros_like(status), "reduced_chi2": np.where(lost, np.nan, chi2)}
        if codes is not None:
            maps["ifscube_status"] = codes
        if self._has("WARN"):
            maps["warn"] = self._map("WARN").astype(np.int32)
        if self._has("DOF"):
            maps["dof"] = self._map("DOF")
        maps |= self._others()
        self._remark(status, draws)
        return LoadedFit(
            path=file.path,
            generation=self.generation,
            redshift=float(np.nan_to_num(self.redshift)),
            lines=self.lines,
            line_wavelengths=tuple(self.rest.tolist()),
            shapes=self._shapes(),
            profile="integrated" if header_text(header, "PROFILE") == "integrated" else "sampled",
            h4_constant=self.h4_constant,
            unit=self._unit(),
            config=self.config,
            notes=tuple(self.notes),
            values=ordered(values),
            errors=ordered(errors),
            draws=draws,
            widths=self._widths(),
            maps=maps,
            celestial=celestial(file.header(file.find("SOLUTION", "the product"))),
            cube=cube,
            continuum=continuum,
            model=model,
            is_spectrum=self.spectrum,
        )

    @property
    def in_angstrom(self) -> bool:
        """Whether centres and widths are in Angstrom; flux densities are those of the observed frame then."""
        return any(name == "wl" for _, name in self.parameters)

    @property
    def faulty_h4(self) -> bool:
        """Whether the constant term of H4 has IFSCube 1.3's wrong sign in this file."""
        hermite = any(name == "h4" for _, name in self.parameters)
        compat = header_text(self.file.header(0), "H4CONV") == "ifscube"
        return hermite and (self.generation == "ifscube" or compat)

    @property
    def h4_constant(self) -> float:
        """Constant term of sqrt(24) H4 that goes with the loaded values."""
        return -3.0 if self.faulty_h4 and not (self.convert_h4 and self.generation == "ifscube") else 3.0

    def _has(self, name: str) -> bool:
        return name in {hdu.name.upper() for hdu in self.file.hdus}

    def _planes(self, name: str, *sizes: int | None) -> np.ndarray:
        """Return an image (sizes..., y, x), which of a spectrum has no y and x in the file; a size of None may be any."""
        array = written = self.file.image(self.file.find(name, "the product"))
        # IFSCube writes some numbers of a spectrum as images of one pixel.
        if self.spectrum and (array.ndim == len(sizes) if sizes else array.size == 1):
            array = array.reshape(*array.shape[: len(sizes)], 1, 1)
        wanted = (*sizes, *self.shape)
        if array.ndim != len(wanted) or any(size not in (None, found) for size, found in zip(wanted, array.shape)):
            text = ", ".join("any" if size is None else str(size) for size in (sizes if self.spectrum else wanted))
            raise DataError(
                f"{self.file.path.name}[{name}] must have the shape ({text}), as SOLUTION and PARNAMES say; got {written.shape}. "
                "Check that the file is the product as it was written."
            )
        return array

    def _map(self, name: str) -> np.ndarray:
        return np.array(self._planes(name), dtype=np.float64)

    def _others(self) -> Values:
        """Return further maps by the names of their extensions."""
        found = {}
        for index, hdu in enumerate(self.file.hdus):
            shape, name = self.file.image_shape(index) or (), hdu.name.upper()
            leading = len(shape) if self.spectrum else len(shape) - 2
            if shape and leading >= 0 and name not in _KNOWN and (self.spectrum or shape[-2:] == self.shape):
                found[name.lower()] = self._planes(name, *[None] * leading)
        return found

    def _widths(self) -> dict[str, VelocityWidth]:
        percent = number(self.config.get("velocity_width.width", "80"))
        return load_widths(self.file, lambda name: self._planes(name, None), percent, dict(zip(self.lines, self.rest.tolist())))

    def _named(self, planes: np.ndarray) -> Values:
        """Return planes (parameter, ...) by the name of the parameter, (lines, ...); NaN where a line lacks it."""
        found: Values = {}
        for (line, name), plane in zip(self.parameters, planes):
            if name not in found:
                found[name] = np.full((len(self.lines), *planes.shape[1:]), np.nan)
            found[name][self.lines.index(line)] = plane
        return found

    def _parameters(self, solution: np.ndarray) -> tuple[Values, Values, Values]:
        """Return values, errors (lines, y, x) and draws (realisations, lines, y, x) of the parameters, in our terms."""
        values, errors, draws = self._named(solution), dict[str, np.ndarray](), dict[str, np.ndarray]()
        for name in ("DISP", "SOLUTION_ERR"):
            if self._has(name):
                errors = self._named(np.asarray(self._planes(name, None), dtype=np.float64))
        if self._has("MC_RUNS"):
            draws = self._named(np.moveaxis(np.asarray(self._planes("MC_RUNS", None, None), dtype=np.float64), 1, 0))
        rest = self.rest[:, None, None]
        if self.in_angstrom:
            stretch = 1.0 if np.isnan(self.redshift) else 1.0 + self.redshift
            values, errors, draws = from_angstrom(values, rest, stretch), {}, {}
        elif self.generation == "ifscube":
            if self.convert_h4 and self.faulty_h4:
                values, draws = textbook_h4(values), textbook_h4(draws) if draws else {}
                # Amplitude and h4 are correlated: only the draws tell the errors of what is made of both.
                errors = {name: errors[name] for name in errors if name in ("velocity", "sigma")}
                errors |= {name: np.std(draws[name], axis=1) for name in ("amplitude", "h3", "h4") if draws}
            if draws:
                draws["flux"] = flux_of(draws, rest[:, None], self.h4_constant)
                errors["flux"] = np.std(draws["flux"], axis=1)
        if header_text(self.file.header(0), "LSF") in ("", "none"):
            for source in (values, errors, draws):
                if "sigma" in source:
                    source["velocity_dispersion"] = source["sigma"].copy()
        for name, source in (("VELDISP", values), ("VELDISP_ERR", errors)):
            if self._has(name):
                source["velocity_dispersion"] = np.array(self._planes(name, len(self.lines)), dtype=np.float64)
        return values, errors, {name: np.moveaxis(array, 0, 1) for name, array in draws.items()}

    def _spectra(self) -> tuple[Cube | None, Any, Any]:
        """Return the data as a cube in the rest frame, continuum and model."""
        if not self._has("FITSPEC"):
            return None, None, None
        # 2018 left flux densities in the observed frame, and today's IFSCube the variance.
        z = float(np.nan_to_num(self.redshift))
        stretch = 1.0 + z if self.in_angstrom else 1.0

        n = self._planes("FITSPEC", None).shape[0]

        def plane(name: str, factor: float) -> Any:
            if not self._has(name):
                return None
            array = self._planes(name, n)
            return array if factor == 1.0 else Scaled(array, factor)

        variance = plane("VAR", (1.0 + z) ** 2 if self.generation == "ifscube" else stretch**2)
        if self.generation == "ifscube" and variance is not None and all(np.all(each == 1) for each in self._planes("VAR", n)):
            variance = None
            self.notes.append("The variance is 1 everywhere: IFSCube had none, and its chi2 has no scale.")
        data = plane("FITSPEC", stretch)
        wavelength = self._wavelengths(n)
        if wavelength is None:
            return None, None, None
        header = self.file.header(0)
        cube = Cube(
            data,
            wavelength,
            uncertainty=variance,
            uncertainty_kind=None if variance is None else "variance",
            flags=self._planes("FLAGS", n) if self._has("FLAGS") else None,
            flag_bits=BAD_INPUT.value if self._has("FLAGS") else None,
            stellar=plane("STELLAR", stretch),
            spatial_mask=self._map("MASK2D") != 0 if self._has("MASK2D") else None,
            unit=self._unit(),
            medium=header_text(header, "MEDIUM") or "unknown",
            header=header,
            celestial=celestial(self.file.header(self.file.find("SOLUTION", "the product"))),
            path=self.file.path,
            tables=kept_tables(self.file),
        )
        return cube, plane("FITCONT", stretch), plane("MODEL", stretch)

    def _wavelengths(self, n: int) -> np.ndarray | None:
        """Return the rest wavelengths, from RESTWAVE or else the header of FITSPEC."""
        where = f"{self.file.path.name}[RESTWAVE]"
        if self._has("RESTWAVE"):
            vector = self.file.image(self.file.find("RESTWAVE", "the product"))
            return wavelength_from_vector(vector, n, "Angstrom", "", where).values
        index = self.file.find("FITSPEC", "the product")
        try:
            return wavelength_from_header(self.file.header(index), n, 1 if self.spectrum else 3, where).values
        except DataError as error:
            self.missing.append(f"the wavelengths ({error})")
            return None

    def _status(self, solution: np.ndarray, cube: Cube | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return our status, and IFSCube's codes where it wrote the file."""
        shape = solution.shape[1:]
        codes = self._codes(shape)
        if self.generation == "ifujax" and codes is not None:
            return codes, None
        skipped = self._map("MASK2D") != 0 if self._has("MASK2D") else np.zeros(shape, bool)
        known = np.zeros(shape, np.int32) if codes is None else codes
        method = self.config.get("fit.method", "slsqp").strip().lower()
        fixed = self.config.get("fit.fixed", "no").strip().lower() in ("yes", "true", "on", "1")
        status = translated_status(known, solution, skipped, method=method, fixed=fixed)
        if cube is None:
            return status, codes
        lowest, highest = np.full(shape, np.inf), np.full(shape, -np.inf)
        for k in range(cube.shape[0]):
            values = np.asarray(cube.values[k], np.float64)
            lowest, highest = np.fmin(lowest, values), np.fmax(highest, values)
        free = status != SKIPPED.value
        status = np.where(free & (lowest > highest), NO_DATA.value, status)
        empty = free & (lowest == highest)
        count = int(np.sum(empty & (status == 0)))
        if count:
            self.notes.append(
                f"Spaxels with one value at all wavelengths: {count}. IFSCube's status of them is 0; they are NaN here."
            )
        return np.where(empty, CONSTANT_DATA.value, status).astype(np.int32), codes

    def _codes(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return the status codes as they are written: STATUS, or FITSTAT of a spectrum of 2018."""
        if self._has("STATUS"):
            return np.nan_to_num(self._map("STATUS"), nan=1.0).astype(np.int32)
        stated = [header_text(hdu.header, "FITSTAT") for hdu in self.file.hdus]
        numbers = [number(text) for text in stated if np.isfinite(number(text))]
        if numbers:
            return np.full(shape, int(numbers[0]), np.int32)
        if "STATUS" not in self.missing:
            self.missing.append("STATUS")
        return None

    def _shapes(self) -> tuple[str, ...]:
        """Return the shape of each line's profile: of FEATWL, or else from its parameters."""
        stated = dict(pairs(self.file, "FEATWL", (0, 2)))
        hermite = {line for line, name in self.parameters if name == "h4"}
        return tuple(stated.get(line, "gauss_hermite" if line in hermite else "gaussian") for line in self.lines)

    def _unit(self) -> str:
        spectra = [self.file.header(self.file.find("FITSPEC", "the product"))] if self._has("FITSPEC") else []
        return next((text for head in (*spectra, self.file.header(0)) if (text := header_text(head, "BUNIT"))), "")

    def _remark(self, status: np.ndarray, draws: Values) -> None:
        """Note what was converted, and warn of what is missing."""
        notes = self.notes
        if self.generation == "ifscube":
            if np.nan_to_num(self.redshift) != 0 and self._has("VAR"):
                notes.append(
                    "The variance was multiplied by (1 + z)^2, which IFSCube leaves out; its reduced chi2 is as in the file."
                )
            if self.faulty_h4 and self.convert_h4:
                notes.append("Amplitude, h3 and h4 were converted from IFSCube's H4, whose constant has the wrong sign.")
                if self._has("DISP") and not draws:
                    notes.append("Errors of amplitude, h3 and h4 are left out: without MC_RUNS they can't be converted.")
            if self._has("DISP"):
                notes.append("Errors are standard deviations of IFSCube's Monte Carlo runs, values the means.")
                notes.append(
                    "After Monte Carlo runs IFSCube's MODEL, RED_CHI and STATUS are those of the last noise realisation."
                )
        if self.in_angstrom:
            notes.append("Wavelengths and widths in Angstrom were converted to velocities; fluxes are those of the parameters.")
            known = np.isfinite(self.redshift)
            done = "were multiplied by 1 + z" if known else "are as in the file, since it has no redshift"
            notes.append(f"Flux densities {done}; the 2018 release leaves them in the observed frame.")
            unknown_rest = [line for line, rest in zip(self.lines, self.rest) if not np.isfinite(rest)]
            if unknown_rest:
                self.missing.append(
                    f"the rest wavelength of {', '.join(unknown_rest)} (no velocities; give rest_wavelength={{name: Angstrom}})"
                )
        if self.generation != "ifujax":
            notes.append("sigma and velocity_dispersion are the same: IFSCube doesn't take the instrument's width off.")
            kept = int(np.sum(status == NOT_CONVERGED.value))
            if kept:
                notes.append(
                    f"{kept} spaxels were not finished by IFSCube (see ifscube_status); their numbers are kept if there are any."
                )
        elif self.faulty_h4:
            notes.append("h4 is of IFSCube's H4, whose constant has the wrong sign: the fit was made with ifscube_compat.")
        if self.missing:
            notes.append(f"Missing: {', '.join(self.missing)}.")
            warnings.warn(f"{self.file.path.name} lacks {', '.join(self.missing)}.", IfujaxWarning, stacklevel=4)
