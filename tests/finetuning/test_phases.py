import pytest

from tl_lightning.backbones import Stage
from tl_lightning.errors import UserError
from tl_lightning.finetuning.phases import PRESETS, Phase, parse_phases, plan
from tl_lightning.finetuning.schedules import Schedule

SIX = tuple(Stage(f"stage{k}", (f"{k}.weight", f"{k}.bias"), ()) for k in range(6))


def line_of(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lengths(*epochs, of):
    return [phase.epochs for phase in parse_phases([{"epochs": each} for each in epochs], max_epochs=of)]


def planned(*phases, epochs, stages=SIX):
    """Names, selections and epochs of what is planned."""
    given = phases[0] if isinstance(phases[0], str) else list(phases)
    return [(phase.name, phase.train, phase.epochs) for phase in plan(parse_phases(given, max_epochs=epochs), stages)]


def test_last_phase_takes_the_rest_of_the_epochs():
    phases = parse_phases([{"epochs": 3, "train": "head"}, {"train": "last:2", "lr_scale": 0.3}], max_epochs=10)
    assert phases == [Phase(train="head", epochs=3), Phase(train="last:2", epochs=7, lr_scale=0.3)]


@pytest.mark.parametrize(
    ("epochs", "of", "expected"),
    [
        (("30%", None), 10, [3, 7]),
        (("30%", None), 8, [2, 6]),  # 2.4
        (("30%", None), 12, [4, 8]),  # 3.6
        (("12.5%", None), 16, [2, 14]),
        (("1%", None), 10, [1, 9]),  # at least one epoch
        (("1%", "1%", None), 3, [1, 1, 1]),
        (("30%", "70%"), 12, [4, 8]),  # 8.4: the last takes the rest
        (("33%", "33%", "33%"), 10, [3, 3, 4]),
        ((3, "70%"), 10, [3, 7]),
        (("30%", 7), 10, [3, 7]),
        (("100%",), 5, [5]),
        ((5,), 5, [5]),
    ],
)
def test_epochs_may_be_shares_of_the_run(epochs, of, expected):
    assert lengths(*epochs, of=of) == expected


@pytest.mark.parametrize(
    ("epochs", "of", "said"),
    [
        ((3,), 5, "add up to 3, but trainer.max_epochs is 5"),
        ((3, 3), 5, "add up to 6, but trainer.max_epochs is 5"),
        (("30%", 6), 10, "add up to 9, but trainer.max_epochs is 10"),
        (("50%", "40%"), 10, "add up to 9, but trainer.max_epochs is 10"),
        (("10%", "50%"), 5, "add up to 3, but trainer.max_epochs is 5"),
        (("50%",), 4, "add up to 2, but trainer.max_epochs is 4"),
        (("70%", "70%"), 10, "add up to 14, but trainer.max_epochs is 10"),
        ((5, None), 5, "the first 1 take 5 epochs, so the last can never be reached within trainer.max_epochs 5"),
        ((4, 4, None), 5, "the first 2 take 8 epochs, so the last can never be reached within trainer.max_epochs 5"),
        (("60%", "40%", None), 5, "the first 2 take 5 epochs, so the last can never be reached"),
        (("1%", "1%", None), 2, "the first 2 take 2 epochs, so the last can never be reached"),
        ((None, 2), 5, "phases[0] has no epochs; only the last phase may omit them"),
    ],
)
def test_epochs_that_disagree_with_the_run_are_refused(epochs, of, said):
    assert said in line_of(lengths, *epochs, of=of)


def test_scratch_implies_random_weights_and_one_rate():
    assert PRESETS["scratch"].model == {"weights": "none", "backbone_lr_scale": 1.0, "bottom_ratio": 1.0}
    assert parse_phases("scratch", max_epochs=2)[0].bn == "train"
    assert [name for name, preset in PRESETS.items() if preset.model] == ["scratch"]


def test_everything_a_phase_can_say_is_kept():
    given = {
        "train": "last:2",
        "lr_scale": 0.1,
        "bn": "adapt",
        "schedule": "linear",
        "warmup": 0.25,
        "augmentation": "dihedral",
        "patience": 3,
        "min_delta": 0.01,
        "cooldown": 2,
        "name": "top",
    }
    assert parse_phases([given], max_epochs=5) == [
        Phase(**{**given, "epochs": 5, "schedule": Schedule(shape="linear")})
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ful", "phases: 'ful' is no preset; did you mean full?"),
        ("gradul", "did you mean gradual?"),
        ("[{epochs:3}", "is no preset"),
        ([], "the list is empty"),
        ([{"tain": "head"}], "phases[0]: unknown key 'tain'; did you mean train?"),
        ([{"train": 3}], "phases[0].train is 3"),
        ([{"train": "head", "epochs": 0}, {}], "phases[0].epochs is 0"),
        ([{"train": "head", "epochs": "2"}, {}], "phases[0].epochs is '2'"),
        ([{"train": "head", "epochs": "0%"}, {}], "phases[0].epochs is '0%'"),
        ([{"train": "head", "epochs": "101%"}, {}], "phases[0].epochs is '101%'"),
        ([{"train": "head", "epochs": "-5%"}, {}], "phases[0].epochs is '-5%'"),
        ([{"train": "head", "epochs": 2.0}, {}], "phases[0].epochs is 2.0"),
        ([{"train": "head", "epochs": True}, {}], "phases[0].epochs is True"),
        ([{"bn": "thaw"}], "phases[0].bn is 'thaw'; it must be one of frozen, train, adapt"),
        ([{"lr_scale": 0}], "phases[0].lr_scale is 0"),
        ([{"lr_scale": "1e-1"}], "phases[0].lr_scale is '1e-1'"),
        ([{"lr_scale": float("inf")}], "phases[0].lr_scale is inf"),
        ([{"lr_scale": float("nan")}], "phases[0].lr_scale is nan"),
        ([{"warmup": 2}], "phases[0].warmup is 2"),
        ([{"warmup": True}], "phases[0].warmup is True"),
        ([{"patience": 0}], "phases[0].patience is 0; it must be a whole number of validations, 1 or more"),
        ([{"patience": 1.5}], "phases[0].patience is 1.5"),
        ([{"patience": True}], "phases[0].patience is True"),
        ([{"min_delta": -0.1}], "phases[0].min_delta is -0.1; it must be a number, 0 or more"),
        ([{"min_delta": "0.1"}], "phases[0].min_delta is '0.1'"),
        ([{"cooldown": -1}], "phases[0].cooldown is -1; it must be a whole number of epochs, 0 or more"),
        ([{"cooldown": None}], "phases[0].cooldown is None"),
        ([{"cooldown": True}], "phases[0].cooldown is True"),
        ([{"augmentation": 3}], "phases[0].augmentation is 3; it must be a name, a mapping with class_path"),
        ([{"views": 0}], "phases[0].views is 0; it must be a whole number, 1 or more"),
        ([{"views": 2.0}], "phases[0].views is 2.0"),
        ([{"views": True}], "phases[0].views is True"),
        ([{"name": 3}], "phases[0].name is 3; it must be text"),
        ([{"schedule": "cosin"}], "phases[0].schedule: 'cosin' is no schedule; did you mean cosine"),
        ([{"schedule": "OneCycle"}], "phases[0].schedule: 'OneCycle' is no schedule; did you mean OneCycleLR"),
        ([{"schedule": "no_such.Class"}], "phases[0].schedule is 'no_such.Class', which cannot be imported"),
        ([{"schedule": 3}], "phases[0].schedule is 3"),
        (
            [{"schedule": "OneCycleLR", "warmup": 0.2}],
            "phases[0].warmup is for cosine, linear and constant; OneCycleLR has its own shape",
        ),
        ([{"epochs": 1}, {"patience": 0}], "phases[1].patience is 0"),
    ],
)
def test_a_wrong_list_is_one_line_that_says_where(value, words):
    assert words in line_of(parse_phases, value, max_epochs=5)


