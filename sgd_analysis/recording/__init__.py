"""Attach to any training loop, and read off each step its loss and its gradient."""
