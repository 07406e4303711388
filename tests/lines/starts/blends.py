"""Ten kinds of blends closer than their observed width: a single start near the guess is enough for scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.lines.line_problem import LineProblem, Structure
from tests.lines.random_models import with_spectra


@dataclass(frozen=True)
class Blend:
    """Lines (rest wavelength, group), and per group: bounds and guess of the dispersion, and between what it truly lies."""

    lines: tuple[tuple[float, int], ...]
    dispersion: tuple[tuple[float, float, float, float, float], ...]
    window: tuple[float, float]
    lsf: float | None = None
    velocity: float = 300.0
    ties: tuple[tuple[int, int, float], ...] = ()
    emission: bool = True

    def draw(self, rng: np.random.Generator, n_spectra: int, pixel: float = 1.25) -> LineProblem:
        """Return spectra with kinematics anywhere within the bounds, peak S/N 10 to 50, pixels of `pixel` Angstrom."""
        wavelength = np.arange(self.window[0], self.window[1], pixel)
        group = tuple(g for _, g in self.lines)
        low, high, guess, least, most = np.array(self.dispersion).T
        n_groups = len(low)
        problem = LineProblem(
            structure=Structure(group, self.ties, "none" if self.lsf is None else "constant", 1, len(wavelength)),
            labels=tuple(f"{rest:.0f}" for rest, _ in self.lines),
            rest=np.array([rest for rest, _ in self.lines]),
            wavelength=wavelength,
            redshift=0.0,
            lsf=() if self.lsf is None else (self.lsf,),
            reference=0.0,
            velocity_bounds=np.tile([-self.velocity, self.velocity], (n_groups, 1)),
            dispersion_bounds=np.stack([low, high], axis=1),
            guess_velocity=np.zeros(n_groups),
            guess_dispersion=guess,
            x=np.zeros((0, 0)),
            values=np.zeros((0, 0)),
            sigma=np.zeros((0, 0)),
            bad=np.zeros((0, 0), bool),
            emission=self.emission,
        )
        return with_spectra(
            problem, rng, n_spectra, snr=(10.0, 50.0), dispersion=(least, most), masks=False, faintest=0.2, absent=0.0
        )


BLENDS = {
    "[O II], LSF 6": Blend(((3727.09, 0), (3729.88, 0)), ((5, 400, 100, 30, 200),), (3660, 3795), lsf=6.0),
    "[O II], sigma 250": Blend(((3727.09, 0), (3729.88, 0)), ((75, 500, 100, 200, 300),), (3660, 3795)),
    "H-alpha + free [N II], sigma 500": Blend(
        ((6548.05, 0), (6562.82, 0), (6583.45, 0)), ((60, 1000, 150, 400, 600),), (6410, 6720)
    ),
    "[S II], LSF 15": Blend(((6716.44, 0), (6730.82, 0)), ((5, 400, 100, 30, 300),), (6620, 6830), lsf=15.0),
    "He II + [Fe III] + [Ar IV], broad": Blend(
        ((4685.71, 0), (4658.05, 1), (4711.26, 1), (4740.12, 1)),
        ((85, 1000, 200, 300, 700), (85, 1000, 200, 300, 600)),
        (4560, 4840),
    ),
    "[Ne III] + H-epsilon, LSF 5": Blend(
        ((4101.73, 0), (3970.08, 0), (3967.47, 1)), ((5, 500, 100, 30, 250), (5, 500, 100, 30, 250)), (3900, 4160), lsf=5.0
    ),
    "[O III] 4363 + H-gamma, LSF 12": Blend(
        ((4363.21, 0), (4340.46, 1)), ((5, 800, 100, 50, 500), (5, 800, 100, 50, 500)), (4240, 4460), lsf=12.0
    ),
    "[Ar III] + [Fe II] + He I, broad": Blend(
        ((7065.19, 0), (7135.79, 1), (7155.16, 0)), ((60, 900, 150, 250, 500), (60, 900, 150, 250, 500)), (6980, 7240)
    ),
    "NaD absorption": Blend(((5889.95, 0), (5895.92, 0)), ((60, 500, 100, 80, 300),), (5820, 5970), emission=False),
    "broad H-beta + He II, narrow H-beta + [O III]": Blend(
        ((4861.33, 0), (4685.71, 0), (4861.33, 1), (5006.84, 1), (4958.91, 1)),
        ((350, 3000, 800, 500, 1200), (5, 300, 100, 50, 200)),
        (4600, 5080),
        lsf=2.6,
        ties=((4, 3, 2.98),),
    ),
}
