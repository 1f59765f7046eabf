"""What earlier versions called otherwise: their run folders go on as they are."""

from collections.abc import Mapping
from typing import Any

from tl_lightning.core.run_folder import RunFolder
from tl_lightning.core.yaml_files import mapping_in, read_mapping, to_yaml


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
    content = read_mapping(folder.config)
    data = mapping_in(mapping_in(content, "data", folder.config), "init_args", folder.config)
    if data.pop("answers", None) is None:  # it came from the task, as `problem_type` does now
        return ["--config", str(folder.config)]
    return ["--config", to_yaml(content)]
