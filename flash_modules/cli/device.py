"""Where and in which numbers a command computes, and what memory there is."""

import psutil
import torch

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU if there is one. Raises ValueError if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The device '{name}' cannot be used ({reason}): try --device auto.") from error


def free_memory(device: torch.device) -> int:
    """Bytes that this process has, or could still get, on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    process = psutil.Process()
    return int(psutil.virtual_memory().available + process.memory_info().rss)


def used_memory(device: torch.device) -> int:
    """Bytes that this process holds on the device; on CUDA the most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return int(psutil.Process().memory_info().rss)
