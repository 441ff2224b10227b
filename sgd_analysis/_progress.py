"""Progress bars of runs that take a while."""

from __future__ import annotations

import os

from tqdm import tqdm


def progress_bar(progress: bool, total: int) -> tqdm:
    """Return a bar that counts epochs, or one that shows nothing.

    Args:
        progress: whether to show it; never when the variable CI is set. TQDM_DISABLE, tqdm's own
            switch, is respected, too.
        total: the number of epochs.

    Returns:
        A bar, to be used in a `with` statement.
    """
    if progress and not os.environ.get("CI"):
        return tqdm(total=total, unit="epoch")
    return tqdm(disable=True)
