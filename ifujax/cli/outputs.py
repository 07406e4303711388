"""The files that a command makes: their names, and what may be replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ifujax.errors import DataError, UsageError


class Outputs(Mapping[str, Path]):
    """The files that are made of one input, by names that the job gives them.

    Parameters
    ----------
    files : mapping of str to Path or None
        None for those not asked for, which are left out. Finished chunks are kept beside the first of them.
    folder : Path, optional
        A folder that exists and gets many of the files. It is held as a whole, instead of each file in it.

    Examples
    --------
    >>> outputs = Outputs({"product": Path("a_linefit.fits"), "maps": None, "page": Path("a_linefit.png")})
    >>> list(outputs)
    ['product', 'page']
    """

    def __init__(self, files: Mapping[str, Path | None] | None = None, folder: Path | None = None) -> None:
        self._files = {name: path for name, path in (files or {}).items() if path is not None}
        self.folder = folder

    def __getitem__(self, name: str) -> Path:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def written(self) -> list[Path]:
        """All files, in the order in which they were named."""
        return list(self._files.values())

    @property
    def held(self) -> list[Path]:
        """What a run holds: the first file, the folder, and the files outside the folder."""
        if self.folder is None:
            return self.written
        return [*self.written[:1], self.folder, *(path for path in self.written[1:] if path.parent != self.folder)]

    def check(self, overwrite: bool, made: Callable[[Path], bool] | None = None) -> None:
        """Raise now for what could not be written after the work.

        Parameters
        ----------
        overwrite : bool
        made : callable, optional
            Tells of a file whether it may be replaced in any case: by default, those that a run left which was killed
            before it had written all.

        Raises
        ------
        OutputTakenError
            For a file that exists.
        DataError
            For anything else.
        """
        from ifujax.io.checkpoint import left_by_killed_run
        from ifujax.io.locks import OutputTakenError
        from ifujax.io.output import check_output

        for path in self.written:
            mine = left_by_killed_run(self.written[0], path) if made is None else made(path)
            try:
                check_output(path, overwrite or mine)
            except UsageError as error:
                # What lies on the disk is data here: exit code 1.
                raise (OutputTakenError if path.is_file() else DataError)(str(error)) from None


def require_single(paths: Sequence[Path], kind: str, given: dict[str, object]) -> None:
    """Raise UsageError where an option that names one file is given with several inputs."""
    for option, value in given.items():
        if value is not None and len(paths) > 1:
            raise UsageError(f"{option} must be given with one {kind} only; got {len(paths)} of them. Leave it out.")


def require_distinct(paths: Sequence[Path], plans: Sequence[Outputs], kind: str, advice: str) -> None:
    """Raise UsageError where two files to be written are one, or one of them is an input."""
    taken = {each.resolve() for each in paths}
    for plan in plans:
        for each in plan.written:
            resolved = each.resolve()
            if resolved in taken:
                raise UsageError(
                    f"each product must have a name of its own, different from the inputs; got {each} twice. "
                    f"Rename a {kind}, or {advice}."
                )
            taken.add(resolved)


def product_name(cube: Path, suffix: str) -> str:
    """Return the cube's name without folder and FITS endings, with `suffix` and ``.fits`` added."""
    return f"{stem(cube)}{suffix}.fits"


def stem(path: Path) -> str:
    """Return a file's name without FITS endings and those of compression."""
    return re.sub(r"(?i)(\.(fits|fit|fts))?(\.(gz|bz2|fz))?$", "", path.name, count=1) or path.name
