"""Where an imported network's code and given weights lie, found without running any; a plan needs no torch for that."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from rna_ray.errors import NetworkError

_TEXT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
SUFFIX = ".safetensors"
PICKLES = (".pth", ".pt")
CHECKED = 16
"""How many test images an imported network is tried on before it is taken."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The folder in which an imported network's module is looked for first, and the file of its weights.

    There is no folder for a network of ours, of which only the weights are given.
    """

    root: str | None
    weights: str | None = None


def check(text: str) -> None:
    """Raise NetworkError unless a text has the form of `package.module:function`."""
    if not _TEXT.fullmatch(text):
        raise NetworkError(f"{text!r} does not say what to import; write module:function, such as mynet:build")


def check_weights(path: str) -> None:
    """Raise NetworkError where a file is not named as safetensors are: nothing else is read, nothing unpickled."""
    if not path.endswith(SUFFIX):
        raise NetworkError(
            f"{path!r} is not named {SUFFIX}, and nothing else is read, as a pickle may run code; convert it: "
            f"safetensors.torch.save_file(model.state_dict(), 'weights{SUFFIX}')"
        )


def check_given(path: str) -> None:
    """Raise NetworkError where a file of weights for a network of ours is of no kind that is read."""
    if not path.endswith((SUFFIX, *PICKLES)):
        raise NetworkError(f"{path!r} is not a file of weights; allowed are {SUFFIX}, {' and '.join(PICKLES)}")


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file; NetworkError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror or error}") from None


def weights_file(path: str, digest: str) -> Path:
    """Return the file of weights at a path of this machine; NetworkError where its SHA-256 is not as planned."""
    found = Path(path)
    if not os.path.isfile(found):
        raise NetworkError(f"network.weights: {platform.node()} has no file {path}: give every node the same one")
    if sha256(found) != digest:
        raise NetworkError(
            f"network.weights: {path} on {platform.node()} is not the file that was planned: give every node the same"
        )
    return found


def find(text: str, root: str) -> Path:
    """Return the file of the module in `package.module:function`, looked for in `root` first, then where Python looks.

    Neither the module nor a package around it is imported. Raises NetworkError where there is no such file.
    """
    module = text.partition(":")[0]
    with importing(root):
        spec = _spec(module)
    if spec is None:
        raise NetworkError(
            f"there is no module {module} in {root}, nor is it installed; give its folder as network.root"
        )
    if not spec.has_location or spec.origin is None:
        raise NetworkError(f"module {module} has no file, so nothing says when it changes; name one that has")
    return Path(spec.origin)


@contextlib.contextmanager
def importing(root: str) -> Iterator[None]:
    """Let Python look in `root` first inside the block; modules that came from there are forgotten afterwards.

    So a process can build networks of the same module name from two folders. What was known before stays.
    """
    before = set(sys.modules)
    tops = {name.partition(".")[0] for name in before}
    sys.path.insert(0, root)
    importlib.invalidate_caches()  # the folder may be newer than what Python remembers of it
    try:
        yield
    finally:
        new = [name for name in set(sys.modules) - before if name.partition(".")[0] not in tops]
        leaving = [name for name in new if _lies_in(root, name)]
        with contextlib.suppress(ValueError):  # the module itself may have changed the path
            sys.path.remove(root)
        for name in leaving:
            del sys.modules[name]


def _lies_in(root: str, name: str) -> bool:
    """Say whether a module was found by way of the folder `root`, not in an environment that lies below it."""
    module, place = sys.modules[name], Path(root, *name.split("."))
    file = getattr(module, "__file__", None)
    if file is None:  # a folder without __init__.py
        return str(place) in list(getattr(module, "__path__", ()))
    return Path(file) in (place.with_suffix(".py"), place / "__init__.py")


def _spec(module: str) -> ModuleSpec | None:
    """Return what Python's finders know of a module; `importlib.util.find_spec` would import the packages around it."""
    path, name, found = None, "", None
    try:
        for part in module.split("."):
            if name and path is None:
                return None  # the part before is no package
            name = f"{name}.{part}".lstrip(".")
            looks = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
            found = next((spec for spec in looks if spec is not None), None)
            if found is None:
                return None
            path = found.submodule_search_locations
        return found
    except KeyError:  # a folder without __init__.py inside a package knows where it lies only once that is imported
        return importlib.util.find_spec(module)
