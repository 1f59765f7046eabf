"""What each preset does, epoch by epoch: which parameters train, at which rate, and what BatchNorm does.

A cell is ``trainable parameters @ learning rate at the epoch's first step BatchNorm``; ``-`` where nothing trains. The
base rates are 1e-4, 1e-3, 1e-2 and 1e-1 from the first stage to the top one, and 1 for the head. With 10 steps an
epoch, a warm-up over 10 % of the steps starts at 1 / (warm-up steps + 1) of the peak.
"""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_lightning.backbones import Stage
from tl_lightning.finetuning.freezing import freeze_all_but, set_training_modes, stage_rows
from tl_lightning.finetuning.groups import learning_rates, parameter_groups
from tl_lightning.finetuning.phases import PRESETS, parse_phases, plan
from tl_lightning.finetuning.schedules import build_schedule
from tl_lightning.finetuning.selection import select

STEPS = 10  # an epoch
NAMES = ("stem", "low", "middle", "top")
STAGES = tuple(
    Stage(
        name,
        (f"{name}.conv.weight", f"{name}.norm.weight", f"{name}.norm.bias"),
        (f"{name}.norm.running_mean", f"{name}.norm.running_var", f"{name}.norm.num_batches_tracked"),
    )
    for name in NAMES
)


def four_stages():
    """A convolution of 12 or 16 weights and a BatchNorm of 8 each."""
    torch.manual_seed(0)
    stages = [
        nn.ModuleDict({"conv": nn.Conv2d(3 if name == "stem" else 4, 4, 1, bias=False), "norm": nn.BatchNorm2d(4)})
        for name in NAMES
    ]
    return nn.ModuleDict(zip(NAMES, stages, strict=True))


def forward(backbone, head, images):
    for stage in backbone.values():
        images = stage["norm"](stage["conv"](images))
    return head(images.mean((2, 3)))


def moved(now, before):
    """The stages of which a parameter or a statistic is no longer what it was."""
    return {name.partition(".")[0] for name, tensor in now.items() if not torch.equal(tensor, before[name])}


def walk(preset, epochs):
    """Trains as a run does, and yields a line for each epoch."""
    backbone, head = four_stages(), nn.Linear(4, 2)
    base = {"lr": 1.0, "backbone_lr_scale": 0.1, "bottom_ratio": 1e-3, **PRESETS[preset].model}
    base.pop("weights", None)
    rates = learning_rates(STAGES, base.pop("lr"), **base)
    optimizer = torch.optim.AdamW(
        parameter_groups(backbone, {"head": head}, STAGES, learning_rates=rates, weight_decay=0.05)
    )
    generator = torch.Generator().manual_seed(0)
    for phase in plan(parse_phases(preset, max_epochs=epochs), STAGES):
        freeze_all_but(backbone, select(STAGES, phase.train))
        set_training_modes(backbone.train(), bn=phase.bn)
        scheduler = build_schedule(
            optimizer,
            phase.schedule,
            lr_scale=phase.lr_scale,
            warmup=phase.warmup,
            steps=phase.epochs * STEPS,
            epochs=phase.epochs,
            mode="max",
        ).scheduler
        for _ in range(phase.epochs):
            before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
            line = describe(backbone, head, phase, rates, optimizer)
            for _ in range(STEPS):
                optimizer.zero_grad()
                forward(backbone, head, torch.randn(8, 3, 2, 2, generator=generator)).square().mean().backward()
                optimizer.step()
                scheduler.step()
            trained = {row.name for row in rows(backbone, head, phase, rates) if row.trainable}
            assert moved(backbone.state_dict(), before) == trained - {"head"}
            yield line


def rows(backbone, head, phase, rates):
    return stage_rows(backbone, {"head": head}, STAGES, rates=rates, bn=phase.bn)


