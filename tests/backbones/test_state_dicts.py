import pytest
import torch
from safetensors.torch import save_file

from tl_lightning.backbones.state_dicts import match, tensors_in
from tl_lightning.core.checkpoint_files import read_checkpoint

WANTED = {"stem.weight": torch.zeros(4, 3), "stem.bias": torch.zeros(4), "fc.weight": torch.zeros(10, 4)}
BACKBONE = {"stem.weight", "stem.bias"}


def found(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("_", ".", 1): torch.ones(shape) for name, shape in shapes.items()}


def test_by_name_the_classifier_may_be_missing_or_anothers():
    for file in (
        found(stem_bias=(4,), stem_weight=(4, 3)),
        found(stem_bias=(4,), stem_weight=(4, 3), fc_weight=(2, 4)),
    ):
        fitting, how = match(file, WANTED, backbone=BACKBONE, known=())
        assert (set(fitting), how) == (BACKBONE, "name")


def test_by_name_old_files_without_batch_counters_fit():
    wanted = {**WANTED, "stem.num_batches_tracked": torch.zeros(())}
    names = {*BACKBONE, "stem.num_batches_tracked"}
    assert match(found(stem_weight=(4, 3), stem_bias=(4,)), wanted, backbone=names, known=())[1] == "name"


def test_by_position_every_shape_has_to_agree(line_of):
    fitting, how = match(found(a=(4, 3), b=(4,), c=(10, 4)), WANTED, backbone=BACKBONE, known=())
    assert (list(fitting), how) == (list(WANTED), "position")
    line = line_of(match, found(a=(4, 3), b=(5,), c=(10, 4)), WANTED, backbone=BACKBONE, known=())
    assert line == (
        "of the model's 3 tensors 0 agree by name and 2 in shape by position (the file holds 3); the first that does "
        "not: b (5,) in the file where the model has stem.bias (4,)"
    )
    line = line_of(match, found(a=(4, 3), b=(4,)), WANTED, backbone=BACKBONE, known=())
    assert line.endswith("the first that does not: the file holds 2 tensors, the model 3")
    assert "c (1,)" in line_of(match, found(a=(4, 3), b=(4,), c=(1,), d=(10, 4)), WANTED, backbone=BACKBONE, known=())


def test_by_name_a_deeper_model_of_the_same_family_is_refused(line_of):
    deeper = found(stem_weight=(4, 3), stem_bias=(4,), fc_weight=(10, 4), **{"stem_block.weight": (4, 4)})
    line = line_of(match, deeper, WANTED, backbone=BACKBONE, known=())
    assert line.endswith("the first that does not: stem.block.weight: only in the file")
    assert match(deeper, WANTED, backbone=BACKBONE, known={"stem.block.weight"})[1] == "name"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model_ema": {"a": torch.ones(7)}, "model": tensors},
        lambda tensors: {"state_dict": {"a": torch.ones(7)}, "state_dict_ema": tensors},  # as timm loads its own
        lambda tensors: {"model_state": {f"module.{name}": tensor for name, tensor in tensors.items()}},
    ],
)
def test_the_usual_wrappings_are_taken_off(wrap, tmp_path):
    torch.save(wrap({"a": torch.ones(2), "b": torch.zeros(3)}), tmp_path / "weights.pth")
    tensors = tensors_in(read_checkpoint(tmp_path / "weights.pth"), tmp_path / "weights.pth")
    assert list(tensors) == ["a", "b"]
    assert torch.equal(tensors["a"], torch.ones(2))


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "model._orig_mod.", "net.encoder."])
def test_names_may_stand_behind_a_prefix_beside_other_tensors(prefix):
    behind = {"loss.weight": torch.ones(2), **{prefix + name: tensor for name, tensor in WANTED.items()}}
    fitting, matched = match(behind, WANTED, backbone=BACKBONE, known=())
    assert matched == "name"
    assert all(fitting[name] is tensor for name, tensor in WANTED.items())


def test_two_models_in_one_file_are_not_chosen_from(line_of):
    both = {prefix + name: tensor for prefix in ("student.", "teacher.") for name, tensor in WANTED.items()}
    assert "agree by name" in line_of(match, both, WANTED, backbone=BACKBONE, known=())


def test_safetensors_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "weights.safetensors")["a"], torch.ones(2))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(zipped, tmp_path, line_of):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"a": torch.ones(2), "b": Touch(str(trace))}, path, _use_new_zipfile_serialization=zipped)
    line = line_of(read_checkpoint, path)
    assert line.startswith(f"{path} is refused, since reading it would run code")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_file_that_holds_no_weights_is_one_clear_line(name, content, tmp_path, line_of):
    (tmp_path / name).write_bytes(content)
    assert line_of(read_checkpoint, tmp_path / name).startswith(f"{tmp_path / name} ")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(2)], {}])
def test_a_file_without_named_tensors_is_one_clear_line(content, tmp_path, line_of):
    torch.save(content, tmp_path / "x.pth")
    assert "holds no tensors by name" in line_of(tensors_in, read_checkpoint(tmp_path / "x.pth"), tmp_path / "x.pth")
