from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tl_lightning.data.samples import Samples, Target
from tl_lightning.data.sources.read import read_source
from tl_lightning.data.splits import fold_numbers, folds_within, kin_numbers, split_samples
from tl_lightning.errors import UserError


def make(labels: list[int], *, split: list[str] | None = None, domains: list[str] | None = None) -> Samples:
    numbers = np.array(labels)
    return Samples(
        paths=[Path(f"{i}.png") for i in range(len(labels))],
        targets={"label": Target(numbers, [f"c{i}" for i in range(max(labels) + 1)])},
        split=None if split is None else np.array(split),
        strata=numbers,
        domains=None if domains is None else np.array(domains),
    )


def assert_partition(splits: dict[str, np.ndarray], count: int) -> None:
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(count))
    assert all((np.diff(indices) > 0).all() for indices in splits.values())


def test_elpv_has_656_test_rows_the_same_for_every_target() -> None:
    splits = {
        target: split_samples(read_source("elpv", target=target), "auto", seed=3)
        for target in ("defect", "level", "type")
    }
    assert_partition(splits["defect"], 2624)
    assert {name: len(rows) for name, rows in splits["defect"].items()} == {"train": 1673, "val": 295, "test": 656}
    for target in ("level", "type"):
        for name in ("train", "val", "test"):
            assert np.array_equal(splits["defect"][name], splits[target][name])


def test_elpv_test_rows_keep_the_strata_in_proportion() -> None:
    samples = read_source("elpv")
    test = split_samples(samples, "stratified", seed=0)["test"]
    shares = np.bincount(samples.strata[test]) - 0.25 * np.bincount(samples.strata)
    assert np.abs(shares).max() < 1


def test_seed_decides_the_draw() -> None:
    samples = make([0, 1] * 50)
    first, again, other = (split_samples(samples, "auto", seed=seed)["test"] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(5))
def test_small_classes_are_met_in_every_split_where_numbers_allow(seed: int) -> None:
    samples = make([0] * 40 + [1] * 3 + [2] * 2 + [3])
    splits = split_samples(samples, "stratified", seed=seed)
    assert_partition(splits, 46)
    counts = {name: np.bincount(samples.labels[rows], minlength=4)[1:].tolist() for name, rows in splits.items()}
    assert counts == {"train": [1, 1, 1], "val": [1, 0, 0], "test": [1, 1, 0]}


def test_large_fractions_leave_every_class_in_training() -> None:
    splits = split_samples(make([0] * 30 + [1] * 2), "stratified", seed=0, test_fraction=0.9, val_fraction=0.9)
    assert_partition(splits, 32)
    assert 1 in make([0] * 30 + [1] * 2).labels[splits["train"]]


def test_no_test_split_where_its_fraction_is_zero() -> None:
    for split in ("stratified", "blocks"):
        splits = split_samples(make([0, 1] * 10), split, seed=0, test_fraction=0)
        assert_partition(splits, 20)
        assert len(splits["test"]) == 0 and len(splits["val"]) in (3, 4)


def test_blocks_are_contiguous_and_validation_follows_the_test_block() -> None:
    samples = make([0, 1] * 20)
    splits = split_samples(samples, "blocks", seed=1, val_fraction=0.2)
    assert splits["test"].tolist() == list(range(10, 20)) and splits["val"].tolist() == list(range(20, 26))
    last = split_samples(samples, "blocks", seed=7, val_fraction=0.2)
    assert last["test"].tolist() == list(range(30, 40)) and last["val"].tolist() == list(range(6))
    assert_partition(last, 40)


def test_one_domain_trains_and_the_other_tests() -> None:
    samples = read_source("elpv")
    splits = split_samples(samples, "mono_to_poly", seed=0)
    assert samples.domains is not None
    assert_partition(splits, 2624)
    assert set(samples.domains[splits["test"]]) == {"poly"} and len(splits["test"]) == 1550
    assert set(samples.domains[splits["train"]]) == {"mono"} and len(splits["val"]) == round(0.15 * 1074)


