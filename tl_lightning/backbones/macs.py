"""What a forward pass costs, counted and not timed."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tl_lightning.preprocess import Preprocess


def count_macs(module: nn.Module, preprocess: Preprocess) -> int:
    """Multiplications with an addition that one sample takes; nothing is computed, only shapes are followed.

    Args:
        module: From inputs to features.
        preprocess: Says what its inputs are.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    weightless = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    dtype = next(module.parameters()).dtype
    inputs = [each.to(dtype) if each.is_floating_point() else each for each in preprocess.example(1, "meta")]
    modes = {each: each.training for each in module.modules()}
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(module, weightless, tuple(inputs))
    for each, mode in modes.items():
        each.training = mode
    return int(counter.get_total_flops()) // 2
