"""Benchmarks: scripts that print one JSON object. Run one with ``python -m benchmarks.NAME [--quick] [--save]``.

Importing this package pins the numerical libraries to one thread, which has to happen before they are loaded: what
is measured is one core, as a control process gets it, not a thread pool.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
