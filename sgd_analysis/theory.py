"""What can be predicted before running: closed forms and operators for least squares."""

from sgd_analysis._epoch_operator import EpochOperator, epoch_operator
from sgd_analysis._fixed_point import fixed_point_distance, fixed_point_expansion
from sgd_analysis._gradient_descent import gradient_descent_risk, gradient_descent_steps

__all__ = [
    "EpochOperator",
    "epoch_operator",
    "fixed_point_distance",
    "fixed_point_expansion",
    "gradient_descent_risk",
    "gradient_descent_steps",
]
