"""Which loss and which gradient is your training loop really showing you?"""

from sgd_analysis._vectors import Vectors
from sgd_analysis.history import History
from sgd_analysis.orders import cyclic, reshuffle
from sgd_analysis.problems import FiniteSum, LeastSquares, quadratic_fit
from sgd_analysis.recorder import Recorder, record
from sgd_analysis.stopping import (
    StoppingRule,
    last_batch_loss_below,
    mean_batch_loss_below,
    running_loss_below,
)
from sgd_analysis.theory import gradient_descent_risk, gradient_descent_steps
from sgd_analysis.training import Run, train

__version__ = "0.1.0"

__all__ = [
    "FiniteSum",
    "History",
    "LeastSquares",
    "Recorder",
    "Run",
    "StoppingRule",
    "Vectors",
    "cyclic",
    "gradient_descent_risk",
    "gradient_descent_steps",
    "last_batch_loss_below",
    "mean_batch_loss_below",
    "quadratic_fit",
    "record",
    "reshuffle",
    "running_loss_below",
    "train",
]
