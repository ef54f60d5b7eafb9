"""A network as files of its own: weights that say which network they are, and a card for people; and back again."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import rna_ray
from rna_ray.analysis import files
from rna_ray.analysis.card import Subject, card
from rna_ray.errors import CheckpointError, StoreError
from rna_ray.networks.build import Network
from rna_ray.networks.randomize import draw_paths
from rna_ray.networks.source import Source
from rna_ray.running import inputs, stored
from rna_ray.running.stored import Stored
from rna_ray.store import Store, connect, layout
from rna_ray.training import checkpoint

_BODY = "body."


def export(store: Store, found: Stored, folder: Path) -> list[Path]:
    """Write a network's NAME.safetensors and NAME.md into a folder, both or none, and return their paths.

    The weights lie under the names that the network gives them itself, as `network.weights` of a sweep takes them, and
    the file says of which network they are, as `load_network` needs. StoreError where nothing can be written.
    """
    name = _name(found)
    network = stored.load(store, found)
    tensors = {key.removeprefix(_BODY): tensor for key, tensor in network.state_dict().items()}
    about = {"rna_ray": rna_ray.__version__, "unit_id": found.unit_id, "settings": found.settings}
    try:
        with tempfile.TemporaryDirectory(prefix="rna-ray-") as private:
            whole = Path(private) / "weights"
            digest = checkpoint.save(whole, tensors, about | {"checkpoint": found.checkpoint})
            weights = whole.read_bytes()
    except (OSError, CheckpointError) as error:
        raise StoreError(f"cannot write {name} to {tempfile.gettempdir()} first (TMPDIR): {error}") from error
    text = card(connect(store), _subject(found, name, digest))
    contents = {folder / f"{name}.safetensors": weights, folder / f"{name}.md": text.encode()}
    try:
        files.put(contents)
    except OSError as error:
        raise StoreError(f"cannot write {name} to {folder}: {error.strerror or error}") from error
    return list(contents)


def load_network(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] = ".", device: str = "cpu", path_seed: int = 0
) -> Network:
    """Return the network of a file that `rna-ray export` wrote, in eval mode, ready to call as `open_store`'s are.

    An imported network runs the user's own code: the module that it was imported from, looked for in `root` first.
    Raises CheckpointError where the file is damaged, or does not say which network it is.
    """
    tensors, about = checkpoint.load(Path(path))
    settings = about.get("settings")
    if not isinstance(settings, dict) or "network" not in settings:
        raise CheckpointError(
            f"{path} does not say which network it is, as files of rna-ray export do; name its network in a sweep, and "
            "give the file as network.weights"
        )
    lies = Source(str(Path(root).absolute())) if "import" in settings["network"] else None
    with inputs.importing([lies] if lies else []):
        network = inputs.built(settings, about["unit_id"], lies)
    checkpoint.load_into(network.body, tensors, str(path))
    network = network.to(device).eval()
    return draw_paths(network, network.paths, path_seed) if network.paths.sizes else network


def _name(found: Stored) -> str:
    """Return what its files are called: by what people call it, else by its id; `last` where there are better ones."""
    beside = "-last" if found.checkpoint == "last" and found.trial["best_sha256"] else ""
    if found.called is None:
        return f"{found.unit_id}{beside}"
    return layout.spelled(f"{found.called.sweep}-{found.called.variant}-seed{found.trial['seed']}{beside}")


def _subject(found: Stored, name: str, sha256: str) -> Subject:
    subject = Subject(name=name, trial=found.trial, checkpoint=found.checkpoint, sha256=sha256)
    if (called := found.called) is None:
        return subject
    return dataclasses.replace(subject, sweep=called.sweep, variant=called.variant, axes=called.axes)
