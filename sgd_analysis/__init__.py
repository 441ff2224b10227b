"""Which loss and which gradient is your training loop really showing you?"""

from __future__ import annotations

from sgd_analysis._version import __version__ as __version__
from sgd_analysis.ensemble.ensemble import Ensemble, train_ensemble
from sgd_analysis.history.history import History
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.orders import (
    batches,
    cyclic,
    independent,
    reshuffle,
    shuffle_once,
    with_replacement,
)
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.problems.quadratic_fit import quadratic_fit
from sgd_analysis.recording.recorder import Recorder, record
from sgd_analysis.stopping import (
    StoppingRule,
    diverged,
    empirical_risk_below,
    epochs_reached,
    full_gradient_norm_below,
    last_batch_loss_below,
    mean_batch_loss_below,
    no_improvement,
    path_gradient_norm_below,
    running_loss_below,
)
from sgd_analysis.surveying.loss_gap import LossGap, loss_gap
from sgd_analysis.surveying.measures import (
    ResidualNorms,
    expected_batch_gradient_norm_squared,
    residual_norms,
    survey,
)
from sgd_analysis.surveying.survey import Survey
from sgd_analysis.theory.epoch_operator import EpochOperator, epoch_operator
from sgd_analysis.theory.expected_loss import expected_risk, expected_running_loss
from sgd_analysis.theory.fixed_point import fixed_point_distance, fixed_point_expansion
from sgd_analysis.theory.gradient_descent import gradient_descent_risk, gradient_descent_steps
from sgd_analysis.theory.lyapunov import LyapunovExponents, lyapunov_exponents
from sgd_analysis.theory.second_moment import (
    mean_square_radius,
    mean_square_step_limit,
    second_moment_operator,
)
from sgd_analysis.training.run import Run, iterate_average
from sgd_analysis.training.train import train

__all__ = [
    "Ensemble",
    "EpochOperator",
    "FiniteSum",
    "History",
    "LeastSquares",
    "LossGap",
    "LyapunovExponents",
    "Recorder",
    "ResidualNorms",
    "Run",
    "StoppingRule",
    "Survey",
    "Vectors",
    "batches",
    "cyclic",
    "diverged",
    "empirical_risk_below",
    "epoch_operator",
    "epochs_reached",
    "expected_batch_gradient_norm_squared",
    "expected_risk",
    "expected_running_loss",
    "fixed_point_distance",
    "fixed_point_expansion",
    "full_gradient_norm_below",
    "gradient_descent_risk",
    "gradient_descent_steps",
    "independent",
    "iterate_average",
    "last_batch_loss_below",
    "loss_gap",
    "lyapunov_exponents",
    "mean_batch_loss_below",
    "mean_square_radius",
    "mean_square_step_limit",
    "no_improvement",
    "path_gradient_norm_below",
    "quadratic_fit",
    "record",
    "reshuffle",
    "residual_norms",
    "running_loss_below",
    "second_moment_operator",
    "shuffle_once",
    "survey",
    "train",
    "train_ensemble",
    "with_replacement",
]
