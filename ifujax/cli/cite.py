"""The command ``ifujax cite``."""

from __future__ import annotations

import typer

from ifujax import __version__

ENTRIES = f"""\
@software{{ifujax,
  author  = {{{{ifujax developers}}}},
  title   = {{{{ifujax: fast, probabilistic modelling of integral-field and slit spectroscopy on JAX}}}},
  version = {{{__version__}}},
  year    = {{2026}},
}}

@software{{jax,
  author = {{Bradbury, James and Frostig, Roy and Hawkins, Peter and Johnson, Matthew James and Leary, Chris and
            Maclaurin, Dougal and Necula, George and Paszke, Adam and VanderPlas, Jake and Wanderman-Milne, Skye and
            Zhang, Qiao}},
  title  = {{{{JAX: composable transformations of Python+NumPy programs}}}},
  url    = {{http://github.com/jax-ml/jax}},
  year   = {{2018}},
}}

@article{{astropy2022,
  author  = {{{{Astropy Collaboration}}}},
  title   = {{{{The Astropy Project: Sustaining and Growing a Community-oriented Open-source Project and the Latest Major
             Release (v5.0) of the Core Package}}}},
  journal = {{The Astrophysical Journal}},
  volume  = {{935}},
  pages   = {{167}},
  year    = {{2022}},
  doi     = {{10.3847/1538-4357/ac7c74}},
}}
"""


def cite() -> None:
    """Print BibTeX entries: ifujax, and what it stands on.

    \b
    Example:
      ifujax cite >> paper.bib
    """
    typer.echo(ENTRIES, nl=False)
