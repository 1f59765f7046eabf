"""The arithmetic that this machine does fast."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn


def fast_precision() -> Literal["bf16-mixed", "32-true"]:
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


def train_depthwise_in_float32(module: nn.Module) -> None:
    """Keeps depthwise convolutions that need a gradient out of a CPU's bfloat16 autocast.

    Their bfloat16 backward pass is that slow on CPUs: of a training step of EfficientNet-Lite0 it took four fifths, and
    with this the whole step runs 1.7 times faster, 2.2 times with only the two top stages trainable (two AVX-512 cores,
    128 px). Without a gradient bfloat16 is the faster one, and stays.

    Args:
        module: The model, whose convolutions get hooks, which act under CPU autocast only.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels > 1:
            conv.register_forward_pre_hook(_leave_autocast)
            conv.register_forward_hook(_enter_autocast, always_call=True)


def _leave_autocast(conv: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (x,) = inputs
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
    leaves = needs_gradient and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    conv.left_autocast = leaves  # type: ignore[assignment]  # torch's stubs know no plain attributes of a module
    if not leaves:
        return inputs
    torch.set_autocast_enabled("cpu", False)
    return (x.float(),)


def _enter_autocast(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    if conv.left_autocast:
        torch.set_autocast_enabled("cpu", True)
