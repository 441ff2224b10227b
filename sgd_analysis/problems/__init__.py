"""What is minimised: a finite sum of losses, and a least-squares problem with known answers."""
