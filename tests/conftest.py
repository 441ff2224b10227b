"""What all tests share."""

from hypothesis import settings

# Speed is measured in tests/benchmarks: a slow moment of the machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
