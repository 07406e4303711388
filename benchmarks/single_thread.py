"""Import first: one thread for BLAS, OpenMP, numba and XLA's CPU client, so that CPU seconds can be compared."""

from __future__ import annotations

import os

THREADS = 1

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = str(THREADS)
# XLA sizes its thread pool by the CPUs that the process may run on
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
