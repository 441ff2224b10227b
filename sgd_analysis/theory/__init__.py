"""What can be predicted before running: one file a theorem, all of them on least squares."""
