"""A device that is not there, and that counts what waits for it."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class OnDevice(torch.Tensor):
    """A tensor that says it is on another device, the one that `Device` stands in for."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, there):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, there.shape, strides=there.stride(), dtype=there.dtype, device="meta"
        )
        tensor.there = there
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        raise RuntimeError("this device is there only within `with Device()`")


VALUES_DECIDE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Device(TorchDispatchMode):
    """A device that keeps count of what waits for it: its name is meta, it computes on the CPU.

    Every operation comes here, those in hooks and in backward passes as well. What a program has
    to wait for is a number, or a shape, that depends on values (`item`, `bool`, `nonzero`), and
    a copy to or from main memory. As on any device, no operation takes tensors from both sides.
    """

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        given = any(isinstance(x, OnDevice) for x in tensors)
        returned = given
        if kwargs.get("device") is not None:
            returned = torch.device(kwargs["device"]).type == "meta"
            kwargs["device"] = "cpu"
        copies = tensors and given != returned
        if given and any(x.ndim and not isinstance(x, OnDevice) for x in tensors):
            if operator is not torch.ops.aten.copy_.default:
                raise RuntimeError(f"{operator} was given tensors on two devices")
            copies = True
        by_mask = any(x.dtype == torch.bool for x in tensors[1:])
        waits = given and VALUES_DECIDE.intersection(operator.tags)
        if copies or (waits and (operator is not torch.ops.aten.index.Tensor or by_mask)):
            self.waits.append(str(operator))
        args, kwargs = tree_map_only(OnDevice, lambda x: x.there, (args, kwargs))
        result = operator(*args, **kwargs)
        if operator._schema.is_mutable:
            return tensors[0] if isinstance(result, torch.Tensor) else result
        return tree_map_only(torch.Tensor, OnDevice, result) if returned else result
