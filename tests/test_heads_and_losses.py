import pytest
import torch
from torch.nn import functional

from tl_lightning.errors import UserError
from tl_lightning.heads import build_head
from tl_lightning.losses import balanced_class_weights


@pytest.mark.parametrize(("kind", "parameters"), [("linear", 8 * 3 + 3), ("mlp", 8 * 5 + 5 + 5 * 3 + 3)])
def test_heads_have_the_width_asked_for(kind, parameters):
    head = build_head(kind, 8, 3, hidden=5, dropout=0.5)
    assert head(torch.zeros(2, 8)).shape == (2, 3)
    assert sum(parameter.numel() for parameter in head.parameters()) == parameters


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dropout_acts_in_training_only(kind):
    head, features = build_head(kind, 64, 3, hidden=64, dropout=0.5), torch.randn(4, 64)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize(("hidden", "dropout"), [(0, 0.0), (4, 1.0), (4, -0.1)])
def test_impossible_heads_are_refused(hidden, dropout):
    with pytest.raises(UserError, match=r"model\.head_"):
        build_head("mlp", 8, 3, hidden=hidden, dropout=dropout)


def test_balanced_weights_give_every_class_the_same_say():
    counts = [30, 10, 20]
    weights = balanced_class_weights(counts)
    assert torch.allclose(weights, torch.tensor([60 / 90, 60 / 30, 60 / 60]))
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    logits = torch.randn(60, 3)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    by_class = torch.stack([losses[labels == k].mean() for k in range(3)]).mean()
    assert torch.isclose(functional.cross_entropy(logits, labels, weight=weights), by_class)
