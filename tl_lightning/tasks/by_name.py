"""Modules by name."""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class ByName(nn.Module, Generic[M]):
    """Modules by any names, in order; `torch.nn.ModuleDict` refuses names such as ``type`` and those with a dot.

    Args:
        modules: At least one.
    """

    def __init__(self, modules: Mapping[str, M]) -> None:
        super().__init__()
        self._by_name: dict[str, M] = {}
        self._registered: dict[str, str] = {}
        for name, module in modules.items():
            self[name] = module

    def __setitem__(self, name: str, module: M) -> None:
        if name not in self._registered:
            key = name.replace(".", "_")
            while not key or hasattr(self, key):
                key += "_"
            self._registered[name] = key
        setattr(self, self._registered[name], module)
        self._by_name[name] = module

    def __getitem__(self, name: str) -> M:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def items(self) -> ItemsView[str, M]:
        """Names with their modules."""
        return self._by_name.items()

    def values(self) -> ValuesView[M]:
        """The modules."""
        return self._by_name.values()
