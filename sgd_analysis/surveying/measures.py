"""What follows from a survey: a new measure goes here.

A measure is one function of a `Survey`, or of more of them: it begins with `check_survey`, and its
docstring ends with an example. `sgd_analysis/__init__.py` exports it and says which question it
answers, `book/api.md` has a line for it, and `tests/surveying/test_measures.py` compares it with a
slow, obvious computation. It says what batches of other sizes count for, and one in which no
sample counts (`denominator` 0). What the numbers of a survey are in any case, a norm or a mean of
them, is a property in `survey.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import quotient
from sgd_analysis._validation import integer_between
from sgd_analysis.surveying.survey import Survey, check_survey


def expected_batch_gradient_norm_squared(
    survey: Survey, batch_size: int, *, estimate: bool = False
) -> float:
    r"""Return the mean squared norm of the gradient of a random batch, at the survey's weights.

    Over all subsets of B of the N samples, drawn uniformly without replacement,

    .. math:: E \lVert \nabla f_B \rVert^2
        = \lVert \nabla F \rVert^2 + \frac{\operatorname{tr} \Sigma}{B} \frac{N - B}{N - 1}.

    Args:
        survey: of batches of one sample each, or with `estimate`, of larger random ones.
        batch_size: B, between 1 and the number of samples N.
        estimate: as for `Survey.gradient_variance`.

    Returns:
        E‖∇f_B‖², in squared gradient units.

    Raises:
        TypeError: if survey is no Survey, or batch_size no integer.
        ValueError: if batch_size is out of range, or as `Survey.gradient_variance`.

    Example:
        >>> from sgd_analysis import LeastSquares, expected_batch_gradient_norm_squared
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])
        >>> one_by_one = line.survey([1.0], [[0], [1]])  # of gradients 2 and 8
        >>> [expected_batch_gradient_norm_squared(one_by_one, size) for size in (1, 2)]
        [34.0, 25.0]
    """
    check_survey("survey", survey)
    n_samples = int(survey.n_samples.sum())
    size = integer_between("batch_size", batch_size, 1, n_samples, meaning="the number of samples")
    variance = survey.gradient_variance(estimate=estimate)
    left_out = (n_samples - size) / max(n_samples - 1, 1)
    return survey.full_gradient_norm * survey.full_gradient_norm + variance / size * left_out


@dataclass(frozen=True, eq=False)
class ResidualNorms:
    r"""The loss as one vector norm ‖Y − f(X)‖, and as a sum of such norms over batches.

    With r_b the residuals of batch b and r those of all m batches,

    .. math:: \lVert r \rVert \le \sum_{b=1}^{m} \lVert r_b \rVert \le \sqrt{m} \lVert r \rVert.

    On the left is the triangle inequality (of the vectors that are r_b on batch b, and 0
    elsewhere), with equality if all batches but one are fitted exactly; on the right that of
    Cauchy and Schwarz, with equality if all batches have the same norm. Means of squares have no
    such gap: this is why a sum of batch norms is not the norm of all, at any weights.

    Args:
        batch_norm: (n_batches,) the norms ‖r_b‖, in units of the targets.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import ResidualNorms
        >>> norms = ResidualNorms(np.array([3.0, 4.0]))
        >>> norms.total, norms.sum_of_batches, norms.ratio
        (5.0, 7.0, 1.4)
    """

    batch_norm: NDArray[np.float64]

    @property
    def total(self) -> float:
        """The norm of all residuals, ‖r‖ = ‖Y − f(X)‖; also the lower bound of the sum."""
        return float(np.linalg.norm(self.batch_norm))

    @property
    def sum_of_batches(self) -> float:
        """The sum of the batches' norms, Σ ‖r_b‖."""
        return float(self.batch_norm.sum())

    @property
    def upper_bound(self) -> float:
        """The largest that the sum can be, √m ‖r‖."""
        return math.sqrt(len(self.batch_norm)) * self.total

    @property
    def ratio(self) -> float:
        """Σ ‖r_b‖ / ‖r‖, between 1 and √m; nan if all residuals are zero."""
        return quotient(self.sum_of_batches, self.total)


def residual_norms(survey: Survey) -> ResidualNorms:
    """Return the norms of the residuals of a survey's batches and of all of them together.

    Args:
        survey: of a criterion that is the **mean of squared residuals**, as `torch.nn.MSELoss`
            is. That it is one cannot be seen from its values; of others the result has no
            meaning. Where the squares are summed over several outputs a sample and the mean taken
            over samples, the norms are right, too.

    Returns:
        The `ResidualNorms`, ‖r_b‖ = √(n_b f_b).

    Raises:
        TypeError: if survey is no Survey.
        ValueError: if a loss is negative, which no mean of squares is.

    Example:
        >>> from sgd_analysis import LeastSquares, residual_norms
        >>> line = LeastSquares([[0.0], [0.0]], [3.0, 4.0])
        >>> residual_norms(line.survey([1.0], [[0], [1]])).batch_norm
        array([3., 4.])
    """
    check_survey("survey", survey)
    squares = np.where(survey.denominator > 0, survey.denominator * survey.loss, 0.0)
    if (squares < 0).any():
        raise ValueError(
            "survey must be of a mean of squared residuals, whose losses are never negative, got "
            f"a loss of {survey.loss.min():g}"
        )
    return ResidualNorms(np.sqrt(squares))
