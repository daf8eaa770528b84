"""Speed of the core, on one thread of linear algebra so that runs compare: ``python -m benchmarks.speed``."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
