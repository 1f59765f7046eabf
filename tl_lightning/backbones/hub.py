"""Whether the machines that keep pretrained weights can be reached, asked once and answered within seconds.

huggingface_hub repeats a failed request with growing pauses (46 s measured for one model) before it gives up; so a
single request that is not repeated goes first.
"""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

TIMEOUT_S = 5.0
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def weights_problem(config: "PretrainedCfg", *, timeout: float = TIMEOUT_S) -> str | None:
    """Says why a model's pretrained weights cannot be fetched.

    Args:
        config: timm's record of where they are.
        timeout: Seconds to wait for an answer.

    Returns:
        The reason, or `None` if they are on this machine already or can be asked for.
    """
    if config.hf_hub_id:
        return hub_problem(config.hf_hub_id, _files(config), timeout=timeout)
    if config.url:
        return _url_problem(_url(config), timeout=timeout)
    return None if config.file else "timm has no pretrained weights for this model"


def weights_are_here(config: "PretrainedCfg") -> bool:
    """Whether a model's pretrained weights are on this machine, so that no network is needed."""
    if config.hf_hub_id:
        return _is_cached(config.hf_hub_id, _files(config))
    return _downloaded(_url(config)).exists() if config.url else bool(config.file)


def _files(config: "PretrainedCfg") -> tuple[str, ...]:
    return (config.hf_hub_filename,) if config.hf_hub_filename else WEIGHT_FILES


def _url(config: "PretrainedCfg") -> str:
    assert config.url
    return config.url if isinstance(config.url, str) else config.url[0]


def _is_cached(hub_id: str, files: tuple[str, ...]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = hub_id.partition("@")
    return any(isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str) for file in files)


def hub_problem(hub_id: str, files: tuple[str, ...], *, timeout: float = TIMEOUT_S) -> str | None:
    """Says why a file on the Hugging Face hub cannot be fetched.

    Args:
        hub_id: ``org/model``, or ``org/model@revision``.
        files: Names that the file may have; the first is asked for.
        timeout: Seconds to wait for an answer.

    Returns:
        The reason, or `None` if one is on this machine already or can be asked for.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    if _is_cached(hub_id, files):
        return None
    repository, _, revision = hub_id.partition("@")
    url = hf_hub_url(repository, files[0], revision=revision or None)
    try:
        get_hf_file_metadata(url, timeout=timeout)
    except EntryNotFoundError:
        return None  # the repository answered; timm looks for the other file names itself
    except RepositoryNotFoundError:
        return f"the hub has no model {repository} that you may read"
    except Exception as error:  # the HTTP library below, and so what it raises, differs between releases
        return f"asking {urlparse(url).netloc} failed ({in_one_line(error)})"
    return None


def in_one_line(error: BaseException) -> str:
    """The first line of an error, or its kind where it has no words."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _downloaded(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlparse(url).path).name)


def _url_problem(url: str, *, timeout: float) -> str | None:
    if _downloaded(url).exists():
        return None
    try:
        with urlopen(Request(url, method="HEAD"), timeout=timeout):
            return None
    except HTTPError:
        return None  # it answered; whether it hands out the file is seen when asked for it
    except OSError as error:
        return f"asking {urlparse(url).netloc} failed ({in_one_line(error)})"
