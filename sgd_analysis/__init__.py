"""Which loss and which gradient is your training loop really showing you?

Everything is imported from `sgd_analysis` itself; `help(name)` has an example to paste. Which
name for which question:

A loop of your own
    What did every step of it see?                    record, Recorder
    And of a loop, or a script, I cannot edit?        record_all; python -m sgd_analysis script.py
    And how do I read what was recorded?              History
    Which samples did it see, which came again?       repeated_samples, RepeatedSamples
    Is the order of the batches much the same?        order_correlation, OrderCorrelation

What holds at fixed weights
    What are the losses and gradients of my batches?  survey, Survey
    Why is the printed loss not the global loss?      loss_gap, LossGap
    And can I have the global one without a pass?     estimate_empirical_risk, RiskEstimate
    How large is a random batch's gradient?           expected_batch_gradient_norm_squared
    And if the loss is a norm, not a mean?            residual_norms, ResidualNorms
    Several ranks train: how noisy are gradients?     noise_of_ranks, NoiseOfRanks
    Is the step too long for the loss's curvature?    preconditioned_sharpness, stability_limit

What is minimised
    A model's loss over my samples?                   FiniteSum
    Least squares, where all answers are known?       LeastSquares, quadratic_fit

Training
    What does one run do? And many seeds at once?     train, Run; train_ensemble, Ensemble
    What does averaging a run's weights gain?         iterate_average
    In which order do the samples come?               cyclic, shuffle_once, reshuffle,
                                                      with_replacement, independent; batches
    When does it stop, and for which reason?          StoppingRule; running_loss_below,
                                                      mean_batch_loss_below,
                                                      last_batch_loss_below,
                                                      empirical_risk_below,
                                                      full_gradient_norm_below,
                                                      path_gradient_norm_below,
                                                      no_improvement, diverged

What least squares will do, before it runs
    When does gradient descent get below ε?           gradient_descent_steps
    And its loss on the way?                          gradient_descent_risk
    What does SGD print, in the mean over all seeds?  expected_running_loss, expected_risk
    What does an epoch in a fixed order do?           epoch_operator, EpochOperator
    Where do its epochs end, and why not at the best? fixed_point_expansion
    Which step size keeps its mean square bounded?    mean_square_step_limit, mean_square_radius,
                                                      second_moment_operator
    Does a typical run converge beyond it?            lyapunov_exponents, LyapunovExponents

`sgd_analysis.figures`, which needs matplotlib, draws medians with bands and stopping epochs;
`sgd_analysis.checks` tells what is still wrong with a training loop written as an exercise.
"""

from __future__ import annotations

from sgd_analysis._version import __version__ as __version__
from sgd_analysis.curvature.scaling import stability_limit
from sgd_analysis.curvature.sharpness import preconditioned_sharpness
from sgd_analysis.diagnosis.noise_of_ranks import NoiseOfRanks, noise_of_ranks
from sgd_analysis.diagnosis.order_correlation import OrderCorrelation, order_correlation
from sgd_analysis.diagnosis.repeated_samples import RepeatedSamples, repeated_samples
from sgd_analysis.diagnosis.risk_estimate import RiskEstimate, estimate_empirical_risk
from sgd_analysis.ensemble.ensemble import Ensemble, train_ensemble
from sgd_analysis.history.history import History
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
from sgd_analysis.recording.everywhere import record_all
from sgd_analysis.recording.recorder import Recorder, record
from sgd_analysis.stopping import (
    StoppingRule,
    diverged,
    empirical_risk_below,
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
)
from sgd_analysis.surveying.survey import Survey
from sgd_analysis.surveying.surveyor import survey
from sgd_analysis.theory.epoch_operator import EpochOperator, epoch_operator
from sgd_analysis.theory.expected_loss import expected_risk, expected_running_loss
from sgd_analysis.theory.fixed_point import fixed_point_expansion
from sgd_analysis.theory.gradient_descent import gradient_descent_risk, gradient_descent_steps
from sgd_analysis.theory.lyapunov import LyapunovExponents, lyapunov_exponents
from sgd_analysis.theory.mean_square import mean_square_radius, mean_square_step_limit
from sgd_analysis.theory.second_moment import second_moment_operator
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
    "NoiseOfRanks",
    "OrderCorrelation",
    "Recorder",
    "RepeatedSamples",
    "ResidualNorms",
    "RiskEstimate",
    "Run",
    "StoppingRule",
    "Survey",
    "batches",
    "cyclic",
    "diverged",
    "empirical_risk_below",
    "epoch_operator",
    "estimate_empirical_risk",
    "expected_batch_gradient_norm_squared",
    "expected_risk",
    "expected_running_loss",
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
    "noise_of_ranks",
    "order_correlation",
    "path_gradient_norm_below",
    "preconditioned_sharpness",
    "quadratic_fit",
    "record",
    "record_all",
    "repeated_samples",
    "reshuffle",
    "residual_norms",
    "running_loss_below",
    "second_moment_operator",
    "shuffle_once",
    "stability_limit",
    "survey",
    "train",
    "train_ensemble",
    "with_replacement",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
