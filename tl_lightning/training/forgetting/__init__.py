"""Forgetting: what fine-tuning does to the pretrained weights and features, stage by stage and phase by phase."""

from tl_lightning.training.forgetting.meter import Forgetting, ForgettingMeter

__all__ = ["Forgetting", "ForgettingMeter"]
