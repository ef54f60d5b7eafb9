"""What units read: images and networks, checked against what was planned, and kept by a process for its next unit."""

from __future__ import annotations

import contextlib
import functools
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from rna_ray import data
from rna_ray.attacks.expectation import Forward
from rna_ray.data import Dataset, Split
from rna_ray.errors import CheckpointError, DamageError, DataError, NetworkError
from rna_ray.networks import imported, source
from rna_ray.networks.build import Network, build
from rna_ray.randomness import Randomness
from rna_ray.running import pages
from rna_ray.running.compiling import NETWORKS_KEPT, compiled
from rna_ray.running.tasks import Job
from rna_ray.store import Store, layout, open_store, staging, weights
from rna_ray.training import pretrained
from rna_ray.training.checkpoint import Checkpoints, load, load_into


@functools.lru_cache(maxsize=2)
def dataset(name: str, digest: str, root: str | None, download: bool, side: int | None = None) -> Dataset:
    """Return a data set, its training images in the order that tells those held out from the rest.

    DataError where this machine's files are not those that the unit's id counts.
    """
    if data.record(name).in_files or root is None:  # nothing to decode before, or next to nothing
        return pages.ordered(_decoded(name, digest, root, download, side))
    return pages.shared(digest, lambda: _decoded(name, digest, root, download, side))


def _decoded(name: str, digest: str, root: str | None, download: bool, side: int | None) -> Dataset:
    found, here = _read(name, root, download, side)
    if here != digest and root is not None and staging.remote(root):  # this machine's copy of it may be damaged
        staging.forget(name, root)
        found, here = _read(name, root, download, side)
    if here != digest:
        raise DataError(
            f"the images of {name} on {platform.node()} have digest {here}, this unit was planned on {digest}: "
            f"give every node the same files in {root}"
        )
    return found


def _read(name: str, root: str | None, download: bool, side: int | None) -> tuple[Dataset, str]:
    found = data.load(name, staging.folder(name, root), download, side)
    return found, data.digest_of(found)


@contextlib.contextmanager
def importing(sources: Iterable[source.Source]) -> Iterator[None]:
    """Let the modules of imported networks be found inside the block."""
    with contextlib.ExitStack() as folders:
        for lies in sources:
            if lies.root is not None:
                folders.enter_context(source.importing(lies.root))
        yield


def training_images(settings: Mapping[str, Any], job: Job) -> tuple[Split, Split]:
    """Return the training images and the held-out ones, which are the first of an order that no seed changes."""
    train, first = _images(settings, job).train, settings["held_out"]
    return train.part(slice(first, first + settings["train_examples"])), train.part(slice(first))


def test_images(job: Job) -> Split:
    """Return the test images of a unit's data set."""
    return _images(job.unit.settings["data"], job).test


def _images(settings: Mapping[str, Any], job: Job) -> Dataset:
    side = settings["found"]["side"] if "found" in settings else None
    return dataset(settings["name"], settings["digest"], job.root, job.download, side)


def initial(job: Job) -> Network:
    """Return the network of a train or an import unit as it starts: with the weights that the sweep gives, if any."""
    settings, lies = job.unit.settings, job.sources.get(job.unit.id)
    network = built(settings, job.unit.id, lies)
    digest = settings["network"].get("weights_sha256")
    if digest is None:
        return network
    assert lies is not None and lies.weights is not None
    path = source.weights_file(lies.weights, digest)
    where = f"{path} (network.weights)"
    if "import" in settings["network"]:
        load_into(network.body, load(path, digest)[0], where)
    else:
        single = functools.partial(_named, _plain(settings), job.unit.id) if job.unit.kind == "train" else None
        pretrained.start(network, pretrained.read(path, digest), settings, where=where, single=single)
    return network


def built(settings: Mapping[str, Any], unit_id: str, lies: source.Source | None = None) -> Network:
    """Return the network of a train or an import unit before any weights are loaded."""
    if "import" not in settings["network"]:
        return _named(settings, unit_id)
    if lies is None or lies.root is None:
        raise NetworkError(f"network {unit_id} is imported, and nothing says from where")
    return imported.build(settings["network"], root=lies.root, seed=Randomness(unit_id).seed("initialisation"))


