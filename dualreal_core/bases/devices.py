"""The device that computes: which one is there, in what precision it is used, and how much memory was needed."""

from __future__ import annotations

import gc
import sys

import torch

from ..errors import InputError, first_line

GIB = 2**30


def default_device() -> str:
    """The accelerator, where there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


def default_dtype(device: str) -> torch.dtype:
    """Of a large model's weights: bfloat16 on an accelerator, float32 on the CPU."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def check_device(device: str) -> None:
    """Raises InputError where torch has no such device or cannot compute on it."""
    try:
        (torch.ones(1, device=device) + 1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"The device {device!r} cannot be used ({first_line(error)}): use --device cpu.") from error


def free_memory(device: str) -> None:
    """Gives what nothing refers to any more back to the device and the system."""
    gc.collect()
    empty_cache = getattr(_backend(device), "empty_cache", None)
    if empty_cache is not None:
        empty_cache()


def watch_memory(device: str) -> None:
    """Begins to measure the device's peak memory anew."""
    reset = getattr(_backend(device), "reset_peak_memory_stats", None)
    if reset is not None:
        reset(device)


def peak_memory(device: str) -> list[str]:
    """Lines on the most memory that was in use: on the device since `watch_memory`, in main memory since the process began."""
    lines, backend = [], _backend(device)
    if hasattr(backend, "max_memory_allocated"):
        allocated, reserved = backend.max_memory_allocated(device) / GIB, backend.max_memory_reserved(device) / GIB
        lines.append(f"peak memory on {device}: {allocated:.2f} GiB allocated, {reserved:.2f} GiB reserved")
    resident = peak_resident_bytes()
    if resident is not None:
        lines.append(f"peak main memory of this process: {resident / GIB:.2f} GiB resident")
    return lines


def peak_resident_bytes() -> int | None:
    """The most main memory that this process ever held; None on systems that do not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _backend(device: str) -> object | None:
    """torch's module for a kind of accelerator, as `torch.cuda`."""
    kind = torch.device(device).type
    return None if kind == "cpu" else getattr(torch, kind, None)
