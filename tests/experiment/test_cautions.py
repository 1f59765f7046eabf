import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tl_lightning.errors import UserError
from tl_lightning.experiment.cautions import KEYS, Caution, cautions, check_silenced
from tl_lightning.finetuning.phases import PRESETS, Phase, parse_phases
from tl_lightning.preprocess import ImagePreprocess

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
OWN = ImagePreprocess(224, 3, 0.875, "center", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def found(**changes):
    """The cautions about the demo, with some of its values changed."""
    demo = {
        "name": "elpv",
        "phases": [Phase(train="from:blocks.2", epochs=6, name="from:blocks.2")],
        "pretrained": True,
        "top_lr": 9e-4,
        "preprocess": OWN.with_size(128),
        "own_preprocess": OWN,
        "training_images": 1673,
        "patience": 10,
        "sampler": "shuffled",
        "class_weights": "none",
        "class_counts": {"functional": 1150, "defective": 523},
    }
    assert changes.keys() <= demo.keys()
    return cautions(**{**demo, **changes})


def keys(**changes):
    return [caution.key for caution in found(**changes)]


def test_the_demo_needs_no_caution():
    assert found() == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_shipped_configuration_needs_a_caution(path):
    values = yaml.safe_load(path.read_text())
    phases, model = values["phases"], values["model"]
    scratch = phases == "scratch"
    size = values["data"].get("image_size", 224)
    epochs = values.get("trainer", {}).get("max_epochs", 10)
    assert not found(
        name=path.stem,
        phases=parse_phases(phases, max_epochs=epochs),
        pretrained=not scratch,
        top_lr=model.get("lr", 1e-3) * (1.0 if scratch else model.get("backbone_lr_scale", 0.1)),
        preprocess=OWN.with_size(size),
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_needs_a_caution_on_enough_images(preset):
    phases = parse_phases(preset, max_epochs=10)
    assert not found(phases=phases, name=preset, pretrained=preset != "scratch", top_lr=1e-4)


@pytest.mark.parametrize(
    ("top_lr", "lr_scale", "pretrained", "expected"),
    [
        (0.99e-3, 1.0, True, []),
        (1e-3, 1.0, True, ["backbone_lr"]),
        (2e-3, 0.5, True, ["backbone_lr"]),
        (2e-3, 0.49, True, []),
        (9e-4, 2.0, True, ["backbone_lr"]),
        (1e-2, 1.0, False, []),
    ],
)
def test_a_pretrained_backbone_is_not_trained_as_from_scratch(top_lr, lr_scale, pretrained, expected):
    phases = [Phase(train="head", epochs=2), Phase(train="last:2", epochs=6, lr_scale=lr_scale)]
    assert keys(phases=phases, top_lr=top_lr, pretrained=pretrained) == expected


def test_the_rate_of_a_head_is_no_backbones_rate():
    assert keys(phases=[Phase(train="head", epochs=6, lr_scale=10.0)]) == []


def test_a_head_on_random_features_is_cautioned_against():
    head, top = Phase(train="head", epochs=3), Phase(train="last:1", epochs=3)
    assert keys(phases=[head], pretrained=False) == ["random_frozen"]
    assert keys(phases=[head], pretrained=True) == []
    assert keys(phases=[head, top], pretrained=False) == []


@pytest.mark.parametrize(
    "name",
    [
        "feature_extraction",
        "elpv_feature_extraction-3",
        "elpv-linear-probe",
        "Linear Probe",
        "probe",
        "cells.head_only",
        "frozen_2",
    ],
)
def test_a_name_that_says_head_only_is_kept_to(name):
    head, top = Phase(train="head", epochs=3), Phase(train="last:1", epochs=3, name="top")
    assert keys(name=name, phases=[head]) == []
    (caution,) = found(name=name, phases=[head, top])
    assert caution.key == "not_head_only"
    assert f"called {name!r}, but phase 2 (top) trains the backbone" in caution.text


@pytest.mark.parametrize("name", ["elpv", "unfrozen", "probes", "extraction", "headless_only", "lp_ft"])
def test_other_names_promise_nothing(name):
    assert keys(name=name) == []


@pytest.mark.parametrize(
    ("images", "epochs", "patience", "expected"),
    [
        (999, 20, 20, ["no_early_stopping"]),
        (1000, 20, 20, []),
        (999, 19, 20, []),
        (999, 20, 19, []),
        (999, 20, math.inf, ["no_early_stopping"]),
    ],
)
def test_a_long_phase_on_few_images_can_end_early(images, epochs, patience, expected):
    phases = [Phase(train="head", epochs=5), Phase(train="last:2", epochs=epochs)]
    assert keys(phases=phases, training_images=images, patience=patience) == expected


@pytest.mark.parametrize(
    ("own", "patience", "expected"), [(30, 10, ["no_early_stopping"]), (29, 100, []), (None, 30, ["no_early_stopping"])]
)
def test_a_phases_own_patience_comes_before_the_runs(own, patience, expected):
    phases = [Phase(train="last:2", epochs=30, patience=own)]
    assert keys(phases=phases, training_images=600, patience=patience) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(111, ["input_size"]), (112, []), (224, []), (448, []), (449, ["input_size"])]
)
def test_images_are_not_far_from_the_size_of_the_pretraining(size, expected):
    assert keys(preprocess=OWN.with_size(size)) == expected
    assert keys(preprocess=OWN.with_size(size), pretrained=False) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mean", (0.485, 0.456, 0.406), "mean [0.485, 0.456, 0.406] instead of [0.5, 0.5, 0.5];"),
        ("std", (0.2, 0.2, 0.2), "std [0.2, 0.2, 0.2] instead of [0.5, 0.5, 0.5];"),
        ("interpolation", "bilinear", "interpolation bilinear instead of bicubic;"),
        ("crop_mode", "squash", "crop_mode squash instead of center;"),
    ],
)
def test_another_preparation_than_the_weights_own_is_named(field, value, said):
    (caution,) = found(preprocess=replace(OWN, **{field: value}))
    assert caution.key == "preprocessing"
    assert f"as the weights expect: {said}" in caution.text
    assert found(preprocess=replace(OWN, **{field: value}), pretrained=False) == []


def test_size_crop_and_channels_are_no_other_preparation():
    own = replace(OWN, mean=(0.4, 0.5, 0.6))
    asked = replace(own, size=128, crop_pct=1.0)
    assert found(preprocess=asked, own_preprocess=own) == []
    assert found(preprocess=asked.with_channels(1), own_preprocess=own) == []


@pytest.mark.parametrize(
    ("train", "images", "pretrained", "expected"),
    [
        ("all", 499, True, ["full_on_few"]),
        ("layers::", 499, True, ["full_on_few"]),
        ("all", 500, True, []),
        ("last:2", 499, True, []),
        ("all", 499, False, []),
    ],
)
def test_a_whole_backbone_wants_more_than_a_few_images(train, images, pretrained, expected):
    phases = [Phase(train="head", epochs=2), Phase(train=train, epochs=4)]
    assert keys(phases=phases, training_images=images, pretrained=pretrained) == expected


@pytest.mark.parametrize("weights", ["balanced", "effective"])
def test_rare_classes_are_made_up_for_once(weights):
    assert keys(sampler="balanced") == keys(class_weights=weights) == []
    assert keys(sampler="balanced", class_weights=weights) == ["balanced_twice"]


def test_a_class_of_few_images_is_not_shown_over_and_over():
    few = {"ill": 5, "well": 96}
    assert keys(sampler="balanced", class_counts=few) == ["few_drawn_often"]
    assert keys(class_counts=few) == keys(sampler="balanced", class_counts={"ill": 6, "well": 96}) == []
    (caution,) = found(sampler="balanced", class_counts=few)
    assert "each of the 5 training images of 'ill' 10 times in every epoch" in caution.text


def test_every_caution_is_one_line_with_its_numbers_and_the_way_to_silence_it():
    everything = found(
        name="linear_probe",
        phases=[Phase(train="all", epochs=40, name="all")],
        top_lr=3e-3,
        preprocess=replace(OWN, size=32, interpolation="nearest"),
        training_images=120,
        patience=50,
    )
    everything += found(phases=[Phase(train="head", epochs=6)], pretrained=False)
    everything += found(sampler="balanced", class_weights="balanced", class_counts={"ill": 5, "well": 96})
    assert sorted(caution.key for caution in everything) == sorted(KEYS)
    numbers = {
        "backbone_lr": "phase 1 (all) trains the pretrained backbone at a learning rate of up to 0.003",
        "no_early_stopping": "phase 1 (all) goes 40 times over 120 training images, and a patience of 50 epochs",
        "input_size": "32 pixels wide, less than half the 224",
        "full_on_few": "phase 1 (all) trains the whole backbone on 120 images, fewer than 500",
    }
    for caution in everything:
        assert "\n" not in caution.text
        assert caution.text.endswith(f" (--silence {caution.key} if you mean it)")
        assert numbers.get(caution.key, "") in caution.text


def test_a_caution_is_plain_data():
    (caution,) = found(preprocess=OWN.with_size(449))
    assert caution == Caution(
        "input_size",
        "images are made 449 pixels wide, more than double the 224 that the weights were trained with: things appear "
        "at a scale that they have not seen; set data.image_size closer to it (--silence input_size if you mean it)",
    )


def test_only_known_cautions_are_silenced():
    check_silenced([])
    check_silenced(KEYS)
    with pytest.raises(UserError) as caught:
        check_silenced(["input_size", "backbone_lrs"])
    assert str(caught.value) == (
        f"silence: 'backbone_lrs' is no caution; did you mean backbone_lr? (cautions: {', '.join(KEYS)})"
    )
