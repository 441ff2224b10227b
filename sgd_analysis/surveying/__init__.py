"""What holds at fixed weights, and what the path adds to it; a new measure goes here."""
