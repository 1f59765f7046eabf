"""What a comparison runs, from the words of its options."""

import pytest

from tl_lightning.choosing.comparing.strategies import Job, Strategy, list_jobs, parse_fractions, parse_strategies
from tl_lightning.errors import UserError


def test_strategies_are_presets_the_configuration_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("slow.yaml", "other.yaml"):
        (tmp_path / name).write_text("model: {lr: 0.001}\n")
    parsed = parse_strategies("scratch, lp_ft,config,slow.yaml,named=other.yaml", reference="scratch")
    assert parsed == [
        Strategy("scratch", ("--phases", "scratch", "--forgetting.source", "null")),
        Strategy("lp_ft", ("--phases", "lp_ft")),
        Strategy("config"),
        Strategy("slow", ("--config", "slow.yaml")),
        Strategy("named", ("--config", "other.yaml")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scratch,partail", "'partail' is no strategy; did you mean partial"),
        ("scratch,partial,partial", "partial stands there twice"),
        ("partial,full", "--reference scratch is not among the strategies (--strategies: partial, full)"),
        ("scratch", "names only scratch; give two or more"),
        ("scratch,mine.yaml", "there is no file mine.yaml; did you mean mien.yaml?"),
        ("scratch,full=mien.yaml", "full is a strategy of its own; give the file another name: NAME=mien.yaml"),
        ("scratch,a/b=mien.yaml", "'a/b' cannot be a name"),
    ],
)
def test_a_wrong_strategy_is_said(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mien.yaml").write_text("{}")
    with pytest.raises(UserError) as error:
        parse_strategies(text, reference="scratch")
    assert message in str(error.value)


def test_shares_are_sorted_and_stand_in_the_names_of_folders_as_they_are():
    assert parse_fractions(None) == [None]
    assert parse_fractions("1,0.1, 0.25") == [0.1, 0.25, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0", "0 must be above 0 and at most 1"),
        ("1.5", "1.5 must be above 0 and at most 1"),
        ("half", "'half' is no number"),
        ("0.5,0.50", "0.5 stands there twice"),
        ("nan", "nan must be above 0"),
    ],
)
def test_a_wrong_share_is_said(text, message):
    with pytest.raises(UserError, match=message):
        parse_fractions(text)


def test_runs_come_seed_by_seed_and_the_whole_set_is_named_without_a_share():
    full, scratch = Strategy("full", ("--phases", "full")), Strategy("scratch", ("--phases", "scratch"))
    jobs = list_jobs([scratch, full], [0.5, 1.0], seeds=2, first_seed=7)
    assert [job.name for job in jobs] == [
        *("scratch-0.5-seed7", "full-0.5-seed7", "scratch-seed7", "full-seed7"),
        *("scratch-0.5-seed8", "full-0.5-seed8", "scratch-seed8", "full-seed8"),
    ]
    assert jobs[1].options == ["--phases", "full", "--data.labelled_fraction", "0.5", "--seed_everything", "7"]
    assert Job(full, None, 3).options == ["--phases", "full", "--seed_everything", "3"]


def test_two_runs_never_share_a_folder():
    ambiguous = [Strategy("a"), Strategy("a-0.5")]
    with pytest.raises(UserError, match=r"would both write a-0.5-seed0"):
        list_jobs(ambiguous, [0.5, 1.0], seeds=1, first_seed=0)
    with pytest.raises(UserError, match="--seeds is 0"):
        list_jobs(ambiguous, [None], seeds=0, first_seed=0)
