"""Progress bars."""

import os
import subprocess
import sys

import pytest

from sgd_analysis import (
    quadratic_fit,
    train,
)


class TestProgress:
    @pytest.mark.parametrize("variable", [None, "CI", "TQDM_DISABLE"])
    def test_the_bar_shows_the_running_loss_unless_it_is_switched_off(self, variable):
        # In a process of its own, because tqdm reads its switch when it is imported.
        code = (
            "from sgd_analysis import quadratic_fit, train\n"
            f"train(quadratic_fit(), step_size={1e-4}, max_epochs=2, progress=True)"
        )
        environment = {k: v for k, v in os.environ.items() if k not in {"CI", "TQDM_DISABLE"}}
        environment |= {variable: "1"} if variable else {}
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("running loss" in result.stderr) == (variable is None)
        assert result.stdout == ""

    def test_it_is_silent_by_default(self, capsys):
        train(quadratic_fit(), step_size=1e-4, max_epochs=2)
        assert capsys.readouterr() == ("", "")
