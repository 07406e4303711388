"""
Read a product
==============

A fit that was written to a file, by ``ifujax fit-cube``, by ``fit.write``, or by IFSCube, is read back and used like a fresh one.
"""

import tempfile
from pathlib import Path

import ifujax

# %%
# A product to read
# -----------------
# Yours is on the disk already. Here a simulated cube is fitted and written first.
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "disc_linefit.fits"

disc = ifujax.simulate.cube((12, 12), redshift=0.01, seed=3)
kin = ifujax.Kinematics(ifujax.Bounded(-400, 400, start=0), ifujax.Bounded(20, 400, start=80))
model = ifujax.EmissionModel(
    [
        ifujax.Line("ha", 6562.80, kin),
        ifujax.Line("n2b", 6583.46, kin),
        ifujax.Line("n2a", 6548.04, kin, flux=ifujax.Tied("n2b.flux / 3.06")),
    ],
    lsf=ifujax.LSF.constant(disc.lsf_fwhm),
)
ifujax.fit_cube(disc.cube, model, window=(6480, 6660)).write(path)

# %%
# Read it
# -------
# The same call reads products of IFSCube, today's and those of 2018. What had to be converted, such as the h4 of
# Gauss-Hermite fits or wavelengths in Angstrom, is in ``fit.notes``.
fit = ifujax.load_fit(path)
print(fit.summary())
print(fit.generation, fit.redshift, fit.lines, fit.quantities)

# %%
# Maps are [y, x] arrays, as those of a fresh fit.
usable = (fit.status == 0) & (fit["ha", "snr"] > 5)
velocity, error = fit["ha", "velocity"], fit.error["ha", "velocity"]
print(f"velocity of {usable.sum()} spaxels: error {error[usable].mean():.1f} km/s on average")
velocity_map = fit.plot_map("ha", "velocity")

# %%
# One spaxel
# ----------
print(fit.describe(6, 6))
spaxel = fit.plot(x=6, y=6)

# %%
# Spectra and models
# ------------------
# They are read from the disk when they are asked for. Spaxels are counted along rows: ``y * n_x + x``.
spectra = fit.spectra([6 * 12 + 6])
residual = (spectra.data - spectra.model) / spectra.variance**0.5
print(f"residuals: {residual[0][spectra.fitted[0]].std():.2f} sigma")

# %%
# The data of the product are a cube of their own, in the rest frame, with all its tools.
narrow_band = fit.cube.image(6562.8, fwhm=20.0)
image = narrow_band.plot()

folder.cleanup()
