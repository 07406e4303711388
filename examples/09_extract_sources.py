"""
Spectra of overlapping sources
==============================

A crowded field of point sources is simulated, with a catalogue that is off by a tenth of an arcsecond. All sources are fitted
together: the PSF, the offset and, at every wavelength, the flux of each and the sky. Then knots in the halo of the central galaxy
of Abell 478 show what the flags say where sources are no points.

From the command line: ``ifujax extract cube.fits --catalog cat.csv --output spectra``.
"""

import numpy as np
from matplotlib.figure import Figure

import ifujax
from ifujax import simulate
from ifujax.extraction import CatalogSource, ExtractionConfig
from ifujax.io.demo import demo_file

field = simulate.simulate_field(25, shape=(60, 60), seed=3, wavelength=np.arange(4800.0, 9300.0, 10.0))
print(field.cube)

# %%
# The catalogue
# -------------
# Usually ``ifujax.read_catalog("cat.csv")``. Here it is made from the truth, moved by 0.1 arcsec.
catalog = [CatalogSource(str(k + 1), ra + 0.1 / 3600, dec) for k, (ra, dec) in enumerate(zip(field.ra, field.dec))]
extraction = ifujax.extract_sources(field.cube, catalog, ExtractionConfig(cross_correlation=False))
print(extraction)
scene = extraction.scene
print(scene)
print(f"offset of the catalogue: {scene.psf.dx:+.3f}, {scene.psf.dy:+.3f} arcsec along the pixels")

# %%
# Are they right?
# ---------------
# The differences to the truth in units of their errors: 68 % should lie within 1. The PSF-weighted spectrum of one source
# after the other (Horne) takes the neighbours' light for its own.
pulls = (scene.flux - field.spectra) / scene.error
print(f"scene: {np.mean(np.abs(pulls) < 1):.1%} within one error")
ratio = np.median(scene.flux, axis=1) / np.median(field.spectra, axis=1)
alone = np.array([np.median(each.values) for each in scene.horne]) / np.median(field.spectra, axis=1)
far, farther = (each[np.argmax(np.abs(each - 1))] for each in (ratio, alone))
print(f"flux over truth, the worst of 25 sources: scene {far:.2f}, one by one {farther:.2f}")
assert np.abs(ratio - 1).max() < 0.1
extraction.summary()["id", "snr_scene", "contamination", "error_inflation", "neighbour", "flags"].pprint_all()

# %%
# A source and its neighbour
# --------------------------
worst = int(np.argmax(scene.contamination))
figure = Figure(figsize=(9, 3), layout="constrained")
axes = figure.subplots()
axes.plot(field.cube.wavelength, scene.horne[worst].values, color="0.7", lw=0.8, label="by itself (Horne)")
axes.plot(field.cube.wavelength, scene.flux[worst], color="#0072B2", lw=0.8, label="scene")
axes.plot(field.cube.wavelength, field.spectra[worst], color="k", lw=1, label="truth")
axes.set(xlabel="wavelength / Å", ylabel="flux density", title=f"source {worst + 1}")
axes.legend()
figure

# %%
# Where sources are no points
# ---------------------------
# Positions in the halo of a galaxy, from AutoSpec's own test: nothing there is a point. The scene says so (``psf_assumed``), and
# AutoSpec's spectra are of the halo. An image of HST weights them, and finds objects, too.
try:
    cube = ifujax.read_cube(demo_file("minicube.fits"))
    hst = ifujax.read_image(demo_file("a478hst-cutout.fits"))
except ifujax.DataError as error:
    print(f"Without the real cube: {error}")
else:
    halo = [CatalogSource("1", 63.3559265, 10.4653692), CatalogSource("3", 63.3552666, 10.4657850)]
    found = ifujax.extract_sources(cube, halo, ExtractionConfig(apertures=(0.6, 1.0)), images={"HST": hst})
    found.summary()["id", "snr_reference", "snr_scene", "flags"].pprint_all()
    from ifujax.extraction.figures import source_figure

    page = source_figure(found["1"])
