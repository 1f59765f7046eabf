import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tl_lightning.backbones import Backbone
from tl_lightning.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def line_of() -> Callable[..., str]:
    """Calls something that has to fail for the user, and hands back the one line that it says."""

    def call(function, *arguments, **options) -> str:
        with pytest.raises(UserError) as caught:
            function(*arguments, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call


@pytest.fixture
def write_run(tmp_path) -> Callable[..., Path]:
    """Writes what a run leaves behind: its best checkpoint and its summary."""

    def write(backbone: Backbone, folder: str = "run") -> Path:
        run = tmp_path / folder
        (run / "checkpoints").mkdir(parents=True)
        state = {f"backbone.{name}": tensor for name, tensor in backbone.module.state_dict().items()}
        parameters = {"backbone": backbone.name, "preprocess": backbone.preprocess.to_dict(), "lr": 1e-3}
        torch.save(
            {"state_dict": {**state, "head.weight": torch.zeros(2, 2)}, "hyper_parameters": parameters},
            run / "checkpoints" / "best.ckpt",
        )
        summary = {"status": "done", "backbone": {"name": backbone.name, "lineage": list(backbone.lineage)}}
        (run / "summary.json").write_text(json.dumps(summary))
        return run

    return write
