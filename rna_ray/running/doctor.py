"""Look over a machine before a sweep: what is there, what is missing, and the one next step. Changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rna_ray
from rna_ray import data
from rna_ray.data.registry import folder
from rna_ray.errors import DamageError, RnaRayError, first_line
from rna_ray.store import Store, layout, open_store, staging

LIBRARIES = (
    "torch", "torchvision", "ray", "pyarrow", "duckdb", "scikit-learn", "torchattacks", "pyautoattack", "foolbox"
)  # fmt: skip
DISK_BYTES, MEMORY_BYTES = 2e9, 2e9
"""Less than this is too little for any sweep: Ray alone takes a good part of it."""

_S3_PLACES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
              "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_PROFILE")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked for."""

    name: str
    ok: bool
    found: str
    """What there is, or what is wrong."""
    next: str = ""
    """Where it is missing: the one thing to do."""
    needed: bool = True
    """Whether every sweep needs it."""


def checks(uri: str, folder: Path | None = None) -> Iterator[Check]:
    """Yield what there is on this machine for sweeps into a store; data sets are looked for below `folder` too."""
    yield Check(name="rna-ray", ok=True, found=f"{rna_ray.__version__}, Python {platform.python_version()}")
    yield from map(_library, LIBRARIES)
    for name, look, remedy, needed in _LOOKS:
        yield _looked(name, look, remedy, needed=needed)
    remedy = "free some, or set TMPDIR to a larger disk"
    yield _looked("temporary files", lambda: _disk(Path(tempfile.gettempdir())), remedy, needed=True)
    yield from _store(uri)
    yield from _data(uri, folder)


def document(check: Check) -> dict[str, Any]:
    """Return a check for `--json`."""
    return dataclasses.asdict(check)


def text(check: Check) -> str:
    """Return a check in one line."""
    mark = "ok     " if check.ok else "missing"
    step = "" if check.ok else f"; {check.next}"
    return f"{mark}  {check.name}: {check.found}{step}"


def _looked(name: str, look: Callable[[], str], remedy: str, *, needed: bool) -> Check:
    """Return what a look found; whatever goes wrong in it is what is to be said."""
    try:
        return Check(name=name, ok=True, found=look(), needed=needed)
    except Exception as error:
        said = first_line(error)
        return Check(name=name, ok=False, found=said, next=remedy, needed=needed)


def _library(name: str) -> Check:
    try:
        return Check(name=name, ok=True, found=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name=name, ok=False, found="not installed", next="install rna-ray again: pip install rna-ray")


# -- the machine -------------------------------------------------------------------------------------------------------


def _gpus() -> str:
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise LookupError(f"torch {torch.__version__} sees none")
    return ", ".join(torch.cuda.get_device_name(number) for number in range(count))


def _compiler() -> str:
    import torch

    from rna_ray.networks.precision import multiplies_bf16
    from rna_ray.running.compiling import compiled

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layer = torch.nn.Linear(4, 4).to(device)
    forward = compiled(layer, True, device)
    if forward is layer:
        raise LookupError("no compiler, or no Python.h")
    if device.type == "cpu":  # where it would take ten seconds to see it work
        if not multiplies_bf16():
            return "found; on this CPU, which does not multiply bf16, networks are compiled in long units in fp32"
        return "found; on a CPU, networks are compiled in long units"
    forward(torch.zeros(2, 4, device=device))
    return "torch.compile works"


def _ray() -> str:
    from rna_ray.running import on_ray

    there = on_ray.alone()
    return f"starts on this machine, with {there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"


def _memory() -> str:
    from rna_ray.running import memory

    free, said = memory.free()
    if free < MEMORY_BYTES:
        raise LookupError(f"only {said}")
    return said


