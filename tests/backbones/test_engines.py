"""What nothing trains, run by a compiled engine: the same numbers within the run's precision, or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tl_lightning.backbones import build_backbone, engines
from tl_lightning.backbones.engines import PAYS_FROM, ROWS, Compiled, Refused, build_engine, full, pick_engine
from tl_lightning.backbones.macs import count_macs
from tl_lightning.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    made = build_backbone("timm/mobilenetv2_035", "none")
    made.module.eval().to(memory_format=torch.channels_last)
    return made


def images(count: int, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)


def distance(made: Tensor, right: Tensor) -> float:
    return float((made.float() - right.float()).norm() / right.float().norm())


@pytest.mark.parametrize("bf16", [False, True])
def test_openvino_gives_what_eager_gives_whatever_the_number_of_samples(backbone, bf16, capsys):
    compiled, batch = Compiled(backbone.module, "openvino"), images(21)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        whole, own = compiled(batch), backbone.module(batch)
        again, few, one = compiled(batch), compiled(batch[:13]), compiled(batch[20:])
        with torch.autocast("cpu", enabled=False):
            exact = backbone.module(batch)
    assert compiled.engine == "openvino"
    assert whole.dtype == own.dtype and whole.shape == own.shape
    if bf16:
        assert distance(whole, exact) < 1.25 * distance(own, exact)
    else:
        assert distance(whole, exact) < 1e-5
    assert torch.equal(whole, again) and torch.equal(whole[:13], few) and torch.equal(whole[20:], one)
    said = capsys.readouterr().out
    assert said.count("engine     openvino in " + ("bfloat16" if bf16 else "float32")) == 1 and "off float32" in said


def test_several_outputs_come_in_the_types_and_the_memory_of_eager_ones(backbone):
    stages, prefix = backbone.stage_outputs(), backbone.split(3).prefix
    batch = images(ROWS)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for module in (stages, prefix):
            own, made = module(batch), Compiled(module, "openvino", say=False)(batch)
            assert isinstance(made, tuple) and len(made) == len(own)
            for ours, theirs in zip(made, own, strict=True):
                assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
                assert distance(ours, theirs) < 2e-2


def test_each_size_has_an_engine_of_its_own(backbone):
    compiled = Compiled(backbone.module, "openvino", say=False)
    with torch.no_grad():
        for size in (64, 96, 64):
            assert distance(compiled(images(3, size)), backbone.module(images(3, size))) < 1e-5
    assert len(compiled._runners) == 2 and compiled.engine == "openvino"


class Masked(nn.Module):
    """Of whole numbers and a mask, as text has them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(50, 16), nn.Linear(16, 8)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.linear(self.embedding(ids)).relu() * mask.unsqueeze(-1)
        return hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def test_several_inputs_whole_numbers_among_them():
    torch.manual_seed(0)
    model, ids = Masked().eval(), torch.randint(0, 50, (11, 7))
    mask = (torch.arange(7) < torch.randint(1, 8, (11, 1))).float()
    compiled = Compiled(model, "openvino", say=False)
    with torch.no_grad():
        assert distance(compiled(ids, mask), model(ids, mask)) < 1e-5
    assert compiled.engine == "openvino"


class Drawn(nn.Module):
    """Gives other numbers whenever it is traced."""

    def __init__(self, moved: float) -> None:
        super().__init__()
        self.linear, self.moved = nn.Linear(4, 4), moved

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (self.moved if torch.jit.is_tracing() else 0.0)


def test_what_an_engine_computes_otherwise_is_refused_in_one_line_and_eager_goes_on(capsys):
    model, x = Drawn(0.5).eval(), torch.randn(5, 4)
    compiled = Compiled(model, "openvino")
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x)) and torch.equal(compiled(x), model(x))
    assert compiled.engine == "eager"
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("engine     not openvino: what it computes is") and line.endswith("going on without")
    with torch.no_grad():
        build_engine("openvino", Drawn(0.0).eval(), [x], say=False)  # the same one, when it draws nothing


class Own(torch.autograd.Function):
    """An operation that no other engine knows."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.numpy() * 2)


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(self.linear(x).unsqueeze(-1) * torch.eye(4)).abs()


def test_a_model_that_an_engine_does_not_know_is_run_as_it_is(capsys):
    model, x = Foreign().eval(), torch.randn(3, 4)
    compiled = Compiled(model, "openvino")
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))
    assert compiled.engine == "eager" and capsys.readouterr().out.count("engine     not openvino: ") == 1


def test_weights_of_another_precision_are_refused():
    with pytest.raises(Refused, match=r"the weights are torch\.float64"), torch.no_grad():
        build_engine("openvino", nn.Linear(4, 4).double(), [torch.randn(2, 4).double()], say=False)


def test_auto_compiles_from_the_work_on_that_pays_for_it(backbone):
    macs = count_macs(backbone.module, backbone.preprocess)
    enough = -int(-PAYS_FROM // macs)
    assert pick_engine("auto", backbone, samples=enough, device=CPU) == "openvino"
    assert pick_engine("auto", backbone, samples=enough - 1, device=CPU) == "eager"
    assert pick_engine("auto", backbone, samples=10**9, device=torch.device("cuda")) == "eager"
    assert pick_engine("inductor", backbone, samples=1, device=CPU) == "inductor"
    with pytest.raises(UserError, match="engine is tensorrt; it must be one of auto, eager, openvino, inductor"):
        pick_engine("tensorrt", backbone, samples=1, device=CPU)


def test_without_the_package_auto_is_eager_and_asking_for_it_says_what_to_install(backbone, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert pick_engine("auto", backbone, samples=10**9, device=CPU) == "eager"
    with pytest.raises(UserError, match=r"needs the package openvino: pip install 'tl_lightning\[openvino\]'"):
        pick_engine("openvino", backbone, samples=1, device=CPU)


def test_full_repeats_the_last_row_in_the_same_memory_format():
    batch = images(5)
    filled = full(batch)
    assert filled.shape[0] == ROWS and torch.equal(filled[:5], batch) and torch.equal(filled[5:], batch[[4, 4, 4]])
    assert filled.is_contiguous(memory_format=torch.channels_last)
    assert full(filled) is filled


def test_nothing_is_left_in_the_home_folder_nor_reported(tmp_path: Path):
    code = (
        "import torch, sys; from torch import nn; from tl_lightning.backbones.engines import build_engine\n"
        "with torch.no_grad(): build_engine('openvino', nn.Linear(4, 4).eval(), [torch.randn(2, 4)], say=False)\n"
        "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None"
    )
    environment = {**__import__("os").environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []
