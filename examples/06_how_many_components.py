"""
How many components?
====================

Fit one and two kinematic components in every spaxel, and keep the second only where the data call for it: a map of the
choice, of the evidence for it, and maps of what was chosen.
"""

import numpy as np

import ifujax

# %%
# A simulated galaxy: a rotating disc, and an outflow along its minor axis that adds a broader, shifted component to
# each line. Which spaxels hold two components is known: ``truth["components"]``.
galaxy = ifujax.simulate.outflow((20, 24), peak_snr=200.0, scale_radius=8.0, seed=5)

# %%
# The candidates have the same lines; the second one has them twice, with a ``Kinematics`` of its own. ``above`` says which of
# the two is the broad one. With configuration files: ``ifujax fit-cube cube.fits -c one.cfg -c two.cfg --select bic``.
lines = {"n2a": 6548.04, "ha": 6562.80, "n2b": 6583.46}
narrow = ifujax.Kinematics(ifujax.Bounded(-500, 500, start=0), ifujax.Bounded(20, 400, start=80))
broad = ifujax.Kinematics(
    ifujax.Bounded(-800, 800, start=0),
    ifujax.Bounded(20, 800, start=200, above="n2a.velocity_dispersion"),
)
first = [ifujax.Line(name, wavelength, narrow) for name, wavelength in lines.items()]
second = [ifujax.Line(f"{name}_broad", wavelength, broad) for name, wavelength in lines.items()]
lsf = ifujax.LSF.constant(2.5)
one = ifujax.EmissionModel(first, continuum_degree=1, lsf=lsf)
two = ifujax.EmissionModel(first + second, continuum_degree=1, lsf=lsf)

# %%
# Both are fitted to the same pixels. The simpler one is kept unless the other lowers the criterion by more than the threshold.
chosen = ifujax.fit_components(galaxy.cube, [one, two], criterion="bic", names=["one", "two"])
print(chosen.summary())

# %%
# Against the truth: a second component whose true flux is above 8 times the error that it can have at best is found; one that
# isn't there is not.
there = galaxy.truth["components"] == 2
snr = np.nan_to_num(galaxy.truth["ha_broad.flux"] / galaxy.truth["ha_broad.flux_error"])
found = chosen.choice == 1
print(f"found: {100 * found[snr > 8].mean():.0f} % of {np.sum(snr > 8)} with S/N above 8")
print(f"       {100 * found[there].mean():.0f} % of all {np.sum(there)}")
print(f"false: {100 * found[~there].mean():.1f} % of {np.sum(~there)}")

# %%
# Maps are those of the chosen candidate, NaN where it hasn't the line. ``evidence`` is by how much the criterion of the other
# candidate is higher; ``weights`` turns such differences into relative probabilities.
velocity = chosen["ha_broad", "velocity"]
low, high = np.nanpercentile(velocity, [5, 95])
print(f"outflow: {low:.0f} to {high:.0f} km/s in {np.isfinite(velocity).sum()} spaxels")
y, x = np.unravel_index(np.argmin(np.abs(chosen.evidence)), chosen.shape)
print("\n".join(chosen.describe(x, y).splitlines()[:3]))

# %%
figure = chosen.plot_choice()

# %%
page = chosen.plot_page()