_LOOKS: tuple[tuple[str, Callable[[], str], str, bool], ...] = (
    ("memory", _memory, "end what takes it, or take a larger machine", True),
    ("GPU", _gpus, "with a GPU here, install its driver; without one, leave resources.*.gpu at 0", False),
    ("compiler", _compiler, "install a compiler and Python's headers (Debian: g++ and python3-dev); without them "
     "networks run uncompiled", False),
    ("Ray", _ray, "run with --address inline, or install it again: pip install 'ray[tune]'", True),
)  # fmt: skip


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e9:.1f} GB free on the disk of {folder}"
    if free < DISK_BYTES:
        raise LookupError(f"only {said}")
    return said


# -- the store ---------------------------------------------------------------------------------------------------------


def _store(uri: str) -> Iterator[Check]:
    """Yield whether the store can be written, and what lies around it; no store is begun by that."""
    if uri.startswith("s3://"):
        yield _credentials()
    try:
        store = open_store(uri)
        found = _written(store)
    except (RnaRayError, OSError) as error:
        said = str(error)
        yield Check(name="store", ok=False, found=said, next="give a place that can be written with --store")
        return
    yield Check(name="store", ok=True, found=found)
    if store.files.local:
        remedy = "free some, or give another place with --store"
        yield _looked("results", lambda: _disk(_there(store)), remedy, needed=True)


def _written(store: Store) -> str:
    """Return that a store can be written, having tried; OSError or StoreError where it cannot."""
    if store.files.local and not store.exists:
        with tempfile.TemporaryFile(dir=_there(store)):
            return f"{store.uri} can be begun"
    path = layout.sight_file(uuid.uuid4().hex)
    store.files.write(path, b"")
    store.files.remove(path)
    return f"{store.uri} can be written" if store.exists else f"{store.uri} can be begun"


def _there(store: Store) -> Path:
    """Return the folder of a local store, or the nearest one above that is there."""
    here = Path(str(store.files.root))
    return next(folder for folder in (here, *here.parents) if folder.is_dir())


def _credentials() -> Check:
    """Return whether there are credentials for S3, and where; never what they are."""
    places = [name for name in _S3_PLACES if os.environ.get(name)]
    files = ("~/.aws/credentials", "~/.aws/config")
    places += [file for file in files if os.path.isfile(os.path.expanduser(file))]
    return Check(
        name="S3 credentials", ok=bool(places), found=f"in {', '.join(places)}" if places else "none are set here",
        next="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, unless the machine has a role", needed=False,
    )


# -- the images --------------------------------------------------------------------------------------------------------


def _data(uri: str, folder: Path | None) -> Iterator[Check]:
    """Yield which data sets are there: those that the store's sweeps name, and all of them below a folder."""
    with contextlib.suppress(RnaRayError, OSError):
        store = open_store(uri)
        asked = {one for sweep in store.sweeps() for one in _asked(store, sweep)}
        for name, root in sorted(asked, key=str):
            yield _images(name, root, needed=True)
    for name, info in data.DATASETS.items():
        if not info.needs_root or folder is not None:
            yield _images(name, str(folder) if info.needs_root else None, needed=not info.needs_root)


def _asked(store: Store, sweep: str) -> Iterator[tuple[str, str | None]]:
    """Yield the data sets that a sweep of the store names, each with its folder."""
    with contextlib.suppress(DamageError):  # named by who looks at all files
        found = json.loads(store.read_file("plans", sweep)["spec"][0].as_py())["data"]
        known = data.DATASETS.get(found["name"])  # a later release may have more of them
        if known is not None and known.needs_root:
            yield found["name"], found.get("root")


def _images(name: str, root: str | None, *, needed: bool) -> Check:
    info = data.record(name)
    where = f" in {root}" if root else ""
    look = info.files or info.digest
    assert look is not None
    try:
        if root is not None and staging.remote(root):
            staging.check(name, root)
        else:
            look(folder(root), False)
    except RnaRayError as error:
        return Check(name=f"data {name}", ok=False, found="not found", next=str(error), needed=needed)
    return Check(name=f"data {name}", ok=True, found=f"found{where or ', inside scikit-learn'}", needed=needed)
