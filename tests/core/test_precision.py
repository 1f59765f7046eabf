import pytest
import torch
from torch import nn

from tl_lightning.core.precision import fast_precision, train_depthwise_in_float32


def net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    train_depthwise_in_float32(module)
    return module


def types(module, x):
    """The type of each layer's output under autocast."""
    seen = []
    handles = [layer.register_forward_hook(lambda layer, args, out: seen.append(out.dtype)) for layer in module]
    with torch.autocast("cpu", torch.bfloat16):
        module(x)
        assert torch.is_autocast_enabled("cpu")
    for handle in handles:
        handle.remove()
    return seen


def test_a_depthwise_convolution_that_needs_a_gradient_runs_in_float32_and_nothing_else_does():
    assert types(net(), torch.randn(2, 3, 8, 8)) == [torch.bfloat16, torch.float32, torch.bfloat16]


def test_without_a_gradient_everything_runs_in_bfloat16():
    frozen = net().requires_grad_(False)
    assert types(frozen, torch.randn(2, 3, 8, 8)) == [torch.bfloat16] * 3
    with torch.inference_mode():
        assert types(net(), torch.randn(2, 3, 8, 8)) == [torch.bfloat16] * 3


def test_autocast_is_on_again_after_an_error():
    module = net()
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            module[1](torch.randn(2, 5, 8, 8, requires_grad=True))
        assert torch.is_autocast_enabled("cpu")


def test_outside_autocast_nothing_changes():
    module, x = net(), torch.randn(2, 3, 8, 8)
    expected = x
    for layer in module:
        expected = nn.functional.conv2d(expected, layer.weight, layer.bias, groups=layer.groups)
    assert torch.equal(module(x), expected)


def test_the_choice_follows_the_processor(monkeypatch):
    from pathlib import Path

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, expected in (("fpu avx512_bf16 sse", "bf16-mixed"), ("amx_bf16", "bf16-mixed"), ("avx2", "32-true")):
        monkeypatch.setattr(Path, "read_text", lambda self, encoding, flags=flags: f"flags : {flags}\n")
        assert fast_precision() == expected