def test_no_warmup_is_fine_for_a_class_of_torch():
    (phase,) = parse_phases([{"schedule": "OneCycleLR", "warmup": 0}], max_epochs=5)
    assert (phase.schedule.class_path, phase.warmup) == ("OneCycleLR", 0)


def test_gradual_thaws_a_stage_each_epoch_and_trains_all_for_the_rest():
    assert planned("gradual", epochs=9) == [
        ("gradual: head", "head", 1),
        ("gradual: last:1", "last:1", 1),
        ("gradual: last:2", "last:2", 1),
        ("gradual: last:3", "last:3", 1),
        ("gradual: last:4", "last:4", 1),
        ("gradual: last:5", "last:5", 1),
        ("gradual: all", "all", 3),
    ]


@pytest.mark.parametrize(
    ("epochs", "stages", "expected"),
    [
        (7, 6, ["head", "last:1", "last:2", "last:3", "last:4", "last:5", "all"]),
        (6, 6, ["head", "last:1", "last:2", "last:4", "last:5", "all"]),  # 1.2, 2.4, 3.6, 4.8
        (5, 6, ["head", "last:2", "last:3", "last:4", "all"]),  # 1.5, 3, 4.5: a half goes to the even number
        (4, 6, ["head", "last:2", "last:4", "all"]),
        (3, 6, ["head", "last:3", "all"]),
        (2, 6, ["head", "all"]),
        (4, 4, ["head", "last:1", "last:3", "all"]),
        (2, 1, ["head", "all"]),
    ],
)
def test_gradual_thaws_several_stages_at_once_where_there_are_more_of_them_than_epochs(epochs, stages, expected):
    found = planned("gradual", epochs=epochs, stages=SIX[:stages])
    assert [(train, length) for _, train, length in found] == [(train, 1) for train in expected]