def test_stated_splits_are_kept_and_validation_comes_out_of_training() -> None:
    stated = make([0, 1] * 4, split=["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    splits = split_samples(stated, "auto", seed=0)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [0, 1, 2, 3],
        "val": [4, 5],
        "test": [6, 7],
    }
    partly = make([0, 1] * 10, split=["train"] * 18 + ["test"] * 2)
    splits = split_samples(partly, "auto", seed=0)
    assert splits["test"].tolist() == [18, 19] and len(splits["val"]) == 3
    assert_partition(splits, 20)
    assert len(split_samples(make([0, 1] * 4, split=["train"] * 8), "auto", seed=0)["test"]) == 0


@pytest.mark.parametrize(
    ("split", "settings", "message"),
    [
        (
            "block",
            {},
            "data.split 'block' is unknown; valid here: auto, stratified, blocks, a_to_b, b_to_a; did you mean bl",
        ),
        ("a_to_c", {}, "data.split 'a_to_c' is unknown"),
        ("auto", {"val_fraction": 0.0}, "data.val_fraction is 0.0; it must lie between 0 and 1"),
        ("auto", {"test_fraction": 1.0}, "data.test_fraction is 1.0; it must be at least 0 and below 1"),
        ("auto", {"seed": -1}, "data.split_seed is -1; it must be 0 or more"),
        (
            "blocks",
            {"test_fraction": 0.8},
            "data.test_fraction is 0.8; with data.split blocks it must be a half, a third",
        ),
        (
            "blocks",
            {"seed": 0},
            "label 'c0' is in the test split of data.split 'blocks', but training has no image of it",
        ),
        ("a_to_b", {}, "label 'c1' is in the test split of data.split 'a_to_b', but training"),
    ],
)
def test_impossible_split_is_named(split: str, settings: dict[str, float], message: str) -> None:
    samples = make([0] * 5 + [1] * 15, domains=["a"] * 5 + ["b"] * 15)
    with pytest.raises(UserError) as error:
        split_samples(samples, split, **{"seed": 0, **settings})  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_too_few_images_for_a_validation_split_are_an_error() -> None:
    with pytest.raises(UserError, match="no image of 4 is left for the val split"):
        split_samples(make([0, 0, 1, 1]), "stratified", seed=0)


def grouped(sizes: list[int], labels: list[int] | None = None) -> Samples:
    groups = np.repeat([f"g{k}" for k in range(len(sizes))], sizes)
    samples = make(labels or [k % 2 for k in range(len(groups))])
    return replace(samples, groups=groups)


def groups_of(samples: Samples, rows: np.ndarray) -> set[str]:
    assert samples.groups is not None
    return set(samples.groups[rows].tolist())


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_on_both_sides(seed: int) -> None:
    samples = grouped([1 + k % 7 for k in range(60)])
    splits = split_samples(samples, "auto", seed=seed)
    assert_partition(splits, len(samples))
    parts = [groups_of(samples, rows) for rows in splits.values()]
    assert sum(map(len, parts)) == 60 == len(set.union(*parts))
    assert len(splits["test"]) == pytest.approx(0.25 * len(samples), abs=4)
    assert len(splits["val"]) == pytest.approx(0.15 * 0.75 * len(samples), abs=4)
    shares = [samples.labels[rows].mean() for rows in splits.values()]
    assert max(shares) - min(shares) < 0.15


def test_groups_keep_rare_classes_in_proportion() -> None:
    # Every fifth group holds the rare class alone.
    samples = grouped([10] * 50, [int(k // 10 % 5 == 0) for k in range(500)])
    test = split_samples(samples, "group", seed=0, test_fraction=0.2)["test"]
    assert np.bincount(samples.labels[test]).tolist() == [80, 20]


def test_a_split_that_tears_a_group_is_refused() -> None:
    samples = grouped([10] * 10)
    with pytest.raises(UserError, match=r"data.split 'stratified' is unknown; valid here: auto, group, blocks"):
        split_samples(samples, "stratified", seed=0)
    with pytest.raises(UserError, match="group 'g3' and 0 more are in the train split and the val split"):
        split_samples(samples, "blocks", seed=0, test_fraction=0.25)
    stated = replace(samples, split=np.array(["train"] * 95 + ["test"] * 5))
    with pytest.raises(UserError, match="group 'g9' and 0 more"):
        split_samples(stated, "auto", seed=0)


@pytest.mark.parametrize("split", ["stratified", "blocks", "group"])
def test_every_image_is_tested_in_one_fold(split: str) -> None:
    samples = make([0, 0, 1] * 40) if split != "group" else grouped([6] * 20, [0, 0, 1] * 40)
    tested = []
    for fold in range(4):
        splits = split_samples(samples, split, seed=1, fold=fold, folds=4)
        assert_partition(splits, 120)
        assert len(splits["test"]) == 30 and len(splits["val"]) == pytest.approx(13.5, abs=3)
        if split == "stratified":
            assert np.bincount(samples.labels[splits["test"]]).tolist() == [20, 10]
        tested.append(splits["test"])
    assert sorted(np.concatenate(tested).tolist()) == list(range(120))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 5}, "data.fold is 5; with data.folds 5 it must be from 0 to 4"),
        ({"fold": 0, "folds": 1}, "data.folds is 1; it must be from 2 to the number of images, 40"),
        ({"fold": 0, "split": "a_to_b"}, "data.fold is 0, but data.split a_to_b fixes what tests; say"),
        ({"fold": 0, "stated": True}, "data.fold is 0, but the source states its split; say --data.split stratified"),
    ],
)
def test_an_impossible_fold_is_named(settings: dict[str, object], message: str) -> None:
    stated = ["train"] * 30 + ["test"] * 10 if settings.pop("stated", False) else None
    samples = make([0, 1] * 20, domains=["a"] * 20 + ["b"] * 20, split=stated)
    split = str(settings.pop("split", "auto"))
    with pytest.raises(UserError) as error:
        split_samples(samples, split, seed=0, **settings)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_the_latest_are_tested_and_one_moment_stays_together() -> None:
    times = np.array([5.0, 1, 2, 3, 4, 6, 7, 8, 9, 9])
    samples = replace(make([0, 1] * 5), times=times)
    splits = split_samples(samples, "time", seed=0, test_fraction=0.2, val_fraction=0.25)
    assert {name: sorted(times[rows].tolist()) for name, rows in splits.items()} == {
        "train": [1, 2, 3, 4, 5, 6],
        "val": [7, 8],
        "test": [9, 9],
    }
    split_at_tie = split_samples(samples, "time", seed=0, test_fraction=0.1, val_fraction=0.25)
    assert sorted(times[split_at_tie["test"]].tolist()) == [9, 9]
    with pytest.raises(UserError, match=r"data.split is time, which takes a table with a column of times"):
        split_samples(make([0, 1] * 5), "time", seed=0)


