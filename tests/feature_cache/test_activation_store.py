import errno
import json
import multiprocessing
import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tl_lightning.core.cache_folder import cache_dir, entries, remove
from tl_lightning.core.cache_room import NoRoom
from tl_lightning.feature_cache import activation_store as activations
from tl_lightning.feature_cache.activation_store import ActivationStore, TensorLayout

FEATURES = TensorLayout((5,), "float32", False)
MAPS = TensorLayout((3, 2, 4), "bfloat16", True)
ROWS = 40


def opened(*layouts, identity="weights", rows=ROWS):
    return ActivationStore.open({"weights": identity}, rows, layouts or (FEATURES,), about={"cut": "blocks.3"})


def batch(indices, layout=FEATURES):
    """What belongs into these rows: a function of the row alone."""
    rows = [torch.rand(layout.shape, generator=torch.Generator().manual_seed(int(row))) for row in indices]
    tensor = torch.stack(rows).to(layout.torch_dtype)
    return tensor.contiguous(memory_format=torch.channels_last) if layout.channels_last else tensor


def size_of(store):
    """Bytes of its rows and flags on the disk, holes included."""
    return sum(path.stat().st_size for path in store.folder.glob("*.bin"))


def filled(indices, *layouts):
    store = opened(*layouts)
    store.write(indices, [batch(indices, layout) for layout in store.layouts])
    store.commit()
    return store


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["torch", "pytest", "tl_lightning.feature_cache.activation_store"]
)  # imported once for all of them


