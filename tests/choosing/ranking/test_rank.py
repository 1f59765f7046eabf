"""``tl rank``: a table of backbones, the best first, beside random weights, with a sentence that says what follows."""

import csv
from pathlib import Path

import pytest
import torch
from pages import check_page
from rich.console import Console
from test_assess import assessment
from tiny import TINY, write_tiny

from tl_lightning.backbones import build_backbone
from tl_lightning.choosing.ranking import rank as module
from tl_lightning.choosing.ranking.candidates import Candidate
from tl_lightning.choosing.ranking.rank_report import Ranking, advice, rank_table, write_metrics
from tl_lightning.cli import main

PLAIN = [*TINY[: TINY.index("--model.backbone")], *TINY[TINY.index("--model.lr") :]]  # names no backbone
TWO = ["--backbones", "timm/test_efficientnet=start.pth,timm/test_resnet=other.pth"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    torch.save(build_backbone("timm/test_resnet", "none").module.state_dict(), "other.pth")
    return tmp_path


def metrics(file="rank.csv"):
    with Path(file).open() as lines:
        return list(csv.DictReader(lines))


def test_every_candidate_gets_a_row_and_random_weights_the_last(here, capsys):
    assert main(["rank", *PLAIN, *TWO]) == 0
    shown = capsys.readouterr().out
    rows = metrics()
    assert {row["backbone"] for row in rows[:2]} == {"timm/test_efficientnet", "timm/test_resnet"}
    assert [row["control"] for row in rows] == ["0", "0", "1"]
    assert (rows[2]["backbone"], rows[2]["weights"]) == ("timm/test_efficientnet", "none")
    assert rows[0]["accuracy"] >= rows[1]["accuracy"]
    assert (float(rows[0]["behind"]), rows[0]["leep"], rows[0]["image_size"]) == (0.0, "", "32")
    assert all(float(row["macs"]) > 0 and float(row["speed"]) > 0 and row["log_me"] for row in rows)
    for words in ("18 images, each by a head", "random weights (test_efficientnet)", "majority class", "best: "):
        assert words in shown
    assert "metrics in rank.csv, page in rank.html" in shown
    text = Path("rank.html").read_text()
    page = check_page(text)
    (chart,) = page.charts
    assert all(f">{name}</text>" in chart for name in ("test_efficientnet", "test_resnet"))
    assert f">{float(rows[0]['accuracy']):.3f} ± {float(rows[0]['standard_error']):.3f}</td>" in text
    assert not Path("rank.png").exists() and not Path("runs").exists()


def test_the_backbone_of_the_configuration_is_a_candidate_too(here, monkeypatch):
    given = []
    monkeypatch.setattr(module, "_ranking", lambda candidates, asked, args: given.append((candidates, asked)) or 1 / 0)
    own, named = Candidate("timm/test_efficientnet", "start.pth"), Candidate("timm/test_resnet", "none")
    other = Candidate("timm/test_vit", "none")
    monkeypatch.setattr(module, "available", lambda: ([other, own], ["left out"]))
    for options in (["--backbones", "timm/test_resnet=none"], ["--backbones", "timm/test_efficientnet=start.pth"], []):
        with pytest.raises(ZeroDivisionError):
            main(["rank", *TINY, *options])
    assert given == [([named, own], {own, named}), ([own], {own}), ([own, other], {own})]


def test_random_weights_that_are_named_are_the_control_and_run_once(here, monkeypatch):
    names = []
    real = module.measure
    monkeypatch.setattr(module, "measure", lambda args, each: names.append(each) or real(args, each))
    both = "timm/test_efficientnet=start.pth,timm/test_efficientnet=none"
    assert main(["rank", *PLAIN, "--backbones", both]) == 0
    assert len(names) == 2
    assert [row["control"] for row in metrics()] == ["0", "1"]


def test_what_does_not_take_the_images_is_left_out_unless_it_was_named(here, capsys, monkeypatch):
    wrong, right = Candidate("timm/test_vit", "start.pth"), Candidate("timm/test_efficientnet", "start.pth")
    monkeypatch.setattr(module, "available", lambda: ([wrong, right], []))
    assert main(["rank", *PLAIN]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert line.startswith("left out   test_vit: model.weights is 'start.pth', which does not fit timm/test_vit")
    assert len(metrics()) == 2
    assert main(["rank", *PLAIN, "--backbones", "timm/test_vit=start.pth,timm/test_efficientnet=start.pth"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not fit timm/test_vit" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([*TWO, "--run_dir", "run"], "--run_dir has no effect here"),
        ([*TWO, "--output", "nowhere/rank"], "--output nowhere/rank: there is no folder nowhere"),
        (["--backbones", "timm/test_vi=none"], "did you mean"),
        (["--backbones", "timm/test_vit=none"], "is what others are compared with; name another, too"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, words):
    assert main(["rank", *PLAIN, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_with_nothing_to_rank_it_is_one_line(here, capsys, monkeypatch):
    monkeypatch.setattr(module, "available", lambda: ([], []))
    assert main(["rank", *PLAIN]) == 2
    assert "there is no backbone to rank" in capsys.readouterr().err


def many(right, **options):
    return assessment([1] * right + [0] * (400 - right), backbone=f"timm/m{right}", **options)


def ranking(*found, control=200, problem_type="multiclass", baseline=0.5):
    return Ranking.of(found, many(control, weights="none"), problem_type=problem_type, baseline=baseline)


def test_the_best_stands_first_and_of_equals_the_cheaper_one():
    found = ranking(many(300), many(350, macs=9), many(350, macs=3))
    assert [(each.accuracy, each.macs) for each in found.found] == [(0.875, 3), (0.875, 9), (0.75, 1)]


def test_advice_names_the_cheapest_within_the_noise():
    said = advice(ranking(many(350, macs=100), many(348, macs=25), many(347, macs=50), many(300, macs=5)))
    assert said == (
        "best: m350, accuracy 0.875 ± 0.017; the cheapest within the noise of it: m348, 0.005 ± 0.004 behind for 25% "
        "of the arithmetic"
    )
    said = advice(ranking(many(350, macs=25), many(348, macs=100)))
    assert said.endswith("it is also the cheapest of those within the noise of it (m348)")
    assert advice(ranking(many(350), many(300))).endswith("no other is within the noise of it")


def test_advice_warns_where_random_weights_do_as_well():
    said = advice(ranking(many(202), many(199), control=200))
    assert "beware: it is +0.005 ± 0.004 ahead of random weights (m200), which is within the noise" in said
    assert "beware: it is -0.005 ± 0.004 ahead" in advice(ranking(many(198), control=200))
    said = advice(ranking(many(300), many(201), control=200))
    assert said.endswith("not shown to be better than random weights: m201") and "beware" not in said


def shown(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_columns_that_do_not_go_with_the_answers_are_left_out():
    text = shown(rank_table(ranking(many(350), many(349))))
    assert "H-score" in text and "LEEP" not in text and "within the noise" in text and "majority class" in text
    text = shown(rank_table(ranking(many(350), problem_type="regression", baseline=None)))
    assert "R2" in text and "majority" not in text


def test_the_metrics_of_labels_are_called_what_they_are(tmp_path):
    write_metrics(ranking(many(350), problem_type="multilabel"), tmp_path / "rank.csv")
    (row, control) = metrics(tmp_path / "rank.csv")
    assert (row["label_accuracy"], row["within_noise"], control["control"]) == ("0.875", "1", "1")
    assert (float(control["behind"]), control["within_noise"]) == (0.375, "0")
