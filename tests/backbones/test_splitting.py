"""The halves of a backbone are the backbone: same numbers, same gradients, same tensors, to the last bit."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from tl_lightning.backbones import CannotSplit, Stage, splitting
from tl_lightning.backbones.stages import stages_of
from tl_lightning.backbones.timm_models import checkpoint_gradients
from tl_lightning.finetuning.freezing import freeze_all_but, set_training_modes

SMALL_SWIN = {"img_size": 56, "depths": (1, 1, 2, 1), "embed_dim": 24, "num_heads": (1, 2, 3, 6)}
SMALL_EVA = {"img_size": 28, "depth": 3, "embed_dim": 48, "num_heads": 3}
# name: image size, how many tensors cross at most, options that make it small
MODELS = {
    "test_efficientnet": (32, 1, {}),
    "mobilenetv2_035": (32, 1, {}),
    "resnet18": (32, 1, {}),
    "hrnet_w18_small": (64, 4, {}),
    "convnext_atto": (32, 1, {}),
    "test_vit": (160, 1, {}),
    "eva02_tiny_patch14_224": (28, 1, SMALL_EVA),
    "swin_tiny_patch4_window7_224": (56, 1, SMALL_SWIN),
    "mixer_s32_224": (64, 1, {"img_size": 64}),
}
SLOW = {
    **{name: (64, 1, {}) for name in ("tf_efficientnet_lite0", "vgg11_bn", "densenet121", "mobilenetv3_small_050")},
    **{name: (64, 1, {}) for name in ("regnetx_002", "resnetv2_50", "edgenext_xx_small")},
    **{name: (128, 1, {}) for name in ("inception_v3", "test_byobnet")},
    **{name: (224, 1, {}) for name in ("vit_tiny_patch16_224", "levit_128s")},
}
EVERY = [pytest.param(name, *MODELS[name], id=name) for name in MODELS]
EVERY += [pytest.param(name, *SLOW[name], id=f"{name}-{SLOW[name][0]}", marks=pytest.mark.slow) for name in SLOW]


def split_backbone(module, stages, cut):
    return splitting.split_backbone(module, stages, cut, inputs=("image",))


def stage_outputs(module, stages):
    return splitting.stage_outputs(module, stages, inputs=("image",))


def build(name, options):
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=0, **options).eval()
    return module, stages_of(module, name)


def images(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def names_of(part, module):
    """The backbone's names of the parameters that a part holds, as the same objects."""
    ids = {id(parameter): name for name, parameter in module.named_parameters()}
    return sorted(ids[id(parameter)] for parameter in part.parameters())


def gradients(module, names):
    return {name: parameter.grad for name, parameter in module.named_parameters() if name in names}


@pytest.mark.parametrize("name, size, most, options", EVERY)
def test_the_halves_are_the_whole_at_every_cut(name, size, most, options):
    module, stages = build(name, options)
    fixed = module.pretrained_cfg["fixed_input_size"]
    batches = [images(size), images(size if fixed else 2 * size, 3)]
    with torch.no_grad():
        whole = [module(batch) for batch in batches]
        numbers = []
        for cut in range(1, len(stages) + 1):
            split = split_backbone(module, stages, cut)
            for batch, features in zip(batches, whole, strict=True):
                crossing = split.prefix(batch)
                assert isinstance(crossing, tuple) and {len(tensor) for tensor in crossing} == {len(batch)}
                assert torch.equal(split.suffix(*crossing), features), cut
            numbers.append(len(crossing))
            assert names_of(split.prefix, module) == sorted(n for stage in stages[:cut] for n in stage.parameters)
            assert names_of(split.suffix, module) == sorted(n for stage in stages[cut:] for n in stage.parameters)
    assert max(numbers) == most and numbers[-1] == 1


