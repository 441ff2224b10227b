"""What is still wrong with a training loop that a reader has written, told in a sentence."""

from sgd_analysis.checks.descent import gradient_descent, ready_made_loss
from sgd_analysis.checks.listing import printed_batches
from sgd_analysis.checks.optimizers import optimizer_step
from sgd_analysis.checks.samples import one_sample_at_a_time
from sgd_analysis.checks.shuffled import mini_batches

__all__ = [
    "gradient_descent",
    "mini_batches",
    "one_sample_at_a_time",
    "optimizer_step",
    "printed_batches",
    "ready_made_loss",
]
