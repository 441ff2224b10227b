"""What a history alone tells of the loop that made it, without another look at the samples."""
