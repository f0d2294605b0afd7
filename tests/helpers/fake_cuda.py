"""A GPU that is not there: CUDA tensors with shape, dtype and device but no values, by torch's FakeTensorMode.

An operation whose tensors are on two devices, or of two dtypes that it does not take together, raises as on a GPU. What
torch cannot do so without a driver is replaced here, and nowhere else:

- `backward` gives each parameter that the result depends on a gradient of its shape; no kernel of it is looked for;
- a value that is read (`item`, `float`, `tolist`) is 1, and `numpy()` of a tensor that was moved to the CPU is zeros;
- `module.to` replaces parameters and buffers by fake ones; files of weights are read as always;
- `autocast` and GradScaler are told that there is a GPU, of compute capability 8.0.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily


@contextmanager
def fake_cuda():
    """Let ``cuda`` be a device of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", _backward)
        patch.setattr(torch.Tensor, "numpy", _numpy)
        patch.setattr(torch.nn.Module, "to", _to)
        patch.setattr(safetensors.torch, "load_file", _reading(safetensors.torch.load_file))
        patch.setattr(DiffusionPipeline, "from_pretrained", classmethod(_reading(_from_pretrained)))
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
        with _Mode(allow_non_fake_inputs=True):
            yield


def require_gpu():
    """Skip the test where there is no real one."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU, and torch sees none")


class _Mode(FakeTensorMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        return super().__torch_dispatch__(func, types, args, kwargs)


def _backward(tensor):
    """Follow the graph to its parameters."""
    nodes, seen = [tensor.grad_fn], set()
    while nodes:
        if (node := nodes.pop()) is not None and node not in seen:
            seen.add(node)
            nodes += [function for function, _ in node.next_functions]
            if hasattr(node, "variable"):
                node.variable.grad = torch.empty_like(node.variable)


def _reading(function):
    def read(*args, **kwargs):
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return read


_from_pretrained = DiffusionPipeline.from_pretrained.__func__
_real_numpy = torch.Tensor.numpy


def _numpy(tensor, *, force=False):
    if not isinstance(tensor, FakeTensor):
        return _real_numpy(tensor, force=force)
    if tensor.device.type != "cpu":
        raise TypeError("can't convert cuda device type tensor to numpy")
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))  # NumPy has no bfloat16 either


def _to(module, *args, **kwargs):
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    table[name] = _moved(tensor, device, dtype, memory_format)
    return module


def _moved(tensor, device, dtype, memory_format):
    dtype = dtype if dtype and tensor.is_floating_point() else tensor.dtype
    device = device or tensor.device
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)
    if memory_format and tensor.dim() == 4:
        fake = fake.contiguous(memory_format=memory_format)
    return torch.nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else fake
