import pytest

from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import PRESETS, Phase, parse_phases


def test_last_phase_takes_the_rest_of_the_epochs():
    phases = parse_phases([{"epochs": 3, "train": "head"}, {"train": "last:2", "lr_scale": 0.3}], max_epochs=10)
    assert phases == [
        Phase(train="head", epochs=3, name="head"),
        Phase(train="last:2", epochs=7, lr_scale=0.3, name="last:2"),
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_phase_lists_that_fill_the_run(name):
    phases = parse_phases(name, max_epochs=8)
    assert sum(phase.epochs for phase in phases) == 8
    assert [phase.train for phase in phases] == {
        "feature_extraction": ["head"],
        "partial": ["last:2"],
        "full": ["all"],
        "lp_ft": ["head", "all"],
        "scratch": ["all"],
    }[name]


def test_scratch_implies_random_weights_and_one_rate():
    assert PRESETS["scratch"].model == {"weights": "none", "backbone_lr_scale": 1.0, "bottom_ratio": 1.0}
    assert parse_phases("scratch", max_epochs=2)[0].bn == "train"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ful", "did you mean full?"),
        ("[{epochs:3}", "is no preset"),
        ([], "the list is empty"),
        ([{"tain": "head"}], "phases[0]: unknown key 'tain'; did you mean train?"),
        ([{"train": 3}], "phases[0].train is 3"),
        ([{"train": "head", "epochs": 0}, {}], "phases[0].epochs is 0"),
        ([{"train": "head", "epochs": "2"}, {}], "phases[0].epochs is '2'"),
        ([{"bn": "thaw"}], "phases[0].bn is 'thaw'; it must be one of frozen, train"),
        ([{"lr_scale": 0}], "phases[0].lr_scale is 0"),
        ([{"lr_scale": "1e-1"}], "phases[0].lr_scale is '1e-1'"),
        ([{"warmup": 2}], "phases[0].warmup is 2"),
        ([{"train": "head"}, {"train": "all"}], "phases[0] (head) has no epochs"),
        ([{"epochs": 3, "train": "head"}], "add up to 3, but trainer.max_epochs is 5"),
        ([{"epochs": 5, "train": "head"}, {}], "leaves none of trainer.max_epochs 5"),
    ],
)
def test_a_wrong_list_is_one_line_that_says_where(value, words):
    with pytest.raises(UserError) as error:
        parse_phases(value, max_epochs=5)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
