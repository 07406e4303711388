"""Reading draws from a file of posteriors: some spaxels, or a map of what is worked out of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ifujax.errors import DataError, UsageError, unknown
from ifujax.io.posterior_layout import POSTERIOR, STATISTICS

if TYPE_CHECKING:
    import xarray

_AT_ONCE = 64
"""Neighbours in x that are read together."""


@dataclass(frozen=True)
class PosteriorReader:
    """Reads a file of `PosteriorWriter`, only as much of it as is asked for. The file is open during calls alone.

    Attributes
    ----------
    path : Path

    Raises
    ------
    DataError
        By every method, if the file can't be read.
    UsageError
        By every method, for unknown names.
    """

    path: Path

    def draws(self, variable: str, rows: Sequence[int] | np.ndarray, element: int | None = None) -> np.ndarray:
        """Return the draws (n, chain, draw) of some spaxels, (n, chain, draw, elements) without `element`, float32.

        Parameters
        ----------
        variable : str
        rows : (n,) sequence of int
            Flat indices ``y * n_x + x``.
        element : int, optional
            The line, coefficient and so on.
        """
        rows = np.asarray(rows, dtype=int)
        with self._open() as file:
            dataset = self._variable(file, variable)
            found = np.full((rows.size, *dataset.shape[:-2]), np.nan, np.float32)
            for k, (y, x) in enumerate(zip(*np.divmod(rows, dataset.shape[-1]))):
                found[k] = dataset[..., int(y), int(x)]
        return found if element is None else found[..., element]

    def spaxel(self, row: int) -> dict[str, np.ndarray]:
        """Return every variable of one spaxel: (chain, draw) or (chain, draw, elements), float32."""
        with self._open() as file:
            found = {}
            for name in self._names(file):
                dataset = self._variable(file, name)
                y, x = divmod(row, dataset.shape[-1])
                found[name] = dataset[..., y, x]
        return found

    def map(self, variable: str, function: Callable[[np.ndarray], np.ndarray], element: int | None = None) -> np.ndarray:
        """Return the map [y, x] of a statistic of the draws, worked out some spaxels at a time; NaN where there are no draws.

        Parameters
        ----------
        variable : str
        function : callable
            From draws (n, draws) of n spaxels to (n,).
        element : int, optional
            The line, coefficient and so on, of variables that have any.
        """
        with self._open() as file:
            dataset = self._variable(file, variable)
            if (dataset.ndim == 5) != (element is not None):
                raise UsageError(f"element must be given for variables that have several, and only for them; got {element}.")
            n_y, n_x = dataset.shape[-2:]
            result = np.full((n_y, n_x), np.nan)
            for y in range(n_y):
                for first in range(0, n_x, _AT_ONCE):
                    some = slice(first, min(first + _AT_ONCE, n_x))
                    block = dataset[:, :, y, some] if element is None else dataset[:, :, element, y, some]
                    block = block.reshape(-1, block.shape[-1]).T
                    known = np.isfinite(block).any(axis=1)
                    if known.any():
                        result[y, some][known] = function(block[known])
        return result

    def statistics(self) -> dict[str, np.ndarray]:
        """Return all maps [y, x] of statistics."""
        with self._open() as file:
            return {name: each[...] for name, each in self._group(file, STATISTICS).items() if each.ndim == 2}

    def groups(self, x: int | None = None, y: int | None = None) -> dict[str, xarray.Dataset]:
        """Return the groups as datasets of xarray.

        Parameters
        ----------
        x, y : int, optional
            One spaxel, which is read. Otherwise the datasets read what is used of them, from the open file.
        """
        import xarray

        found = {}
        for name in (POSTERIOR, STATISTICS):
            with self._explained():
                group = xarray.open_dataset(self.path, group=name, engine="h5netcdf")
            if x is None or y is None:
                found[name] = group
                continue
            with group:
                found[name] = group.isel(x=x, y=y).load()
        return found

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        # HDF5 refuses a second opening of a file whose locking differs from the first's, which may be xarray's or the user's
        with self._explained():
            file = h5py.File(self.path, "r")
        with file:
            try:
                yield file
            except OSError as error:  # damaged further on
                raise self._unreadable(error) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"file of draws must be readable; got {self.path}: {reason}. Was it moved, replaced, or damaged?")

    def _names(self, file: Any) -> list[str]:
        return [name for name, each in self._group(file, POSTERIOR).items() if each.ndim >= 4]

    def _group(self, file: Any, name: str) -> Any:
        if name not in file:
            raise DataError(f"file of draws must have a group {name!r}; got {self.path}. Was it made by ifujax?")
        return file[name]

    def _variable(self, file: Any, name: str) -> Any:
        known = self._names(file)
        if name not in known:
            raise UsageError(unknown("variable", name, known))
        return file[POSTERIOR][name]
