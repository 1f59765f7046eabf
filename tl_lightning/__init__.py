"""From a pretrained model to a model you can trust on your own data, paying only for what trains."""

from typing import TYPE_CHECKING

from tl_lightning.errors import UserError

if TYPE_CHECKING:
    from tl_lightning.results.run import fit, load

__all__ = ["UserError", "fit", "load"]


def __getattr__(name: str) -> object:
    # Lightning takes over ten seconds to import; `tl --help` and `import tl_lightning` do not pay it (PEP 562).
    if name in ("fit", "load"):
        from tl_lightning.results import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