def start(work, *args):
    """Starts a process on the same cache; gives it, and the line to it that is its function's first argument."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=in_the_same_cache, args=(str(cache_dir()), work, theirs, *args))
    process.start()
    theirs.close()
    return process, ours


def in_the_same_cache(folder, work, line, *args):
    os.environ["TL_CACHE_DIR"] = folder
    torch.set_num_threads(1)
    work(line, *args)


def end(process, line):
    process.join(timeout=60)
    line.close()
    assert process.exitcode == 0


@pytest.mark.parametrize(
    "layout",
    [
        FEATURES,
        MAPS,
        TensorLayout((3, 2, 4), "float16", False),
        TensorLayout((7, 6), "float64", False),
        TensorLayout((), "bfloat16", False),
        TensorLayout((1,), "uint8", False),
    ],
)
@pytest.mark.parametrize("order", [[4, 5, 6, 7], [4, 6, 5, 7], [9, 2, 30, 3], [6, 5, 4], [12]])
def test_rows_come_back_as_they_were_written(layout, order):
    indices = np.array(order)
    expected = batch(indices, layout) if layout.dtype != "uint8" else torch.tensor([[row] for row in order]).byte()
    store = opened(layout)
    store.write(indices, [expected])
    store.commit()
    for again in (store, opened(layout)):
        (tensor,) = again.read(indices)
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected)
        if layout.channels_last:
            assert tensor.is_contiguous(memory_format=torch.channels_last)
        (flipped,) = again.read(indices[::-1])
        assert torch.equal(flipped, expected.flip(0))


def test_what_is_read_is_a_copy():
    store = filled(np.arange(4))
    store.read(np.arange(4))[0].zero_()
    assert torch.equal(store.read(np.arange(4))[0], batch(range(4)))


def test_several_tensors_of_a_row_stay_together():
    indices = np.array([8, 3, 4])
    store = filled(indices, FEATURES, MAPS)
    features, maps = store.read(np.array([4, 8]))
    assert torch.equal(features, batch([4, 8])) and torch.equal(maps, batch([4, 8], MAPS))
    assert store.row_bytes == 5 * 4 + 24 * 2
    assert size_of(store) == ROWS * (store.row_bytes + 1)


def test_only_what_is_written_takes_space():
    layout = TensorLayout((2**20,), "float32", False)
    store = opened(layout, rows=1000)
    assert (store.folder / "tensor0.bin").stat().st_size == 1000 * 2**22
    store.write(np.array([500]), [torch.ones(1, 2**20)])
    store.commit()
    (entry,) = entries()
    assert entry.reserved >= size_of(store) > 4 * 10**9
    assert 2**22 <= entry.bytes < 2**23


def test_rows_count_as_missing_until_they_are_committed():
    store = opened()
    indices = np.array([7, 1, 3])
    assert store.missing(indices).tolist() == [7, 1, 3]
    store.write(indices[:2], [batch(indices[:2])])
    assert store.missing(indices).tolist() == [7, 1, 3]
    with pytest.raises(IndexError, match=r"2 of 2 rows are not computed yet, such as 7"):
        store.read(indices[:2])
    store.commit()
    assert store.missing(indices).tolist() == opened().missing(indices).tolist() == [3]
    with pytest.raises(IndexError, match=r"1 of 3 rows are not computed yet, such as 3"):
        store.read(indices)
    with pytest.raises(IndexError, match="not computed yet"):
        store.rows(indices)


@pytest.mark.parametrize("index", [-1, ROWS])
def test_rows_that_do_not_exist_are_neither_read_nor_written(index):
    store = filled(np.arange(ROWS))
    with pytest.raises(IndexError, match="store with 40 rows"):
        store.read(np.array([0, index]))
    with pytest.raises(IndexError, match="store with 40 rows"):
        store.write(np.array([index]), [batch([0])])


def test_data_are_on_the_disk_before_the_flags(monkeypatch):
    store = opened(FEATURES, MAPS)
    names, order = {}, []
    real_open, real_fsync = os.open, os.fsync

    def note_open(path, *args):
        descriptor = real_open(path, *args)
        names[descriptor] = os.path.basename(path)
        return descriptor

    def note_write(descriptor, data, offset):
        order.append(f"write {names[descriptor]}")
        return real_write(descriptor, data, offset)

    def note_fsync(descriptor):
        order.append(f"flush {names[descriptor]}")
        real_fsync(descriptor)

    real_write = os.pwrite
    monkeypatch.setattr("os.open", note_open)
    monkeypatch.setattr("os.pwrite", note_write)
    monkeypatch.setattr("os.fsync", note_fsync)
    store.write(np.arange(3), [batch(range(3)), batch(range(3), MAPS)])
    store.commit()
    assert order == [
        *("write tensor0.bin", "write tensor1.bin", "flush tensor0.bin", "flush tensor1.bin"),
        *("write done.bin", "flush done.bin"),
    ]


def test_consecutive_rows_are_written_at_once(monkeypatch):
    store = opened()
    offsets, real = [], os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, data, offset: offsets.append(offset) or real(file, data, offset))
    indices = np.array([3, 4, 5, 9, 10, 2])
    store.write(indices, [batch(indices)])
    assert offsets == [3 * 20, 9 * 20, 2 * 20]


def test_a_write_that_the_system_takes_in_parts_is_finished(monkeypatch):
    real = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, data, offset: real(file, data[:7], offset))
    assert torch.equal(filled(np.arange(9)).read(np.arange(9))[0], batch(range(9)))


def test_a_row_that_is_done_is_not_written_again():
    store = filled(np.array([2, 3]))
    store.write(np.array([1, 2, 3, 4]), [torch.zeros(4, 5)])
    store.commit()
    assert torch.equal(store.read(np.array([2, 3]))[0], batch([2, 3]))
    assert not store.read(np.array([1, 4]))[0].any()


@pytest.mark.parametrize("tensor", [torch.ones(2, 4), torch.ones(3, 5), torch.ones(2, 5).half()])
def test_tensors_of_another_layout_are_refused(tensor):
    with pytest.raises(ValueError, match="2 rows of TensorLayout"):
        opened().write(np.arange(2), [tensor])


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_is_an_error_and_leaves_rows_missing(monkeypatch, call):
    store = filled(np.arange(3))

    def fill(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fill)
        with pytest.raises(OSError, match="No space left"):
            store.write(np.arange(3, 6), [batch(range(3, 6))])
            store.commit()
    store.commit()  # what once failed to reach the disk is never taken for done
    assert store.missing(np.arange(6)).tolist() == opened().missing(np.arange(6)).tolist() == [3, 4, 5]
    assert torch.equal(store.read(np.arange(3))[0], batch(range(3)))


def test_a_store_without_room_is_not_made(monkeypatch):
    monkeypatch.setenv("TL_CACHE_SIZE", "839B")
    with pytest.raises(NoRoom):
        opened()
    assert entries() == []
    monkeypatch.setenv("TL_CACHE_SIZE", "840B")
    assert size_of(opened()) == 840


def test_opening_holds():
    store = opened()
    assert not remove(store.folder)
    folder = store.folder
    del store
    assert remove(folder)


def test_another_identity_or_list_is_another_store():
    keys = {opened().key, opened(identity="others").key, opened(rows=ROWS + 1).key}
    assert len(keys) == 3 and opened().key in keys


@pytest.mark.parametrize("layouts", [(MAPS,), (FEATURES, FEATURES)])
def test_another_layout_under_the_same_identity_takes_the_place_of_what_was_there(layouts):
    indices = np.arange(ROWS)
    first, second = filled(indices), opened(*layouts)
    assert second.key == first.key
    assert second.missing(indices).tolist() == indices.tolist()


def test_the_store_says_what_it_is():
    store = opened()
    assert json.loads((store.folder / "about.json").read_text()) == {"cut": "blocks.3", "rows": ROWS}
    assert json.loads((store.folder / "layout.json").read_text())["identity"] == {"weights": "weights"}
    assert (store.folder.name, store.folder.parent) == (store.key, cache_dir() / "activations")
    assert len(store) == ROWS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("done.bin", b"\1" * (ROWS - 1)),
        ("tensor0.bin", b"\1" * (ROWS * 20 - 1)),
        ("tensor0.bin", None),
        ("layout.json", b"{}"),
        ("layout.json", b"\xff"),
        ("about.json", b"{"),
        ("about.json", None),
    ],
)
def test_a_damaged_store_is_made_anew(name, content):
    path = filled(np.arange(3)).folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    store = opened()
    assert store.missing(np.arange(3)).tolist() == [0, 1, 2]
    assert torch.equal(filled(np.arange(3)).read(np.arange(3))[0], batch(range(3)))
    assert [path.name for path in store.folder.parent.iterdir() if path.is_dir()] == [store.key]


def test_a_flag_that_is_none_counts_as_missing():
    store = filled(np.arange(3))
    (store.folder / "done.bin").write_bytes(b"\1\7\1" + bytes(ROWS - 3))
    assert opened().missing(np.arange(3)).tolist() == [1]


def test_a_pickled_store_carries_neither_files_nor_rows_nor_the_hold():
    store = opened()
    store.write(np.arange(2), [batch(range(2))])
    store.commit()
    store.read(np.arange(2))
    store.write(np.arange(2, 4), [batch(range(2, 4))])
    copy = pickle.loads(pickle.dumps(store))
    assert copy._maps == copy._files == copy._written == []
    assert torch.equal(copy.read(np.arange(2))[0], batch(range(2)))
    copy.commit()
    assert copy.missing(np.arange(4)).tolist() == [2, 3]
    folder = store.folder
    del store
    assert remove(folder)


class Stored(torch.utils.data.Dataset):
    def __init__(self, store):
        self.store = store

    def __getitems__(self, indices):
        return self.store.read(np.array(indices))[0]


def as_it_is(tensor):
    return tensor


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_worker_processes_read_and_end_without_ending_the_hold(context):
    store = filled(np.arange(8))
    loader = DataLoader(
        Stored(store),
        batch_sampler=[[0, 1, 2], [7, 4]],
        num_workers=1,
        collate_fn=as_it_is,
        multiprocessing_context=context,
    )
    assert torch.equal(torch.cat(list(loader)), batch([0, 1, 2, 7, 4]))
    assert not remove(store.folder)


def test_rows_are_a_matrix_read_by_slices():
    indices = np.array([3, 4, 5, 6, 20, 1])
    store = filled(indices, FEATURES, TensorLayout((4,), "bfloat16", False))
    matrix = store.rows(indices, 1)
    expected = batch(indices, store.layouts[1])
    assert (matrix.shape, len(matrix)) == ((6, 4), 6)
    for part in (slice(None), slice(0, 4), slice(2, 6), slice(5, 5), slice(0, 6, 2)):
        assert torch.equal(matrix[part], expected[part])
    assert matrix[1:3].dtype == torch.bfloat16


def test_rows_of_a_tensor_with_several_dimensions_are_no_matrix():
    with pytest.raises(ValueError, match="values to unpack"):
        filled(np.arange(2), MAPS).rows(np.arange(2))


def test_another_split_fills_what_is_missing():
    filled(np.arange(0, 20))
    store = opened()
    wanted = np.arange(10, 30)
    assert store.missing(wanted).tolist() == list(range(20, 30))
    filled(store.missing(wanted))
    assert torch.equal(store.read(wanted)[0], batch(wanted))


def write_a_share(_line, rank):
    store = opened(FEATURES, MAPS)
    for part in np.array_split(np.arange(ROWS)[rank::2], 5):
        store.write(part, [batch(part), batch(part, MAPS)])
        store.commit()


def test_two_ranks_fill_disjoint_rows_of_one_store():
    store = opened(FEATURES, MAPS)
    for rank in [start(write_a_share, rank) for rank in range(2)]:
        end(*rank)
    features, maps = store.read(np.arange(ROWS))
    assert torch.equal(features, batch(range(ROWS))) and torch.equal(maps, batch(range(ROWS), MAPS))


def compute_what_is_missing(line, first, last):
    store = opened()
    line.send("ready")
    line.recv()
    with store.building():
        missing = store.missing(np.arange(first, last))
        for part in np.array_split(missing, 4):
            store.write(part, [batch(part)])
            store.commit()
    line.send(missing.tolist())


def test_two_processes_compute_each_row_once():
    builders = [start(compute_what_is_missing, *share) for share in ((0, 30), (10, ROWS))]
    assert [line.recv() for _, line in builders] == ["ready", "ready"]
    for _, line in builders:
        line.send("go")
    computed = [row for _, line in builders for row in line.recv()]
    assert sorted(computed) == list(range(ROWS))
    for builder in builders:
        end(*builder)
    assert torch.equal(opened().read(np.arange(ROWS))[0], batch(range(ROWS)))


def write_and_wait(line):
    store = opened()
    with store.building():
        store.write(np.arange(4), [batch(range(4))])
        store.commit()
        store.write(np.arange(4, 9), [batch(range(4, 9))])
        line.send("ready")
        line.recv()


def test_a_killed_writer_leaves_its_commits_and_nothing_else():
    victim, line = start(write_and_wait)
    assert line.recv() == "ready"
    victim.kill()
    victim.join()
    line.close()
    store = opened()
    with store.building():
        assert store.missing(np.arange(12)).tolist() == list(range(4, 12))
    assert torch.equal(store.read(np.arange(4))[0], batch(range(4)))
    with pytest.raises(IndexError):
        store.read(np.arange(5))
    filled(np.arange(12))
    assert torch.equal(store.read(np.arange(12))[0], batch(range(12)))


def test_building_learns_what_was_done_while_it_waited(monkeypatch):
    store = opened()
    real, waited = activations.building, []

    def wait(folder, *, on_wait):
        on_wait()
        filled(np.arange(4))
        return real(folder, on_wait=on_wait)

    monkeypatch.setattr(activations, "building", wait)
    with store.building(on_wait=lambda: waited.append(True)):
        assert torch.equal(store._read(0, np.flatnonzero(store._done)), batch(range(4)))
    assert waited == [True]