def test_rare_labels_are_met_in_training() -> None:
    labels = np.zeros((60, 3), dtype=np.float32)
    labels[:, 0] = 1
    labels[::4, 1] = 1
    labels[[7, 30], 2] = 1
    strata = np.array([2 if row[2] else 1 if row[1] else 0 for row in labels])
    samples = replace(make([0] * 60), targets={"x": Target(labels, ["a", "b", "c"], "multilabel")}, strata=strata)
    for seed in range(5):
        splits = split_samples(samples, "auto", seed=seed)
        assert samples.counts(splits["train"])[2] == 1
        assert samples.counts(splits["test"])[1] == pytest.approx(4, abs=1)


@pytest.mark.parametrize("groups", [3, 4])
def test_each_part_gets_a_group_where_there_are_enough(groups: int) -> None:
    splits = split_samples(grouped([20] * groups), "group", seed=0)
    assert_partition(splits, 20 * groups)
    assert all(len(rows) >= 20 for rows in splits.values())


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(UserError, match=r"no group is left for fold 4 of 5; use fewer data.folds"):
        split_samples(grouped([20] * 4), "group", seed=0, fold=4, folds=5)


def test_numbers_take_two_images_to_be_scored() -> None:
    numbers = np.arange(10, dtype=np.float32)[:, None]
    samples = replace(make([0] * 10), targets={"x": Target(numbers, ["x"], "regression")})
    stated = replace(samples, split=np.array(["train"] * 7 + ["val"] * 2 + ["test"]))
    with pytest.raises(UserError, match=r"the test split of the source's own split has one image"):
        split_samples(stated, "auto", seed=0)


