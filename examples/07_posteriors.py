"""
Posteriors
==========

Where a line is faint, a number and an error do not say what is known. Here posteriors of some spaxels of a real MUSE cube:
intervals, upper limits, a line ratio, and what they look like.

From the command line: ``ifujax sample minicube.fits -c halpha.cfg --region 18:21,20:23 -p``.
"""

import tempfile
from pathlib import Path

import numpy as np

import ifujax
from ifujax.io.demo import minicube_path

try:
    cube = ifujax.read_cube(minicube_path(), redshift=0.0859)
except ifujax.DataError as error:
    print(f"A simulated cube instead: {error}")
    cube = ifujax.simulate.cube((40, 40), redshift=0.0859, seed=1).cube

# %%
# Priors
# ------
# A parameter is uniform within its bounds unless a prior is declared. Here the dispersion has one: 100 km/s, give or take a
# factor of two. Fluxes and the continuum need none: they get very wide ones, from the noise.
kin = ifujax.Kinematics(
    velocity=ifujax.Bounded(-600, 600, start=0),
    velocity_dispersion=ifujax.Bounded(20, 500, start=120, prior=ifujax.LogNormal(100, 0.7)),
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
fit = ifujax.fit_cube(cube, model, window=(6450, 6650))
print(fit.summary())

# %%
# Sample
# ------
# Three spaxels for each of eight values of the signal to noise, from no line to a bright one.
snr = np.where(fit.status == 0, fit["ha", "snr"], np.nan)
where = np.zeros(fit.shape, dtype=bool)
for wanted in (0.5, 1.5, 3.0, 5.0, 7.0, 10.0, 15.0, 25.0):
    nearest = np.argsort(np.abs(snr - wanted), axis=None)[:3]
    where.ravel()[nearest] = True
post = ifujax.sample(fit, where=where, ratios=[("n2b", "ha")], seed=1)
print(post.summary())

# %%
# Every spaxel says what made its draws, and whether they can be trusted: a ``status`` of 0.
print(f"by importance sampling: {np.sum(post.tier == 1)}, by NUTS: {np.sum(post.tier == 2)}")
print(f"trusted: {np.sum(post.status[where] == 0)} of {where.sum()}")

# %%
# When do the errors of the fit suffice?
# --------------------------------------
# The 68 % interval of the velocity beside the fit's error: they agree for bright lines, and for faint ones they do not.
print("S/N    fit: velocity         posterior: median and 68 % interval   H-alpha flux below (95 %)")
y, x = np.nonzero(where)
for k in np.argsort(snr[where])[1::3]:
    at = y[k], x[k]
    low, middle, high = (post.quantile("ha", "velocity", q)[at] for q in (0.16, 0.5, 0.84))
    limit = "" if post.detected("ha")[at] else f"{post.upper_limit('ha', 'flux', 0.95)[at]:10.1f}"
    velocity, error = fit["ha", "velocity"][at], fit.error["ha", "velocity"][at]
    print(f"{snr[at]:4.1f}   {velocity:7.1f} +- {error:5.1f}   {middle:12.1f}  {low:7.1f} to {high:6.1f}      {limit}")

# %%
# One spaxel
# ----------
# The faintest one that is detected: in words, with all priors as they were used; its draws in pairs; its data with the models of
# some draws.
detected = np.flatnonzero(where & post.detected("ha"))
row = int(detected[np.argmin(snr.ravel()[detected])])
y0, x0 = divmod(row, fit.shape[1])
print(post.describe(x0, y0))
pairs = post.plot(x0, y0)

# %%
predictive = post.plot_predictive(x0, y0)

# %%
# Draws are arrays: anything that follows from the parameters has a posterior too.
ha, n2 = post.draws("ha", "flux", x0, y0), post.draws("n2b", "flux", x0, y0)
low, middle, high = np.quantile(n2 / (ha + n2), [0.16, 0.5, 0.84])
print(f"[N II] share of the flux: {middle:.2f} ({low:.2f} to {high:.2f})")
print(f"log [N II]/H-alpha:       {post.ratio('n2b', 'ha')[y0, x0]:.2f}")

# %%
# On the disk
# -----------
# Draws go to a netCDF file, which ArviZ and xarray read; percentiles to a FITS file of maps.
with tempfile.TemporaryDirectory() as folder:
    draws = Path(folder) / "posteriors.nc"
    stored = ifujax.sample(fit, where=[(x0, y0)], seed=1, store=draws)
    maps = stored.write(Path(folder) / "percentiles.fits")
    import xarray as xr

    with xr.open_dataset(draws, group="posterior", engine="h5netcdf") as posterior:
        velocity = posterior["velocity"].sel(line="ha").isel(y=y0, x=x0)
        print(dict(posterior.sizes), f"median velocity {float(velocity.median()):.1f} km/s")
    print(draws.name, maps.name)
