"""The arithmetic that this machine does fast."""

from pathlib import Path

import torch
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR


def fast_precision() -> _PRECISION_INPUT_STR:
    """Picks ``bf16-mixed`` where the hardware multiplies bfloat16 natively, else ``32-true``.

    Elsewhere bfloat16 is emulated and slower than float32. The choice depends on the hardware alone, never on a
    measurement, so that the same machine always trains the same way.
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return "32-true"
    return "bf16-mixed" if {"avx512_bf16", "amx_bf16"}.intersection(flags) else "32-true"
