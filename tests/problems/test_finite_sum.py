import pytest
import torch

from sgd_analysis import FiniteSum


def test_what_is_no_finite_sum_is_refused():
    model, criterion, data = torch.nn.Linear(1, 1), torch.nn.MSELoss(), torch.ones(3, 1)
    frozen = torch.nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        FiniteSum(lambda x: x, criterion, data, data)
    with pytest.raises(TypeError, match="criterion must be callable"):
        FiniteSum(model, "mse", data, data)
    with pytest.raises(ValueError, match="requires_grad=True"):
        FiniteSum(frozen, criterion, data, data)
    with pytest.raises(ValueError, match="reduction='sum'"):
        FiniteSum(model, torch.nn.MSELoss(reduction="sum"), data, data)
    with pytest.raises(ValueError, match="class weights"):
        FiniteSum(model, torch.nn.CrossEntropyLoss(weight=torch.ones(2)), data, data)
    with pytest.raises(TypeError, match=r"inputs must be real, got torch\.complex64"):
        FiniteSum(model, criterion, data.to(torch.complex64), data)
    with pytest.raises(ValueError, match="inputs must hold at least one sample"):
        FiniteSum(model, criterion, torch.ones(0, 1), data)
