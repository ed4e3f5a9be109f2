"""A second device that the CPU computes: it finds what would stop on a GPU, on machines without one.

Its results equal the CPU's but for the order of sums in attention. As a GPU does, it refuses operations whose tensors lie
on two devices, and random numbers from the other device's generator. Kernels, streams, memory in use and precision of a
GPU it tells nothing about. It goes by the name of a kind of accelerator that ComfyUI knows.

    python tests/core/other_device.py train --device npu ...      # `dualreal`, with the device there
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "npu"
CPU = torch.device("cpu")
FACTORIES = (
    *("empty.memory_format", "empty_strided", "full", "zeros", "ones", "eye", "eye.m", "scalar_tensor"),
    *("arange", "arange.start", "arange.start_step", "linspace", "rand", "randn", "randperm", "randint", "randint.low"),
)
LOWERED = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d", "scaled_dot_product_attention")
"""What autocast computes in the lower precision, as on a GPU."""
COPIES = ("aten::copy_", "aten::_to_copy")
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_libraries: list[torch.library.Library] = []


class OtherTensor(torch.Tensor):
    """A tensor of the device; `inner` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OtherTensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.size(), device=torch.device(NAME, 0), **layout)
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"{self.inner!r} {NAME}"

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.inner.__reduce_ex__(protocol)  # a file read with map_location="cpu"

    def numpy(self, *, force: bool = False) -> object:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


class Backend(_DummyBackendModule):
    """What PyTorch and ComfyUI ask a kind of accelerator; all its memory is always free."""

    def __init__(self, num_bytes: int = 2**33) -> None:
        self._num_bytes = num_bytes

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_device_name(self, device: object = None) -> str:
        return "computed by the CPU"

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return self._num_bytes, self._num_bytes

    def memory_stats(self, device: object = None) -> dict[str, int]:
        return {f"{kind}_bytes.all.current": 0 for kind in ("active", "reserved")}

    def empty_cache(self) -> None:
        pass


def register(backend: Backend | None = None) -> None:
    """Makes the device known to PyTorch, for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=backend or Backend())
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    for name in FACTORIES:
        packet, _, overload = name.partition(".")
        library.impl(name, _factory(getattr(getattr(torch.ops.aten, packet), overload or "default")), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    library.impl("_local_scalar_dense", lambda tensor: _inner(tensor).item(), "PrivateUse1")
    for name in LOWERED:
        library.impl(name, _lowered(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")
    others = torch.library.Library("_", "IMPL")
    _libraries.append(others)
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


def _factory(operation: torch._ops.OpOverload) -> Callable[..., OtherTensor]:
    def made(*args: object, **kwargs: object) -> OtherTensor:
        _check_generator(operation.name(), kwargs)
        return OtherTensor(operation(*args, **{**kwargs, "device": CPU, "pin_memory": False}))

    return made


def _lowered(operation: torch._ops.OpOverload) -> Callable[..., torch.Tensor]:
    def run(*args: object, **kwargs: object) -> torch.Tensor:
        def lower(leaf: object) -> object:
            return leaf.to(torch.get_autocast_dtype(NAME)) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

        with torch.autocast(NAME, enabled=False):
            return operation(*tree_map(lower, args), **tree_map(lower, kwargs))

    return run


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _inner(target).copy_(_inner(source))
    return target


def _run(operation: torch._ops.OpOverload, args: tuple, kwargs: dict) -> object:
    name = operation.name().split(".")[0]
    if name == "aten::to":  # made of others; it arrives whole in inference mode only
        return operation.decompose(*args, **kwargs)
    if name == "aten::_has_compatible_shallow_copy_type":  # for weights in place; `inner` would stay behind
        return False
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    _check_devices(name, args, tensors)
    _check_generator(name, kwargs)
    leaves_device = torch.device(kwargs.get("device") or NAME).type == "cpu"
    result = operation(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if operation._schema.is_mutable:
        own = {id(_inner(tensor)): tensor for tensor in tensors}
        result = tree_map(lambda leaf: own.get(id(leaf), leaf), result)
        for tensor in tensors:
            if tensor.shape != _inner(tensor).shape:
                raise NotImplementedError(f"{name} changed the shape of its output in place, which this device cannot show.")
    return result if leaves_device else tree_map(_outer, result)


def _inner(leaf: object) -> object:
    if isinstance(leaf, torch.device) and leaf.type == NAME:
        return CPU
    return leaf.inner if isinstance(leaf, OtherTensor) else leaf


def _outer(leaf: object) -> object:
    is_bare = isinstance(leaf, torch.Tensor) and not isinstance(leaf, OtherTensor)
    return OtherTensor(leaf) if is_bare else leaf


def _check_devices(name: str, args: tuple, tensors: list[torch.Tensor]) -> None:
    """As on a GPU: single numbers of the CPU may join in, and index lists of the CPU where they index."""
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, OtherTensor)]
    is_allowed = isinstance(args[0], OtherTensor) if name in INDEXING else all(tensor.ndim == 0 for tensor in on_cpu)
    if name not in COPIES and not is_allowed:
        places = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {places}")


def _check_generator(name: str, kwargs: dict) -> None:
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a {NAME!r} device type for generator but found 'cpu' ({name})")


def run(arguments: list[str]) -> tuple[int, str]:
    """`dualreal` with these arguments: its exit status, and what it printed."""
    from dualreal_core.cli import main

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        return main(arguments), printed.getvalue()


if __name__ == "__main__":
    from dualreal_core.cli import main

    register()
    sys.exit(main())