def describe(backbone, head, phase, rates, optimizer):
    used = {group["name"]: group["lr"] for group in optimizer.param_groups}
    cells = []
    for row in rows(backbone, head, phase, rates):
        if row.name != "head":
            modes = {m.training for m in backbone[row.name].modules() if isinstance(m, _BatchNorm)}
            assert modes == {row.batch_norm == "train"}  # what the table says is what the layer does
            assert used[row.name] == used[f"{row.name}/no_decay"]
        what = f"{row.trainable} @ {used[row.name]:.3g}" if row.trainable else "-"
        cells.append(f"{what} {row.batch_norm}" if row.batch_norm else what)
    return [phase.name, *cells]


TABLES = {
    "feature_extraction": """
phase | stem     | low      | middle   | top      | head
head  | - frozen | - frozen | - frozen | - frozen | 10 @ 0.333
head  | - frozen | - frozen | - frozen | - frozen | 10 @ 0.587
""",
    "partial": """
phase  | stem     | low      | middle              | top                | head
last:2 | - frozen | - frozen | 24 @ 0.00333 frozen | 24 @ 0.0333 frozen | 10 @ 0.333
last:2 | - frozen | - frozen | 24 @ 0.00587 frozen | 24 @ 0.0587 frozen | 10 @ 0.587
""",
    "full": """
phase | stem                 | low                  | middle              | top                | head
all   | 20 @ 2.5e-05 frozen  | 24 @ 0.00025 frozen  | 24 @ 0.0025 frozen  | 24 @ 0.025 frozen  | 10 @ 0.25
all   | 20 @ 8.43e-05 frozen | 24 @ 0.000843 frozen | 24 @ 0.00843 frozen | 24 @ 0.0843 frozen | 10 @ 0.843
all   | 20 @ 3.02e-05 frozen | 24 @ 0.000302 frozen | 24 @ 0.00302 frozen | 24 @ 0.0302 frozen | 10 @ 0.302
""",
    "lp_ft": """
phase | stem                 | low                  | middle              | top                | head
head  | - frozen             | - frozen             | - frozen            | - frozen           | 10 @ 0.5
all   | 20 @ 2.5e-05 frozen  | 24 @ 0.00025 frozen  | 24 @ 0.0025 frozen  | 24 @ 0.025 frozen  | 10 @ 0.25
all   | 20 @ 8.43e-05 frozen | 24 @ 0.000843 frozen | 24 @ 0.00843 frozen | 24 @ 0.0843 frozen | 10 @ 0.843
all   | 20 @ 3.02e-05 frozen | 24 @ 0.000302 frozen | 24 @ 0.00302 frozen | 24 @ 0.0302 frozen | 10 @ 0.302
""",
    "gradual": """
phase           | stem                 | low                  | middle              | top                | head
gradual: head   | - frozen             | - frozen             | - frozen            | - frozen           | 10 @ 0.5
gradual: last:1 | - frozen             | - frozen             | - frozen            | 24 @ 0.05 frozen   | 10 @ 0.5
gradual: last:2 | - frozen             | - frozen             | 24 @ 0.005 frozen   | 24 @ 0.05 frozen   | 10 @ 0.5
gradual: last:3 | - frozen             | 24 @ 0.0005 frozen   | 24 @ 0.005 frozen   | 24 @ 0.05 frozen   | 10 @ 0.5
gradual: all    | 20 @ 3.33e-05 frozen | 24 @ 0.000333 frozen | 24 @ 0.00333 frozen | 24 @ 0.0333 frozen | 10 @ 0.333
gradual: all    | 20 @ 5.87e-05 frozen | 24 @ 0.000587 frozen | 24 @ 0.00587 frozen | 24 @ 0.0587 frozen | 10 @ 0.587
""",
    "scratch": """
phase | stem             | low              | middle           | top              | head
all   | 20 @ 0.333 train | 24 @ 0.333 train | 24 @ 0.333 train | 24 @ 0.333 train | 10 @ 0.333
all   | 20 @ 0.587 train | 24 @ 0.587 train | 24 @ 0.587 train | 24 @ 0.587 train | 10 @ 0.587
""",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_epoch_of_a_preset_is_as_its_table_says(preset):
    header, *expected = [[cell.strip() for cell in line.split("|")] for line in TABLES[preset].strip().splitlines()]
    assert header == ["phase", *NAMES, "head"]
    assert list(walk(preset, len(expected))) == expected