def _named(settings: Mapping[str, Any], unit_id: str) -> Network:
    info = data.info(settings["data"])
    return build(
        settings["network"], shape=info.shape, classes=info.classes, mean=info.mean, std=info.std,
        seed=Randomness(unit_id).seed("initialisation"),
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the same network with BN everywhere."""
    return {**settings, "network": {**settings["network"], "norm": "BN", "last_norm": None, "layer_based": False}}


@functools.lru_cache(maxsize=NETWORKS_KEPT)
def trained(
    store_uri: str, network_id: str, checkpoint: str, sha256: str, device: str, compile: bool,
    lies: source.Source | None = None,
) -> tuple[Network, Forward]:  # fmt: skip
    """Return a network of the store with its weights, their checksum verified, and the same compiled where asked.

    Where the weights are not those of this SHA-256, the network is discarded, so that the next run trains it again.
    """
    store = open_store(store_uri)
    settings = json.loads(trial(store, network_id)["settings"])
    try:
        network = loaded(store, settings, network_id, checkpoint, sha256, lies).to(device)
    except CheckpointError as error:
        path = layout.weights_file(network_id, checkpoint, sha256)
        if weights.sha256(store, path) != sha256 and weights_sha256(store, network_id, checkpoint) == sha256:
            store.discard(network_id, "trials")
            raise CheckpointError(f"{error}; the next run makes network {network_id} again") from error
        raise
    return network, compiled(network, compile, torch.device(device))


def loaded(
    store: Store, settings: Mapping[str, Any], network_id: str, checkpoint: str, sha256: str,
    lies: source.Source | None = None,
) -> Network:  # fmt: skip
    """Return a network of the store with its weights; CheckpointError where they are not those of this SHA-256."""
    network = built(settings, network_id, lies)
    tensors, _ = Checkpoints(store, network_id).read(checkpoint, sha256)
    load_into(network, tensors, f"the {checkpoint} checkpoint of unit {network_id}")
    return network


def weights_sha256(store: Store, network_id: str, checkpoint: str) -> str:
    """Return the SHA-256 of a network's weights, as its record has it now; StoreError where it is not finished."""
    return trial(store, network_id)[f"{checkpoint}_sha256"]


def trial(store: Store, network_id: str) -> dict[str, Any]:
    """Return the record of a network; StoreError where it is not finished."""
    return store.read_file("trials", network_id).to_pylist()[0]


def damaged_weights(store: Store, network_id: str, checkpoint: str) -> str | None:
    """Return why a network must be made again: its record or its weights are missing, truncated or altered.

    None where they look whole. Raises CheckpointError where they are whole, but of another network: doing it again
    would not help, and would cost a training that may only have met another release.
    """
    try:
        check_weights(store, network_id, checkpoint)
    except DamageError as error:
        return str(error)
    except CheckpointError as error:
        sha256 = weights_sha256(store, network_id, checkpoint)
        if weights.sha256(store, layout.weights_file(network_id, checkpoint, sha256)) == sha256:
            raise
        return str(error)
    return None


def check_weights(store: Store, network_id: str, checkpoint: str) -> None:
    """Raise CheckpointError where a network's weights are missing, truncated, or another network's.

    Looks at the file's header and length alone; whoever loads the weights verifies their checksum too.
    """
    record = trial(store, network_id)
    settings = json.loads(record["settings"])
    path = layout.weights_file(network_id, checkpoint, record[f"{checkpoint}_sha256"])
    found = weights.shapes(store, path)
    if "import" in settings["network"]:
        return  # who evaluates it finds out: the user's code runs in no other process
    network = built(settings, network_id)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if found != expected:
        key = min({*found.items()} ^ {*expected.items()})[0]
        raise CheckpointError(
            f"the weights {store.files.full(path)} do not fit their network: {key} has shape {found.get(key, 'none')} "
            f"in the file and {expected.get(key, 'none')} in the network; to make it again, delete "
            f"{store.files.full(layout.rows_file('trials', network_id))} and repeat the command"
        )
