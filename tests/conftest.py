"""Settings for all tests: one thread each, and helpers/ on the path (`import oracle`)."""

import os
import sys
from pathlib import Path

# Before numpy or torch is imported: tiny problems are slower with many threads, not faster.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
