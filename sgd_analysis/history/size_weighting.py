"""By how much the losses of steps differ if their backward passes weigh by their sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import quiet

VISIBLE = 0.01  # of a loss: what two printed curves show, and rounding does not


@quiet
def median_change(loss: NDArray[np.float64], added: NDArray[np.float64]) -> float:
    """Return the (lower) median over steps of |added / loss|, where what is not known is nothing.

    One ragged step at an epoch's end does not move it, however ragged.
    """
    changes = np.sort(np.nan_to_num(np.abs(added / loss)))
    return float(changes[(len(changes) - 1) // 2]) if len(changes) else 0.0
