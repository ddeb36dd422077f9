"""What all tests share: one thread, and a profile for hypothesis."""

import os

from hypothesis import settings

# Matrices here are small and workers run side by side: threads that wait for each other take several times as long.
# Set before a test module imports numpy or torch, which read these once.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# The same examples in every run where a red test must mean a changed library; new ones on a developer's machine.
settings.register_profile("upweight", deadline=None, max_examples=60, derandomize="CI" in os.environ)
settings.load_profile("upweight")
