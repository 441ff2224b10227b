"""What a survey is: the losses and gradients of batches at fixed weights, and what they tell."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import norms, quotient, read_only
from sgd_analysis._validation import kind_of


@dataclass(frozen=True, eq=False, repr=False)
class Survey:
    r"""The losses and gradients of m batches, all at the **same** weights w.

    `survey` and `LeastSquares.survey` make them. With n_b the number that batch b's mean divides
    by and N their sum, the batches together are the finite sum

    .. math:: F(w) = \sum_{b=1}^{m} \frac{n_b}{N} f_b(w)

    whatever the partition: ragged tails, class weights and ignored targets included. A batch
    with n_b = 0 has no mean; it counts for nothing.

    Args:
        loss: (n_batches,) each batch's mean loss f_b(w), in loss units.
        denominator: (n_batches,) what each batch's mean divides by, n_b: its number of samples
            (or of elements, of targets not ignored, or the sum of class weights).
        n_samples: (n_batches,) the number of samples in each batch.
        batch_gradient_norm: (n_batches,) the norm of each batch's gradient ‖∇f_b(w)‖.
        full_gradient: (n_parameters,) the gradient ∇F(w) of all samples, the size-weighted mean
            of the batches' gradients, in double precision.
        step_gradient: (n_parameters,) (1/m) Σ ∇f_b(w), the plain mean of the batches' gradients, in
            double precision: one step, one vote. Where sizes or weights differ, a loop with one
            step a batch descends the plain mean of the batch losses, and not F.
        between_batch_variance: Σ (n_b/N) ‖∇f_b(w) − ∇F(w)‖², how far the batches' gradients are
            from the full gradient.
        kept_gradient: (n_batches, n_parameters) each batch's gradient ∇f_b(w), or None if they
            did not fit into memory.
        draws: how many seeded draws of its random numbers the losses and gradients are means of;
            0 where no draws were asked for.
        standard_error: the standard error of the empirical risk that comes from the draws.
        noise: what the modules that draw (dropout, say) add to the empirical risk by being in
            training mode, in the mean over the draws; nan if they are in evaluation mode.
        noise_error: the standard error of the noise.
        couples: whether samples change each other's loss by sharing a batch, as with a batch
            norm in training mode; then the empirical risk depends on how the samples are cut.
        may_reorder: whether the loader may put the samples in other batches at its next pass.

    Raises:
        ValueError: if the shapes do not match, or no sample counts.

    Example:
        >>> from sgd_analysis import LeastSquares
        >>> line = LeastSquares([[1.0], [2.0], [3.0]], [0.0, 0.0, 0.0])
        >>> batches = line.survey([1.0], [[0, 1], [2]])
        >>> batches.loss, batches.batch_gradient_norm
        (array([2.5, 9. ]), array([ 5., 18.]))
        >>> round(batches.empirical_risk, 4), round(batches.full_gradient_norm, 4)
        (4.6667, 9.3333)
    """

    loss: NDArray[np.float64]
    denominator: NDArray[np.float64]
    n_samples: NDArray[np.int64]
    batch_gradient_norm: NDArray[np.float64]
    full_gradient: NDArray[np.floating]
    step_gradient: NDArray[np.floating]
    between_batch_variance: float
    kept_gradient: NDArray[Any] | None = None
    draws: int = 0
    standard_error: float = 0.0
    noise: float = 0.0
    noise_error: float = 0.0
    couples: bool = False
    may_reorder: bool = False

    def __post_init__(self) -> None:
        for name in ("loss", "denominator", "batch_gradient_norm"):
            self._set(name, np.asarray(getattr(self, name), dtype=np.float64))
        self._set("n_samples", np.asarray(self.n_samples, dtype=np.int64))
        for name in ("full_gradient", "step_gradient"):
            self._set(name, np.asarray(getattr(self, name)))
        if self.kept_gradient is not None:
            self._set("kept_gradient", np.asarray(self.kept_gradient))
        self._check_shapes()
        if not (self.denominator.min(initial=0) >= 0 and self.denominator.sum() > 0):
            raise ValueError(
                "a survey needs a batch with at least one sample that counts, got "
                f"{len(self.loss)} batches of denominator {self.denominator}"
            )

    def _check_shapes(self) -> None:
        m, p = len(self.loss), len(self.full_gradient)
        columns = (self.loss, self.denominator, self.n_samples, self.batch_gradient_norm)
        means = (self.full_gradient, self.step_gradient)
        if any(column.shape != (m,) for column in columns) or {g.shape for g in means} != {(p,)}:
            raise ValueError(
                "loss, denominator, n_samples and batch_gradient_norm must have one value a batch, "
                "and full_gradient and step_gradient one a parameter, got shapes "
                f"{[c.shape for c in columns]} and {[g.shape for g in means]}"
            )
        if self.kept_gradient is not None and self.kept_gradient.shape != (m, p):
            raise ValueError(
                f"kept_gradient must have shape {(m, p)}, (n_batches, n_parameters), got "
                f"{self.kept_gradient.shape}"
            )

    def _set(self, name: str, array: NDArray[Any]) -> None:
        object.__setattr__(self, name, read_only(array))

    def __repr__(self) -> str:
        batches = f"{len(self.loss)} batches of {self.n_samples.sum()} samples"
        error = f" ± {self.standard_error:.2g}" if self.draws else ""
        return (
            f"Survey({batches}, {len(self.full_gradient)} parameters: empirical risk "
            f"{self.empirical_risk:.4g}{error}, full gradient norm {self.full_gradient_norm:.4g}, "
            f"alignment {self.alignment:.4g})"
        )

    @property
    def gradient(self) -> NDArray[Any]:
        """(n_batches, n_parameters) each batch's gradient ∇f_b(w), in the parameters' dtype.

        Raises:
            ValueError: if they were not kept, because they did not fit into memory.
        """
        if self.kept_gradient is None:
            m, p = len(self.loss), len(self.full_gradient)
            raise ValueError(
                f"the gradients of {m} batches by {p} parameters did not fit into memory, and "
                "only their norms and mean were kept: give survey() a larger memory= (in bytes), "
                "or fewer batches"
            )
        return self.kept_gradient

    @property
    def empirical_risk(self) -> float:
        """The global loss F(w), all samples at fixed weights, in loss units."""
        return self._mean_over_samples(self.loss)

    @property
    def full_gradient_norm(self) -> float:
        """The norm of the full gradient, ‖∇F(w)‖."""
        return float(norms(self.full_gradient[None])[0])

    @property
    def mean_batch_gradient_norm(self) -> float:
        """The size-weighted mean of the batches' gradient norms, Σ (n_b/N) ‖∇f_b(w)‖.

        Only with these weights is it never below the norm of the full gradient.
        """
        return self._mean_over_samples(self.batch_gradient_norm)

    @property
    def alignment(self) -> float:
        """‖∇F(w)‖ over the mean batch gradient norm, 1 if all point the same way; nan at 0/0."""
        ratio = quotient(self.full_gradient_norm, self.mean_batch_gradient_norm)
        return float(np.minimum(ratio, 1.0))  # rounding of aligned gradients gives a bit more

    @property
    def triangle_slack(self) -> float:
        """The mean batch gradient norm minus ‖∇F(w)‖, what the triangle inequality leaves; >= 0."""
        slack = self.mean_batch_gradient_norm - self.full_gradient_norm
        return float(np.maximum(slack, 0.0))  # rounding of aligned gradients gives a bit less

    @property
    def step_alignment(self) -> float:
        """The cosine between `step_gradient` and `full_gradient`; nan if one of them is zero.

        It is 1 where all batches count for the same in F. Below, part of what an epoch's steps do
        is not about the reported loss: at 0 they leave it alone, and below they raise it.
        """
        step, full = (
            g / (norms(g[None])[0] or np.nan) for g in (self.step_gradient, self.full_gradient)
        )
        return float(np.clip(np.vdot(step, full).real, -1.0, 1.0))  # rounding gives a bit more

    @property
    def lateness(self) -> float:
        r"""By how many epochs an epoch's running loss is late, to first order in the step size.

        Plain SGD lowers F by about ηD in an epoch that begins here, and its running loss is about
        η(V + D)/2 above the F at the end: the global loss of so many epochs before,

        .. math:: \frac{V + D}{2D} = \frac12 \Bigl(1 + \frac VD\Bigr), \quad
            D = m \langle \nabla F, s \rangle, \quad
            V = \sum_b \frac{n_b}{N} \lVert \nabla f_b \rVert^2,

        with s the `step_gradient`. It is ½ where the batches' gradients agree (the loss falls all
        along the epoch), 1 where they are orthogonal (flat inside epochs, stairs between them), and
        more where they oppose each other (it rises inside epochs and drops at each boundary). With
        batches of different weights this is the mean over random orders; with equal ones it holds
        in any order.

        It is nan where D is negative, as the epoch then raises F; inf where D alone is zero.
        """
        largest = self.batch_gradient_norm[self.denominator > 0].max()
        with np.errstate(all="ignore"):
            full, step, batch = (
                g / (largest or 1.0)
                for g in (self.full_gradient, self.step_gradient, self.batch_gradient_norm)
            )
            drop = float(np.vdot(full, step).real) * np.count_nonzero(self.denominator)
            ratio = quotient(self._mean_over_samples(batch**2), drop)
        return (1 + ratio) / 2 if drop >= 0 else float("nan")

    def gradient_variance(self, *, estimate: bool = False) -> float:
        r"""Return the trace of the covariance of the **samples'** gradients, tr Σ.

        .. math:: \Sigma = \frac1N \sum_{i=1}^{N} (g_i - \nabla F)(g_i - \nabla F)^\top

        It is exact where every batch holds one sample. From larger batches it can be estimated:
        a uniform subset of B of the N samples has E‖∇f_B − ∇F‖² = (tr Σ/B)(N − B)/(N − 1), so
        that, weighting the m batches of a random partition by their sizes,

        .. math:: E \sum_b \tfrac{B_b}{N} \lVert \nabla f_b - \nabla F \rVert^2
            = \operatorname{tr} \Sigma \sum_b \tfrac{N - B_b}{N(N - 1)}
            = \frac{m - 1}{N - 1} \operatorname{tr} \Sigma,

        whatever the sizes. The estimate is the sum on the left times (N − 1)/(m − 1).

        Args:
            estimate: whether to estimate it from batches of more than one sample. The estimate
                is unbiased if each sample is in one batch and the batches were drawn uniformly
                at random, as those of a `DataLoader(shuffle=True)` are; from a fixed order it
                says nothing.

        Returns:
            tr Σ, in squared gradient units.

        Raises:
            ValueError: if a batch holds several samples and no estimate is asked for, if there
                is only one batch to estimate from, or if the samples weigh differently in F
                (class weights, ignored targets), for which the formulas do not hold.
        """
        m, n_samples = len(self.loss), self._n_samples_of_equal_weight
        if (self.n_samples == 1).all():
            return self.between_batch_variance
        if not estimate:
            raise ValueError(
                "the spread of the samples' gradients is exact from batches of one sample only, "
                f"got up to {self.n_samples.max()}: survey the samples one by one, or, if "
                "the batches were drawn at random, ask for an unbiased estimate by estimate=True"
            )
        if m == 1:
            raise ValueError("an estimate of the gradients' spread needs two batches, got one")
        return self.between_batch_variance * (n_samples - 1) / (m - 1)

    def gradient_noise_scale(self, *, estimate: bool = False) -> float:
        """Return tr Σ / ‖∇F(w)‖²: so many independent draws have as much noise as gradient.

        Args:
            estimate: as for `gradient_variance`; unbiased then, too, ∇F being known exactly.

        Returns:
            The noise scale, a number of samples; inf where the full gradient is zero, and nan if
            all gradients are.

        Raises:
            ValueError: as `gradient_variance`.
        """
        variance = self.gradient_variance(estimate=estimate)
        return quotient(variance, self.full_gradient_norm * self.full_gradient_norm)

    def gradient_diversity(self, *, estimate: bool = False) -> float:
        """Return Σ‖g_i‖² / ‖Σ g_i‖² over the samples' gradients: 1/N if they are all the same.

        The noise scale is N times the diversity, minus 1.

        Args:
            estimate: as for `gradient_variance`.

        Returns:
            The diversity, a pure number; inf where the full gradient is zero, and nan if all
            gradients are.

        Raises:
            ValueError: as `gradient_variance`.
        """
        noise_scale = self.gradient_noise_scale(estimate=estimate)
        return (noise_scale + 1) / float(self.n_samples.sum())

    def numbers(self) -> dict[str, float]:
        """Return what `recorder.evaluate` keeps of a survey beside an epoch.

        Returns:
            `empirical_risk`, `full_gradient_norm` and `mean_batch_gradient_norm`; and
            `gradient_noise_scale` where that is exact: where the batches hold one sample each, all
            of the same weight.
        """
        names = ("empirical_risk", "full_gradient_norm", "mean_batch_gradient_norm")
        numbers: dict[str, float] = {name: getattr(self, name) for name in names}
        with contextlib.suppress(ValueError):  # where it could only be estimated
            numbers["gradient_noise_scale"] = self.gradient_noise_scale()
        return numbers

    @property
    def _n_samples_of_equal_weight(self) -> float:
        with np.errstate(all="ignore"):
            weights = self.denominator / self.n_samples
        if not np.allclose(weights, weights[0], rtol=1e-12, atol=0):
            raise ValueError(
                "the samples must all weigh the same in the empirical risk for their gradients' "
                "spread to be defined, got batches whose denominator is between "
                f"{weights.min():g} and {weights.max():g} times their number of samples: "
                "leave out class weights and ignored targets"
            )
        return float(self.n_samples.sum())

    def _mean_over_samples(self, values: NDArray[np.float64]) -> float:
        used = self.denominator > 0
        with np.errstate(all="ignore"):
            return float(self.denominator[used] @ values[used] / self.denominator.sum())


def check_survey(name: str, value: object) -> None:
    """Raise unless a value is a Survey.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Survey):
        raise TypeError(f"{name} must be a Survey, got {kind_of(value)}")
