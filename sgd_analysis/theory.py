"""What can be predicted before running: closed forms and operators for least squares."""

from sgd_analysis._epoch_operator import EpochOperator, epoch_operator
from sgd_analysis._expected_loss import expected_risk, expected_running_loss
from sgd_analysis._fixed_point import fixed_point_distance, fixed_point_expansion
from sgd_analysis._gradient_descent import gradient_descent_risk, gradient_descent_steps
from sgd_analysis._lyapunov import LyapunovExponents, lyapunov_exponents
from sgd_analysis._second_moment import (
    mean_square_radius,
    mean_square_step_limit,
    second_moment_operator,
)

__all__ = [
    "EpochOperator",
    "LyapunovExponents",
    "epoch_operator",
    "expected_risk",
    "expected_running_loss",
    "fixed_point_distance",
    "fixed_point_expansion",
    "gradient_descent_risk",
    "gradient_descent_steps",
    "lyapunov_exponents",
    "mean_square_radius",
    "mean_square_step_limit",
    "second_moment_operator",
]
