import pytest
import torch

from tl_lightning.backbones import build_backbone
from tl_lightning.backbones.timm_models import checkpoint_gradients
from tl_lightning.core.precision import train_depthwise_in_float32

NAME = "timm/test_efficientnet"


@pytest.fixture
def runs(monkeypatch):
    """One entry for every time that a convolution was run."""
    entries = []
    forward = torch.nn.Conv2d.forward

    def counted(self, x):
        entries.append(self)
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", counted)
    return entries


def gradients(module, autocast=False):
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        features = module(images)
    features.float().square().sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("frozen", [(), ("conv_stem", "bn1", "blocks.0", "blocks.1")])
def test_checkpointing_changes_no_gradient(frozen):
    module = build_backbone(NAME, "none").module.eval()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    plain = gradients(module)
    checkpoint_gradients(module, NAME)
    again = gradients(module)
    assert again.keys() == plain.keys()
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-6, atol=1e-6)


def test_checkpointing_changes_no_gradient_under_autocast():
    # The hooks of depthwise convolutions leave and enter autocast, also while activations are computed again.
    module = build_backbone(NAME, "none").module.eval()
    train_depthwise_in_float32(module)
    plain = gradients(module, autocast=True)
    checkpoint_gradients(module, NAME)
    with torch.autocast("cpu", torch.bfloat16):
        again = gradients(module, autocast=True)
        assert torch.is_autocast_enabled("cpu")
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-6, atol=1e-6)


def test_checkpointing_runs_layers_again_in_the_backward_pass(runs):
    module = build_backbone(NAME, "none").module.eval()
    blocks = {id(part) for part in module.blocks.modules()}
    runs.clear()  # building it asks for the shape of its features
    gradients(module)
    once = list(runs)
    checkpoint_gradients(module, NAME)
    runs.clear()
    gradients(module)
    assert len(runs) == len(once) + sum(id(conv) in blocks for conv in once)


def test_a_backbone_that_does_not_offer_checkpointing_is_named(line_of):
    module = build_backbone("timm/dla46_c", "none").module
    assert line_of(checkpoint_gradients, module, "timm/dla46_c") == (
        "model.gradient_checkpointing: timm/dla46_c does not offer it; leave it out, or choose another backbone"
    )
    assert "does not offer it" in line_of(checkpoint_gradients, torch.nn.Linear(1, 1), "timm/x")