def test_gradual_within_a_list_keeps_what_its_phase_says():
    first = {"train": "head", "epochs": 2}
    second = {"train": "gradual", "epochs": 4, "lr_scale": 0.1, "bn": "train", "patience": 2, "name": "thaw"}
    phases = plan(parse_phases([first, second, {"train": "all"}], max_epochs=9), SIX[:2])
    shared = {"lr_scale": 0.1, "bn": "train", "patience": 2}
    assert phases == [
        Phase(train="head", epochs=2, name="head", augmentation="none"),
        Phase(train="head", epochs=1, name="thaw: head", augmentation="none", **shared),
        Phase(train="last:1", epochs=1, name="thaw: last:1", **shared),
        Phase(train="all", epochs=2, name="thaw: all", **shared),
        Phase(train="all", epochs=3, name="all"),
    ]


@pytest.mark.parametrize(
    ("asked", "augmentation", "views"),
    [
        ({}, "none", None),
        ({"augmentation": "flips"}, "flips", None),
        ({"views": 4}, None, 4),  # of data.augmentation
        ({"train": "last:1"}, None, None),
    ],
)
def test_the_head_alone_sees_plain_images_unless_its_phase_says_otherwise(asked, augmentation, views):
    (phase,) = plan(parse_phases([{"train": "head", **asked}], max_epochs=2), SIX)
    assert (phase.augmentation, phase.views) == (augmentation, views)


def test_gradual_in_one_epoch_is_refused():
    assert "phases[0]: gradual has 1 epoch, but the head and the stages need 2 or more" in line_of(
        planned, "gradual", epochs=1
    )
    assert "phases[1]: gradual has 1 epoch" in line_of(planned, {"epochs": 3}, {"train": "gradual"}, epochs=4)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"train": "head"}, {"train": "head"}),
        ({"train": "all"}, {"train": "last:6"}),
        ({"train": "last:2"}, {"train": "from:stage4"}),
        ({"train": "last:1"}, {"train": "regex:^5"}),
        ({"train": "all", "lr_scale": 0.1}, {"train": "all", "lr_scale": 0.1, "name": "again"}),
        ({"train": "head"}, {"train": "gradual"}),
    ],
)
def test_a_phase_that_changes_nothing_is_refused(first, second):
    line = line_of(planned, {**first, "epochs": 2}, second, epochs=5)
    assert "changes nothing after" in line
    assert "join them into one phase" in line


def test_what_changes_nothing_is_called_by_its_name():
    line = line_of(planned, {"train": "all", "epochs": 2}, {"train": "last:6", "name": "second"}, epochs=5)
    assert line.startswith("phases: 'second' changes nothing after 'all': ")


@pytest.mark.parametrize(
    "change",
    [
        {"train": "last:5"},
        {"lr_scale": 0.5},
        {"bn": "train"},
        {"schedule": "linear"},
        {"warmup": 0.2},
        {"augmentation": "none"},
        {"views": 2},
        {"patience": 2},
        {"min_delta": 0.1},
        {"cooldown": 1},
    ],
)
def test_a_phase_that_changes_anything_may_follow(change):
    name = change.get("train", "all")
    assert planned({"epochs": 2}, change, epochs=5) == [("all", "all", 2), (name, name, 3)]


def test_a_selection_that_matches_nothing_is_refused():
    assert "'last:7' needs a number of stages from 1 to 6" in line_of(planned, {"train": "last:7"}, epochs=5)
    assert "'from:stage9' names no stage" in line_of(planned, {"epochs": 2}, {"train": "from:stage9"}, epochs=5)
