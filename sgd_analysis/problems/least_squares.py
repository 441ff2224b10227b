"""A finite sum that is quadratic in its weights, so that everything about it is known."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sgd_analysis._arrays import read_only
from sgd_analysis._validation import finite_vector, samples, weight_vectors
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.index_batches import index_batches
from sgd_analysis.problems.linear_model import LinearInFeatures, check_is_linear
from sgd_analysis.problems.spectrum import Spectrum, spectrum
from sgd_analysis.surveying.survey import Survey
from sgd_analysis.surveying.tally import Tally


class LeastSquares(FiniteSum):
    r"""A finite sum that is quadratic in its weights, so that everything about it is known.

    .. math:: F(w) = \frac1N \lVert \Phi w - y \rVert^2, \qquad H = \frac2N \Phi^\top \Phi

    F is the risk and H its Hessian, the same at every w.

    The risk is the mean of squares, without a factor one half, as `torch.nn.MSELoss` has it.
    Training uses the dtype of the data; the analysis below is in float64 and comes from one
    singular value decomposition of Φ, which keeps small eigenvalues accurate.

    Args:
        features: (n_samples, d) the matrix Φ.
        targets: (n_samples,) the vector y.
        inputs: (n_samples, ...) what `model` is called with; the features unless given.
        model: a module with one parameter vector w (d,), starting where training starts, for
            which model(inputs) = Φ w (this is checked); by default `features @ w`, from w = 0.
        true_weights: (d,) the weights that made the targets, where they are known.

    Raises:
        ValueError: as `FiniteSum`, and if features is not a matrix, targets not a vector, or
            true_weights not of shape (d,), or if model(inputs) is not Φ w.

    Example:
        >>> from sgd_analysis import LeastSquares
        >>> line = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
        >>> line.minimiser.round(6)
        array([2., 1.])
    """

    def __init__(
        self,
        features: ArrayLike | Tensor,
        targets: ArrayLike | Tensor,
        *,
        inputs: ArrayLike | Tensor | None = None,
        model: nn.Module | None = None,
        true_weights: ArrayLike | None = None,
    ) -> None:
        matrix, vector = _matrix(features), _vector(targets)
        dtype = next(
            (t.dtype for t in (matrix, vector) if t.is_floating_point()), torch.get_default_dtype()
        )
        set_field = object.__setattr__  # the dataclass is frozen
        # Copies: what is derived from the data must not change when the caller's arrays do.
        set_field(self, "features", read_only(matrix.double().numpy().copy()))
        set_field(self, "_float64_targets", read_only(vector.double().numpy().copy()))
        matrix, vector = (t if t.is_floating_point() else t.to(dtype) for t in (matrix, vector))
        super().__init__(
            model=LinearInFeatures(matrix.shape[1], matrix.dtype) if model is None else model,
            criterion=nn.MSELoss(),
            inputs=matrix if inputs is None else samples("inputs", inputs),
            targets=vector,
        )
        if model is not None:
            check_is_linear(model, self.inputs, self.features)
        truth = None
        if true_weights is not None:
            truth = read_only(finite_vector("true_weights", true_weights, matrix.shape[1]))
        set_field(self, "true_weights", truth)

    features: NDArray[np.float64]
    """(n_samples, d) the matrix Φ in float64."""

    true_weights: NDArray[np.float64] | None
    """(d,) the weights that made the targets, or None where they are not known."""

    _float64_targets: NDArray[np.float64]

    @cached_property
    def hessian(self) -> NDArray[np.float64]:
        """(d, d) the Hessian H of the risk, the same at every w."""
        return read_only(2 / self.n_samples * self.features.T @ self.features)

    def batch_hessians(self, batches: Iterable[ArrayLike | Tensor]) -> NDArray[np.float64]:
        """Return the Hessian of each batch's own mean loss.

        Args:
            batches: index arrays, one a batch; they need not have the same length.

        Returns:
            (n_batches, d, d) array; its mean weighted by batch sizes is `hessian` when the
            batches are a partition of the samples.

        Raises:
            ValueError: if a batch is empty or names a sample that does not exist.
        """
        rows = [self.features[index] for index in index_batches(batches, self.n_samples)]
        hessians = [2 / len(some) * some.T @ some for some in rows]
        return np.array(hessians).reshape(-1, self.n_parameters, self.n_parameters)

    def survey(self, w: ArrayLike, batches: Iterable[ArrayLike | Tensor]) -> Survey:
        r"""Return the loss and the gradient of every batch at fixed weights, in closed form.

        .. math:: f_b(w) = \frac1B \lVert \Phi_b w - y_b \rVert^2, \qquad
            \nabla f_b(w) = \frac2B \Phi_b^\top (\Phi_b w - y_b)

        It is what `survey` finds for the model with these weights, in double precision.

        Args:
            w: (d,) the weights.
            batches: index arrays, one a batch; they need not have the same length.

        Returns:
            A `Survey`; its values are inf or nan where w is.

        Raises:
            ValueError: if w is not one vector of d weights, if there is no batch, or one is
                empty or names a sample that does not exist.

        Example:
            >>> from sgd_analysis import LeastSquares
            >>> line = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
            >>> line.survey([0.0, 0.0], [[0, 1], [2]]).loss
            array([ 5., 25.])
        """
        weights = weight_vectors("w", w, self.n_parameters)
        if weights.ndim != 1:
            raise ValueError(f"w must be one vector of weights, got shape {weights.shape}")
        indices = index_batches(batches, self.n_samples)
        if not indices:
            raise ValueError("batches must hold at least one batch, got none")
        sizes = np.array([len(index) for index in indices])
        index, starts = np.concatenate(indices), np.cumsum(sizes) - sizes
        with np.errstate(over="ignore", invalid="ignore"):
            residuals = self.features @ weights - self._float64_targets
            gradients = 2 * residuals[:, None] * self.features
            loss = np.add.reduceat(residuals[index] ** 2, starts) / sizes
            gradient = np.add.reduceat(gradients[index], starts) / sizes[:, None]
        tally = Tally(memory=gradient.nbytes)
        tally.add(loss, sizes.astype(np.float64), sizes, gradient)
        return tally.survey()

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """(d,) the eigenvalues of the Hessian, ascending; exactly 0 where they are rounding."""
        return self._spectrum.eigenvalues

    @property
    def eigenvectors(self) -> NDArray[np.float64]:
        """(d, d) the matching unit eigenvectors as columns, largest component positive."""
        return self._spectrum.eigenvectors

    @property
    def minimiser(self) -> NDArray[np.float64]:
        """(d,) the weights of least risk; of least norm where there are several."""
        return self._spectrum.minimiser

    @cached_property
    def least_risk(self) -> float:
        """The risk at the minimiser, F(ŵ); above zero when the targets carry noise."""
        residual = self.features @ self.minimiser - self._float64_targets
        return float(residual @ residual) / self.n_samples

    @cached_property
    def condition_number(self) -> float:
        """The largest over the smallest non-zero eigenvalue, κ; nan if all features are zero."""
        nonzero = self.eigenvalues[self.eigenvalues > 0]
        return float(nonzero[-1] / nonzero[0]) if nonzero.size else float("nan")

    @cached_property
    def largest_stable_step_size(self) -> float:
        """Two over the largest eigenvalue; below it gradient descent converges from every start.

        Above it, gradient descent diverges from almost every start.
        """
        largest = self.eigenvalues[-1]
        return float(2 / largest) if largest > 0 else float("inf")

    def empirical_risk(self, w: ArrayLike) -> NDArray[np.float64]:
        """Return the global loss F(w), all samples at fixed weights.

        Args:
            w: (..., d) one weight vector or many.

        Returns:
            (...) risks, in loss units; inf or nan where w is.

        Raises:
            ValueError: if the last axis of w does not hold d weights.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # weights of a diverged run
            coordinates = self._eigen_coordinates(w)
            # Not λ times a square: one of tiny features' coordinates would overflow.
            moved = np.sqrt(0.5 * self.eigenvalues) * coordinates
            return np.asarray(self.least_risk + (moved**2).sum(-1))

    def full_gradient(self, w: ArrayLike) -> NDArray[np.float64]:
        """Return the gradient ∇F(w), all samples at fixed weights.

        Args:
            w: (..., d) one weight vector or many.

        Returns:
            (..., d) gradients; inf or nan where w is.

        Raises:
            ValueError: if the last axis of w does not hold d weights.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self.eigenvalues * self._eigen_coordinates(w)
            return np.asarray(scaled @ self.eigenvectors.T)

    def _eigen_coordinates(self, w: ArrayLike) -> NDArray[np.float64]:
        weights = weight_vectors("w", w, self.n_parameters)
        return np.asarray((weights - self.minimiser) @ self.eigenvectors)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return spectrum(self.features, self._float64_targets)


def _matrix(features: ArrayLike | Tensor) -> Tensor:
    matrix = samples("features", features)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(
            "features must be a matrix of shape (n_samples, d) with d >= 1, got shape "
            f"{tuple(matrix.shape)}"
        )
    return matrix


def _vector(targets: ArrayLike | Tensor) -> Tensor:
    vector = samples("targets", targets)
    if vector.ndim != 1:
        raise ValueError(
            f"targets must be a vector of shape (n_samples,), got shape {tuple(vector.shape)}"
        )
    return vector
