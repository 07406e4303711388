"""
Are the errors right?
=====================

Simulate a rotating disc with known truth, fit it, and compare: the difference between fit and truth, divided by the error that
the fit states (the pull), should scatter with a standard deviation of 1 about 0.
"""

import numpy as np

import ifujax
from ifujax.plotting import plot_map

disc = ifujax.simulate.cube((24, 24), redshift=0.01, peak_snr=60, bad_fraction=0.01, nan_spaxels=[(3, 4)], seed=7)
print(sorted(name for name in disc.truth if name.startswith("ha.")))

# %%
# The model knows the form of the truth, not its numbers.
kin = ifujax.Kinematics(ifujax.Bounded(-500, 500, start=0), ifujax.Bounded(10, 400, start=80))
model = ifujax.EmissionModel(
    [
        ifujax.Line("n2a", 6548.04, kin),
        ifujax.Line("ha", 6562.80, kin),
        ifujax.Line("n2b", 6583.46, kin),
    ],
    continuum_degree=1,
    lsf=ifujax.LSF.constant(disc.lsf_fwhm),
)
fit = ifujax.fit_cube(disc.cube, model)
print(fit.summary())

# %%
# The spaxel without data is NaN, and ``status`` says why.
print([flag.sentence for flag in ifujax.decode(fit.status[3, 4])], fit["ha", "flux"][3, 4])

# %%
# Pulls, where the brightest line has a peak signal to noise above 5: below, chi2 is no parabola, and errors only indicate.
bright = (fit.status == 0) & (disc.truth["snr"] > 5)
print(f"{bright.sum()} spaxels")
pulls = {}
for line, quantity in [
    ("ha", "velocity"),
    ("ha", "velocity_dispersion"),
    ("ha", "flux"),
    ("n2b", "flux"),
    ("ha", "equivalent_width"),
]:
    pull = (fit[line, quantity] - disc.truth[f"{line}.{quantity}"]) / fit.error[line, quantity]
    pulls[line, quantity] = pull[bright]
    inside = np.mean(np.abs(pull[bright]) < 1)
    mean, scatter = pull[bright].mean(), pull[bright].std()
    print(f"{line:4} {quantity:20} mean {mean:+.2f}, scatter {scatter:.2f}, within 1 sigma {inside:.0%}")

# %%
# The simulator shares no code with the models, so this tests both.
fitted = fit.plot_map("ha", "velocity")

# %%
truth = plot_map(disc.truth["ha.velocity"], "ha velocity, truth", "km/s", "velocity")
