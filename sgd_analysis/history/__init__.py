"""What was recorded along a run: columns and vectors, read, drawn, saved and handed to loggers."""