@pytest.mark.parametrize("name, size, most, options", EVERY)
def test_the_suffix_learns_as_within_the_whole(name, size, most, options):
    try:
        module, stages = build(name, {**options, "drop_path_rate": 0.3})
    except TypeError:  # no stochastic depth
        module, stages = build(name, options)
    batch = images(size, 3)
    cuts = {1, len(stages) // 2, len(stages) - 1}
    for cut in cuts:
        split = split_backbone(module, stages, cut)
        trainable = {name for stage in stages[cut:] for name in stage.parameters}
        freeze_all_but(module, trainable)
        set_training_modes(module, bn="train")
        results = []
        for run in (module, lambda batch, split=split: split.suffix(*split.prefix(batch))):
            torch.manual_seed(2)
            module.zero_grad()
            run(batch).square().sum().backward()
            results.append(gradients(module, trainable))
        assert any(gradient is not None and gradient.any() for gradient in results[0].values())
        for parameter, gradient in results[0].items():
            other = results[1][parameter]
            assert other is gradient is None or torch.equal(other, gradient), (cut, parameter)


@pytest.mark.parametrize("name, size, most, options", EVERY)
def test_stage_outputs_end_in_the_features(name, size, most, options):
    module, stages = build(name, options)
    batch = images(size)
    with torch.no_grad():
        outputs = stage_outputs(module, stages)(batch)
        assert torch.equal(outputs[-1], module(batch))
    assert len(outputs) == len(stages)
    assert {(len(output), output.ndim, output.dtype) for output in outputs} == {(2, 2, torch.float32)}


def test_stage_outputs_are_means_over_positions_of_what_crosses():
    def expected(name, mean):
        module, stages = build(name, MODELS[name][2])
        batch = images(MODELS[name][0])
        with torch.no_grad():
            outputs = stage_outputs(module, stages)(batch)
            for cut in range(1, len(stages)):
                crossing = split_backbone(module, stages, cut).prefix(batch)
                assert torch.equal(outputs[cut - 1], torch.cat([mean(tensor) for tensor in crossing], 1)), (name, cut)

    expected("resnet18", lambda tensor: tensor.mean((2, 3)))
    expected("hrnet_w18_small", lambda tensor: tensor.mean((2, 3)))  # up to four tensors beside each other
    expected("test_vit", lambda tensor: tensor.mean(1))
    expected("swin_tiny_patch4_window7_224", lambda tensor: tensor.mean((1, 2)))  # channels come last


def test_as_many_positions_as_channels_are_read_as_timm_states_them():
    swin = {"img_size": 112, "window_size": 7, "embed_dim": 28, "depths": (1, 1), "num_heads": (1, 2)}
    module, stages = build("swin_tiny_patch4_window7_224", swin)
    with torch.no_grad():
        crossing = split_backbone(module, stages, 1).prefix(images(112))[0]
        assert crossing.shape[1:] == (28, 28, 28)
        assert torch.equal(stage_outputs(module, stages)(images(112))[0], crossing.mean((1, 2)))


def test_modes_and_hooks_of_the_backbone_hold_in_its_halves():
    module, stages = build("test_efficientnet", {})
    split = split_backbone(module, stages, 2)
    calls = []
    module.conv_stem.register_forward_hook(lambda *_: calls.append("stem"))
    module.train()
    assert module.bn1.training and all(part.training for part in module.modules())
    steps = module.bn1.num_batches_tracked.item()
    split.prefix(images(32))
    assert (module.bn1.num_batches_tracked.item(), calls) == (steps + 1, ["stem"])
    module.eval()
    split.prefix(images(32))
    assert module.bn1.num_batches_tracked.item() == steps + 1


def test_cutting_leaves_the_backbones_modes_alone():
    module, stages = build("test_vit", {})
    set_training_modes(module, bn="train")
    module.blocks[3].eval()
    modes = [part.training for part in module.modules()]
    split_backbone(module, stages, 2)
    assert [part.training for part in module.modules()] == modes and len(set(modes)) == 2


class Toy(nn.Module):
    """Two stages, `first` and `second`; each test says how they are put together."""

    def __init__(self, forward):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
        self.table = nn.Buffer(torch.arange(1.0, 5.0)[:, None, None])
        self.token = nn.Parameter(torch.ones(4, 1, 1))
        self.run = forward

    def forward(self, images, mask=None):
        assert mask is None
        return self.run(self, images)


TOY_STAGES = (
    Stage("first", ("first.weight", "first.bias", "token"), ("table",)),
    Stage("second", ("second.weight", "second.bias"), ()),
)


def reason(forward):
    """Why a toy cannot be split."""
    with pytest.raises(CannotSplit) as caught:
        split_backbone(Toy(forward), TOY_STAGES, 1).prefix(images(4))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(forward, count):
    toy = Toy(forward)
    split = split_backbone(toy, TOY_STAGES, 1)
    for size in (4, 6):
        crossing = split.prefix(images(size))
        assert len(crossing) == count
        assert torch.equal(split.suffix(*crossing), toy(images(size)))
    return toy, split


def test_sizes_of_what_crosses_are_read_again():
    def forward(toy, images):
        first = toy.first(images)
        rows, channels = first.shape[0], first.size(1)
        return toy.second(first).reshape(rows, -1)[:, :channels]

    check(forward, 1)


def test_a_table_is_used_on_both_sides_and_follows_the_backbone_when_it_is_moved():
    toy, split = check(lambda toy, x: toy.second(toy.first(x) * toy.table + toy.token) * toy.table.sum(), 1)
    toy.double()
    assert split.prefix.get_buffer("table") is split.suffix.get_buffer("table") is toy.table
    assert torch.equal(split.suffix(*split.prefix(images(4).double())), toy(images(4).double()))


def test_an_activation_goes_with_the_stage_before_it_and_is_done_once():
    def forward(toy, images):
        first = toy.first(images)
        return toy.second(functional.relu(first, inplace=True)) + first.mean(1, keepdim=True)

    check(forward, 2)
    _, split = check(lambda toy, x: toy.second(functional.relu(toy.first(x))), 1)
    assert split.prefix(images(4))[0].min() == 0


def test_what_cannot_be_cut_says_why():
    def dropped(toy, x):
        return functional.dropout(toy.second(toy.first(x)), 0.5, toy.training)

    def branching(toy, x):
        return toy.second(toy.first(x)) if x.sum() > 0 else x

    def own_tensor(toy, x):
        return toy.second(toy.first(x)) * torch.ones(1)

    def back_again(toy, x):
        return toy.first(toy.second(toy.first(x))[:, :3])

    assert reason(dropped) == "its forward pass itself depends on train or eval mode"
    assert reason(branching).startswith("its forward pass cannot be traced: symbolically traced variables")
    assert reason(own_tensor).startswith("its forward pass makes tensors of its own")
    assert reason(back_again) == "first is used again after a later stage"
    assert reason(lambda toy, x: toy.second(toy.first(x)) + x.shape[2]).startswith("the size of image, which does")
    assert reason(lambda toy, x: toy.second(toy.first(x))[:, :4] + toy.token) == (
        "token lies before the cut and is used after it"
    )
    assert reason(lambda toy, x: toy.second(toy.first(x)) + toy.token.sum()) == (
        "something else than tensors with one row per sample crosses the cut"
    )


def test_gradient_checkpointing_around_the_cut_is_refused():
    module, stages = build("test_vit", {})
    checkpoint_gradients(module, "timm/test_vit")
    with pytest.raises(CannotSplit, match="gradient checkpointing is on"):
        split_backbone(module, stages, 2)
    whole = split_backbone(module, stages, len(stages))
    with torch.no_grad():
        assert torch.equal(whole.suffix(*whole.prefix(images(160))), module(images(160)))


@pytest.mark.parametrize("cut", [0, 3])
def test_a_cut_outside_the_backbone_is_the_callers_mistake(cut):
    with pytest.raises(ValueError, match="it must be from 1 to 2"):
        split_backbone(Toy(lambda toy, x: x), TOY_STAGES, cut)
