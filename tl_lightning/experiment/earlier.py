"""What earlier versions called otherwise: their run folders go on as they are."""

from collections.abc import Mapping
from typing import Any

import yaml

from tl_lightning.core.run_folder import RunFolder


def precision_of(checkpoint: Mapping[str, Any]) -> list[str]:
    """The arguments that give the arithmetic that a checkpoint was trained in, to stand behind configurations.

    Args:
        checkpoint: Its content; those of earlier versions leave it to the configuration.
    """
    return ["--trainer.precision", checkpoint["precision"]] if "precision" in checkpoint else []


def configuration_of(folder: RunFolder) -> list[str]:
    """The arguments that give a run's own configuration, in today's words.

    Args:
        folder: A run folder with a ``config.yaml``.
    """
    content: dict[str, Any] = yaml.safe_load(folder.config.read_text())
    data = content.get("data", {}).get("init_args", {})
    if data.pop("answers", None) is None:  # it came from the task, as `problem_type` does now
        return ["--config", str(folder.config)]
    return ["--config", yaml.safe_dump(content)]
