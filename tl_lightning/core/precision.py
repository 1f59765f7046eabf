"""The arithmetic that this machine does fast, and that it can do at all."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tl_lightning.core.console import console


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


def precision_problem(precision: str, accelerator: str = "auto") -> str | None:
    """Says why this machine cannot compute in a precision, where Lightning would take another, emulate it, or fail.

    Args:
        precision: One of Lightning's, such as ``16-mixed``.
        accelerator: One of Lightning's; ``auto`` takes a GPU where there is one.

    Returns:
        Such as ``needs a GPU, and this is a CPU``; `None` where it can.
    """
    has_gpu, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not (has_gpu or has_mps)):
        return "needs a GPU, and this is a CPU" if precision.startswith("16") else None
    if has_gpu:
        lacks = precision.startswith("bf16") and not torch.cuda.is_bf16_supported(including_emulation=False)
        return "needs bfloat16, which this GPU lacks" if lacks else None
    return "needs float64, which this GPU lacks" if has_mps and precision.startswith("64") else None


def possible_precision(precision: str, accelerator: str = "auto") -> str:
    """The precision that a run was trained in, to evaluate it in; ``32-true``, which holds both, where that cannot be.

    Args:
        precision: One of Lightning's; another one is said on the console.
        accelerator: See `precision_problem`.
    """
    reason = precision_problem(precision, accelerator)
    if reason is None:
        return precision
    console.print(f"note       precision {precision} {reason}; computing in 32-true", style="yellow")
    return "32-true"


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
