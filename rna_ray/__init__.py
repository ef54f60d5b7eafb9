"""Train, attack and compare networks with random normalisation, as sweeps on Ray."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rna_ray.export import load_network
    from rna_ray.networks.randomize import randomize
    from rna_ray.notebook import open_store

__version__ = "0.1.0"
__all__ = ["__version__", "load_network", "open_store", "randomize"]

_LAZY = {
    "load_network": "rna_ray.export", "open_store": "rna_ray.notebook", "randomize": "rna_ray.networks.randomize",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import rna_ray` takes neither torch nor ray nor pyarrow."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
