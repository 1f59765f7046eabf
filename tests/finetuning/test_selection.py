import pytest

from tl_lightning.backbones import Stage
from tl_lightning.errors import UserError
from tl_lightning.finetuning.selection import frozen_stages, select

STAGES = (
    Stage("stem", ("stem.conv.weight", "stem.bn.weight", "stem.bn.bias"), ()),
    Stage("blocks.0", ("blocks.0.a.weight", "blocks.0.b.weight"), ()),
    Stage("blocks.1", ("blocks.1.a.weight", "blocks.1.b.weight"), ()),
    Stage("blocks.10", ("blocks.10.a.weight", "blocks.10.b.weight"), ()),
)
TOP = {"blocks.10.a.weight", "blocks.10.b.weight"}
SECOND = {"blocks.1.a.weight", "blocks.1.b.weight"}
EVERY = {name for stage in STAGES for name in stage.parameters}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("head", set()),
        ("all", EVERY),
        ("last:1", TOP),
        ("last:2", TOP | SECOND),
        ("last:4", EVERY),
        ("from:blocks.1", TOP | SECOND),
        ("from:stem", EVERY),
        # Eight layers: stem.conv, stem.bn, and an a and a b in each of three blocks.
        ("layers:-2:", TOP),
        ("layers:7:", {"blocks.10.b.weight"}),
        ("layers:75%:", TOP),
        ("layers::2", {"stem.conv.weight", "stem.bn.weight", "stem.bn.bias"}),
        ("layers:1:2", {"stem.bn.weight", "stem.bn.bias"}),
        ("regex:bn", {"stem.bn.weight", "stem.bn.bias"}),
        (r"regex:^blocks\.1\.", SECOND),
    ],
)
def test_selection_names_exactly_these_parameters(selection, expected):
    assert select(STAGES, selection) == expected


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("last:0", "from 1 to 4 (stem, blocks.0, blocks.1, blocks.10)"),
        ("last:5", "from 1 to 4"),
        ("last:x", "from 1 to 4"),
        ("from:blocks.3", "did you mean blocks.1"),
        ("from:nothing", "stages: stem, blocks.0, blocks.1, blocks.10"),
        ("layers:8:", "selects none of the backbone's 8 layers"),
        ("layers:5", "not a slice"),
        ("regex:^conv", "matches no parameter"),
        ("regex:(", "not a regular expression"),
        ("haed", "did you mean head?"),
        ("", "forms: head | last:N"),
    ],
)
def test_what_selects_nothing_is_an_error_that_names_the_valid_words(selection, words):
    with pytest.raises(UserError) as error:
        select(STAGES, selection)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ("head", 4),
        ("all", 0),
        ("last:1", 3),
        ("from:blocks.0", 1),
        ("layers:7:", 3),
        ("layers::2", 0),
        (r"regex:^blocks\.1\.", 2),  # what lies above is frozen too, but its input changes
        ("regex:bn", 0),
    ],
)
def test_the_stages_below_the_first_that_trains_are_frozen(selection, count):
    assert frozen_stages(STAGES, selection) == count
