"""A finite sum of losses, and one whose every answer is known in closed form."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sgd_analysis._validation import mean_criterion, samples, weight_vectors

Criterion: TypeAlias = nn.Module | Callable[[Tensor, Tensor], Tensor]
_Samples = TypeVar("_Samples", Tensor, NDArray[np.float32])


@dataclass(frozen=True, eq=False)
class FiniteSum:
    r"""The mean over samples of `criterion(model(x), y)`: what a training loop minimises.

    .. math:: F(w) = \frac1N \sum_{i=1}^{N} \ell\bigl(\text{model}_w(x_i), y_i\bigr)

    The model's present parameters are the starting point. Nothing here changes them: whoever
    trains works on a copy.

    Args:
        model: any module with at least one trainable parameter.
        criterion: a callable (predictions, targets) -> scalar tensor, the **mean** over the
            samples it is given, for instance `torch.nn.MSELoss()`.
        inputs: (n_samples, ...) tensor or array.
        targets: (n_samples, ...) tensor or array.

    Raises:
        TypeError: if model is not a module, or criterion is not callable.
        ValueError: if there is no sample, if inputs and targets differ in length, if one of them
            holds a value that is not finite, if the criterion does not take the plain mean, or if
            the model has nothing to train.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> FiniteSum(model, torch.nn.MSELoss(), torch.ones(7, 4), torch.ones(7, 1)).n_samples
        7
    """

    model: nn.Module
    criterion: Criterion
    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(self.model).__name__}")
        mean_criterion(self.criterion)
        # A frozen dataclass converts its fields through object.__setattr__.
        object.__setattr__(self, "inputs", samples("inputs", self.inputs))
        object.__setattr__(self, "targets", samples("targets", self.targets))
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                "inputs and targets must hold the same number of samples, got "
                f"{len(self.inputs)} and {len(self.targets)}"
            )
        if self.n_parameters == 0:
            raise ValueError(
                "model has no parameter with requires_grad=True: there is nothing to train"
            )

    @property
    def n_samples(self) -> int:
        """The number of samples N."""
        return len(self.inputs)

    @property
    def n_parameters(self) -> int:
        """The number P of trainable weights, all parameter tensors together."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def start(self) -> NDArray[np.floating]:
        """(n_parameters,) the model's present trainable weights, as one vector."""
        trainable = [p.detach().flatten() for p in self.model.parameters() if p.requires_grad]
        return np.asarray(torch.cat(trainable).numpy())


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
            which model(inputs) = Φ w; by default `features @ w`, from w = 0.
        true_weights: (d,) the weights that made the targets, where they are known.

    Raises:
        ValueError: as `FiniteSum`, and if features is not a matrix, targets not a vector, or
            true_weights not of shape (d,).

    Example:
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
        matrix = samples("features", features)
        vector = samples("targets", targets)
        if matrix.ndim != 2 or matrix.shape[1] == 0:
            raise ValueError(
                "features must be a matrix of shape (n_samples, d) with d >= 1, got shape "
                f"{tuple(matrix.shape)}"
            )
        if vector.ndim != 1:
            raise ValueError(
                f"targets must be a vector of shape (n_samples,), got shape {tuple(vector.shape)}"
            )
        if not (matrix.is_floating_point() and vector.is_floating_point()):
            matrix, vector = (t.to(torch.get_default_dtype()) for t in (matrix, vector))
        super().__init__(
            model=_LinearInFeatures(matrix.shape[1], matrix.dtype) if model is None else model,
            criterion=nn.MSELoss(),
            inputs=matrix if inputs is None else samples("inputs", inputs),
            targets=vector,
        )
        if len(matrix) != self.n_samples or self.n_parameters != matrix.shape[1]:
            raise ValueError(
                f"features of shape {tuple(matrix.shape)} do not match {self.n_samples} inputs "
                f"and a model of {self.n_parameters} weights"
            )
        set_field = object.__setattr__
        set_field(self, "features", matrix.double().numpy())
        set_field(self, "true_weights", None)
        if true_weights is not None:
            truth = weight_vectors("true_weights", true_weights, matrix.shape[1])
            set_field(self, "true_weights", truth)

    features: NDArray[np.float64]
    """(n_samples, d) the matrix Φ in float64."""

    true_weights: NDArray[np.float64] | None
    """(d,) the weights that made the targets, or None where they are not known."""

    @cached_property
    def hessian(self) -> NDArray[np.float64]:
        """(d, d) the Hessian H of the risk, the same at every w."""
        return np.asarray(2 / self.n_samples * self.features.T @ self.features)

    def batch_hessians(self, batches: Iterable[ArrayLike]) -> NDArray[np.float64]:
        """Return the Hessian of each batch's own mean loss.

        Args:
            batches: index arrays, one a batch; they need not have the same length.

        Returns:
            (n_batches, d, d) array; its mean weighted by batch sizes is `hessian` when the
            batches are a partition of the samples.

        Raises:
            ValueError: if a batch is empty or names a sample that does not exist.
        """
        hessians = []
        for position, batch in enumerate(batches):
            index = np.asarray(batch)
            if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
                raise ValueError(
                    f"batch {position} must be a non-empty vector of sample indices, got {batch!r}"
                )
            if index.min() < 0 or index.max() >= self.n_samples:
                raise ValueError(
                    f"batch {position} must hold indices between 0 and {self.n_samples - 1}, got "
                    f"values between {index.min()} and {index.max()}"
                )
            rows = self.features[index]
            hessians.append(2 / len(rows) * rows.T @ rows)
        return np.array(hessians).reshape(-1, self.n_parameters, self.n_parameters)

    @cached_property
    def eigenvalues(self) -> NDArray[np.float64]:
        """(d,) the eigenvalues of the Hessian, ascending; exactly 0 where they are rounding."""
        return self._spectrum[0]

    @cached_property
    def eigenvectors(self) -> NDArray[np.float64]:
        """(d, d) the matching unit eigenvectors as columns, largest component positive."""
        return self._spectrum[1]

    @cached_property
    def minimiser(self) -> NDArray[np.float64]:
        """(d,) the weights of least risk; of least norm where there are several."""
        return self._spectrum[2]

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
        """Two over the largest eigenvalue, the step size above which gradient descent diverges."""
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
            return np.asarray(self.least_risk + (0.5 * self.eigenvalues * coordinates**2).sum(-1))

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
    def _float64_targets(self) -> NDArray[np.float64]:
        return np.asarray(self.targets.double().numpy())

    @cached_property
    def _spectrum(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        n_samples, d = self.features.shape
        # Rows of zeros change neither the spectrum nor the minimiser; with fewer samples than
        # weights they give the reduced decomposition all d right singular vectors.
        padding = max(d - n_samples, 0)
        matrix = np.pad(self.features, ((0, padding), (0, 0)))
        targets = np.pad(self._float64_targets, (0, padding))
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
        tolerance = singular[0] * max(n_samples, d) * np.finfo(np.float64).eps
        kept = singular > tolerance
        projections = np.divide(left.T @ targets, singular, out=np.zeros(d), where=kept)
        eigenvalues = np.where(kept, 2 / n_samples * singular**2, 0.0)[::-1]
        largest = np.argmax(np.abs(right), axis=1)
        signs = np.where(right[np.arange(d), largest] < 0, -1.0, 1.0)
        return eigenvalues, (signs[:, None] * right)[::-1].T, projections @ right


def quadratic_fit() -> LeastSquares:
    """Return the source notebook's problem: a parabola through 2000 points without noise.

    The model is f(x) = m₁x² + m₂x + m₃ with w = (m₁, m₂, m₃), starting from w = 0; the inputs are
    the float32 values of `numpy.arange(-10, 10, 0.01, dtype="f")`, the true weights
    (0.3, −1.7, 2.5), and the targets f(x) in float32.

    Returns:
        A `LeastSquares` with `inputs` (2000,), `features` (2000, 3) = (x², x, 1) and
        `true_weights` (3,).

    Example:
        >>> problem = quadratic_fit()
        >>> problem.n_samples, float(problem.targets[0])
        (2000, 49.5)
    """
    inputs = np.arange(-10, 10, 0.01, dtype=np.float32)
    truth = (0.3, -1.7, 2.5)
    exact = inputs.astype(np.float64)
    return LeastSquares(
        features=np.stack([exact**2, exact, np.ones_like(exact)], axis=1),
        targets=_parabola(truth, inputs),
        inputs=inputs,
        model=_Parabola(),
        true_weights=truth,
    )


class _Parabola(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return _parabola(self.weights, inputs)


def _parabola(w: Any, x: _Samples) -> _Samples:
    # The order of these products is the one that gives the targets the source notebook prints,
    # digit for digit; w[0] * x**2 differs in the last bit of some of them.
    value: _Samples = w[0] * x * x + w[1] * x + w[2]
    return value


class _LinearInFeatures(nn.Module):
    def __init__(self, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_features, dtype=dtype))

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weights