def test_a_share_of_the_labels_is_part_of_a_larger_one_and_leaves_the_test_images() -> None:
    samples = make([0] * 400 + [1] * 90 + [2] * 10)
    whole = split_samples(samples, "stratified", seed=0)
    before = {"train": np.array([], dtype=np.int64), "val": np.array([], dtype=np.int64)}
    for fraction in (0.01, 0.05, 0.2, 0.5, 1.0):
        splits = split_samples(samples, "stratified", seed=0, labelled_fraction=fraction)
        assert np.array_equal(splits["test"], whole["test"])
        for name in ("train", "val"):
            assert np.isin(before[name], splits[name]).all() and np.isin(splits[name], whole[name]).all()
            assert len(splits[name]) == pytest.approx(fraction * len(whole[name]), abs=1)
        counts, wanted = np.bincount(samples.labels[splits["train"]], minlength=3), np.array([255, 58, 6]) * fraction
        assert (counts >= 1).all() and (np.abs(counts - wanted) <= 2).all()
        before = splits
    assert all(np.array_equal(before[name], whole[name]) for name in whole)


def test_a_share_of_the_labels_takes_whole_groups() -> None:
    samples = grouped([10] * 40)
    splits = split_samples(samples, "group", seed=0, labelled_fraction=0.5)
    whole = split_samples(samples, "group", seed=0)
    for name in ("train", "val"):
        taken = groups_of(samples, splits[name])
        assert len(taken) * 10 == len(splits[name])
        assert 0.5 <= len(splits[name]) / len(whole[name]) <= 0.7


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_a_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"data\.labelled_fraction is"):
        split_samples(make([0, 1] * 20), "stratified", seed=0, labelled_fraction=fraction)


def test_a_cross_validation_within_some_images_divides_them_in_the_way_of_the_split() -> None:
    samples = make([0, 1] * 20)
    pool = np.arange(4, 31)
    parts = folds_within(samples, pool, "stratified", folds=4)
    assert np.sort(np.concatenate(parts)).tolist() == pool.tolist()
    assert [len(part) for part in parts] == [7, 7, 7, 6]
    assert all(abs(int(samples.labels[part].sum()) - 3) <= 1 for part in parts)
    again = folds_within(samples, pool, "stratified", folds=4)
    assert all(one.tolist() == other.tolist() for one, other in zip(parts, again, strict=True))
    blocks = folds_within(samples, pool, "blocks", folds=4)
    assert np.concatenate(blocks).tolist() == pool.tolist()


def test_what_is_kin_shares_a_number_and_a_fold() -> None:
    samples, pool = make([0, 1] * 20), np.arange(4, 31)
    parts = folds_within(samples, pool, "auto", folds=4)
    numbers = fold_numbers(samples, pool, "auto", folds=4)
    assert [pool[numbers == number].tolist() for number in range(4)] == [part.tolist() for part in parts]
    assert kin_numbers(samples, pool, "auto", folds=4) is None
    blocks = kin_numbers(samples, pool, "blocks", folds=4)
    assert blocks is not None and blocks.tolist() == [0] * 7 + [1] * 7 + [2] * 7 + [3] * 6
    grouped = replace(samples, groups=np.array([f"g{row // 10}" for row in range(40)]))
    kin = kin_numbers(grouped, pool, "auto", folds=5)
    assert kin is not None and kin.tolist() == [(row // 10) for row in pool]
    of_groups = fold_numbers(grouped, pool, "auto", folds=5)  # of four groups there are four folds
    assert sorted({*of_groups.tolist()}) == [0, 1, 2, 3]
    assert len({*zip(kin.tolist(), of_groups.tolist(), strict=True)}) == 4
