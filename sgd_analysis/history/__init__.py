"""What was recorded along a run: its columns, its vectors, and the file it is saved to."""
