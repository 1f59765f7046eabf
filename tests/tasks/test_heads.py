import pytest
import torch

from tl_lightning.errors import UserError
from tl_lightning.tasks.heads import HeadOptions, build_head


@pytest.mark.parametrize(("kind", "parameters"), [("linear", 8 * 3 + 3), ("mlp", 8 * 5 + 5 + 5 * 3 + 3)])
def test_heads_have_the_width_asked_for(kind, parameters):
    head = build_head(HeadOptions(kind, 5, 0.5), 8, 3)
    assert head(torch.zeros(2, 8)).shape == (2, 3)
    assert sum(parameter.numel() for parameter in head.parameters()) == parameters


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dropout_acts_in_training_only(kind):
    head, features = build_head(HeadOptions(kind, 64, 0.5), 64, 3), torch.randn(4, 64)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize(("hidden", "dropout"), [(0, 0.0), (4, 1.0), (4, -0.1)])
def test_impossible_heads_are_refused(hidden, dropout):
    with pytest.raises(UserError, match=r"model\.head_"):
        build_head(HeadOptions("mlp", hidden, dropout), 8, 3)
