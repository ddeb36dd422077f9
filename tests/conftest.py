import os

from hypothesis import settings

# The same examples in every run where a red test must mean a changed library; new ones on a developer's machine.
settings.register_profile("upweight", deadline=None, max_examples=60, derandomize="CI" in os.environ)
settings.load_profile("upweight")
