"""Tensors from files that nobody has to trust, and whether they are a given model's."""

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from tl_lightning.errors import UserError

# Where training scripts keep the weights within their checkpoint. In timm's own the averaged ones come first, as its
# scores are theirs; elsewhere (DeiT, Swin) they are taken only where there are no others, as their authors do.
NESTINGS = ("state_dict_ema", "state_dict", "model", "model_state", "model_state_dict", "model_ema")


def tensors_in(checkpoint: object, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in what a file holds, whatever its training script wrapped around it.

    Args:
        checkpoint: What `read_checkpoint` returned.
        path: The file, for the error message.

    Returns:
        Tensors by name, in the file's order, without the ``module.`` that data parallel training puts in front.

    Raises:
        UserError: If there are no tensors.
    """
    while isinstance(checkpoint, Mapping):
        inner = next((checkpoint[key] for key in NESTINGS if isinstance(checkpoint.get(key), Mapping)), None)
        if inner is None:
            break
        checkpoint = inner
    items = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
    tensors = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"model.weights: {path} holds no tensors by name; a state dict is needed")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def match(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, backbone: Collection[str], known: Collection[str]
) -> tuple[dict[str, Tensor], str]:
    """Says which tensor of a file is which of the model, or that they are not the same model's.

    By name first: every backbone tensor has to be there in its shape, while the classifier may be missing or another's;
    all names may stand behind one word that a training script or a compiler put in front (``model.``, ``_orig_mod.``),
    beside tensors of its own. Else by position: accepted only if the number of tensors and every shape agree, in order.

    Args:
        found: The file's tensors by name, in its order.
        wanted: The model's state dict, with its pretraining classifier.
        backbone: The names in `wanted` that are not the classifier's.
        known: Further names that a file may hold without harm: tables that the model computes for itself.

    Returns:
        The file's tensors under the model's names, and ``"name"`` or ``"position"``.

    Raises:
        UserError: If neither fits: how much agrees, and the first that does not. The caller says whose weights.
    """
    found = _without_prefix(found, backbone)
    named = {name: found[name] for name in wanted if name in found and found[name].shape == wanted[name].shape}
    # Counters of batches are not in old files, and nothing that is computed depends on them.
    missing = [name for name in wanted if name in backbone and name not in named and "num_batches_tracked" not in name]
    # ResNet-34 holds all of ResNet-18: what is left over inside the backbone's own modules is another model's.
    modules = {name.partition(".")[0] for name in backbone}
    extra = [name for name in found if name.partition(".")[0] in modules and name not in wanted and name not in known]
    if not missing and not extra:
        return named, "name"

    pairs = list(zip(found.items(), wanted.items(), strict=False))
    differing = [pair for pair in pairs if pair[0][1].shape != pair[1][1].shape]
    if len(found) == len(wanted) and not differing:
        return {name: tensor for (_, tensor), (name, _) in pairs}, "position"

    if 2 * len(named) > len(wanted) and missing:
        shape = f"has {_shape(found[missing[0]])}" if missing[0] in found else "has none"
        first = f"{missing[0]}: the model has {_shape(wanted[missing[0]])}, the file {shape}"
    elif 2 * len(named) > len(wanted):
        first = f"{extra[0]}: only in the file"
    elif differing:
        (theirs, tensor), (ours, expected) = differing[0]
        first = f"{theirs} {_shape(tensor)} in the file where the model has {ours} {_shape(expected)}"
    else:
        first = f"the file holds {len(found)} tensors, the model {len(wanted)}"
    raise UserError(
        f"of the model's {len(wanted)} tensors {len(named)} agree by name and {len(pairs) - len(differing)} in shape "
        f"by position (the file holds {len(found)}); the first that does not: {first}"
    )


def _without_prefix(found: Mapping[str, Tensor], backbone: Collection[str]) -> Mapping[str, Tensor]:
    """What stands behind the one prefix under which the whole backbone is found; else all, as it is.

    Two such prefixes (a student beside its teacher) are left to the user.
    """
    needed = {name for name in backbone if "num_batches_tracked" not in name}
    first = min(needed, default="")
    candidates = [name.removesuffix(first) for name in found if name.endswith(f".{first}")] if first else []
    whole = [prefix for prefix in candidates if all(prefix + name in found for name in needed)]
    if first in found or len(whole) != 1:
        return found
    return {name.removeprefix(whole[0]): tensor for name, tensor in found.items() if name.startswith(whole[0])}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
