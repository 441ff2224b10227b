"""Many seeds at once: the runs that `train` would make one after another."""
