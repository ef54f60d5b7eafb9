"""Do one unit in this process: read what it needs, compute, commit its rows. The same code inline and on Ray."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import platform
import shutil
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rna_ray import data
from rna_ray.attacks.expectation import Forward
from rna_ray.data import Dataset, Split
from rna_ray.errors import CheckpointError, DataError, NetworkError
from rna_ray.evaluation.evaluate import evaluate
from rna_ray.evaluation.knowledge import Knowledge
from rna_ray.networks import imported, source
from rna_ray.networks.build import Network, build
from rna_ray.probes.probe import probe
from rna_ray.randomness import Randomness
from rna_ray.running import spawn
from rna_ray.running.provenance import provenance
from rna_ray.running.tasks import Done, Job
from rna_ray.store import Store, layout, open_store, weights
from rna_ray.store.records import RECORDS, from_rows
from rna_ray.sweep.units import Unit, canonical
from rna_ray.training import pretrained
from rna_ray.training.checkpoint import Checkpoints, load, load_into
from rna_ray.training.fit import Fitted, fit
from rna_ray.training.workers import ALONE, Workers

log = logging.getLogger(__name__)
Report = Callable[[dict[str, Any]], None]
NETWORKS_KEPT = 4
COMPILES = 32
"""More than a network needs: attack, update and answers, each with and without gradients, at a few batch sizes."""


def perform(job: Job, report: Report = lambda row: None) -> Done:
    """Do a unit and commit its rows; an error is recorded in the store as a failure and does not leave this function.

    A unit that the store holds already is left alone. `report` gets each epoch's row of a training.
    """
    unit, store, started = job.unit, open_store(job.store), time.perf_counter()
    try:
        if not store.is_done(unit.id, RECORDS[unit.kind]):
            _settle(job)
            with contextlib.ExitStack() as folders:
                for lies in job.sources.values():
                    if lies.root is not None:
                        folders.enter_context(source.importing(lies.root))
                _DO[unit.kind](job, store, report)
    except Exception as error:
        _record_failure(store, job, error)
        seconds = time.perf_counter() - started
        return Done(unit_id=unit.id, kind=unit.kind, state="failed", seconds=seconds, error=sentence(error))
    return Done(unit_id=unit.id, kind=unit.kind, state="done", seconds=time.perf_counter() - started)


def _settle(job: Job) -> None:
    """Make sums of floats repeat: the threads that the sweep file gives, plain fp32, the same kernels every time."""
    torch.set_num_threads(job.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def sentence(error: BaseException) -> str:
    """Return an error's type and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _record_failure(store: Store, job: Job, error: Exception) -> None:
    log.warning("unit %s failed: %s", job.unit.id, sentence(error))
    store.fail(
        job.unit.id, kind=job.unit.kind, attempt=job.attempt, error=type(error).__name__, message=str(error),
        traceback="".join(traceback.format_exception(error)), host=platform.node(),
    )


def _train(job: Job, store: Store, report: Report) -> None:
    if job.workers == 1:
        _train_as(job, ALONE, report)
    else:
        spawn.together(train_together, job, report)


def train_together(job: Job, workers: Workers, report: Report) -> None:
    """Train a unit as one of several workers, in a process of its own."""
    _settle(job)
    _train_as(job, workers, report)


def _train_as(job: Job, workers: Workers, report: Report) -> None:
    """Train a unit's network; the first worker commits its rows."""
    settings, started, clock = job.unit.settings, datetime.now(UTC), time.perf_counter()
    store, device = open_store(job.store), workers.device(job.device)
    train, held_out = _training_images(settings["data"], job)
    network = _build(settings, job.unit.id)
    if "weights_sha256" in settings["network"]:
        _start(network, job, single=lambda: _build(_plain(settings), job.unit.id))
    network = network.to(device)
    forward = _forward(network, settings["compile"], device)
    checkpoints = Checkpoints(store, job.unit.id)
    fitted = fit(
        settings, network, train, held_out, checkpoints, device=device, forward=forward, report=report, workers=workers
    )
    if not workers.first:
        return
    made = provenance(
        device=device, precision=settings["precision"], compiled=forward is not network,
        kernel=_kernel(network, settings["network"]["paths"]) if workers.count == 1 else "mixture",
        seconds=time.perf_counter() - clock, attempt=job.attempt, started_at=started, code=job.code,
    )
    rows = [{"unit_id": job.unit.id, **row} for row in fitted.epochs]
    trial = _trial(job.unit, network, fitted) | made
    store.commit(
        job.unit.id, {"epochs": from_rows("epochs", rows), "trials": from_rows("trials", [trial])}, record="trials"
    )
    checkpoints.drop_resume()


def _trial(unit: Unit, network: Network, fitted: Fitted) -> dict[str, Any]:
    settings, rows = unit.settings, fitted.epochs
    last = rows[-1] if rows else {}
    best = rows[fitted.best_epoch - 1] if fitted.best_epoch else {}
    drawn = {"paths_drawn": settings["network"]["paths"], "layer_based": settings["network"]["layer_based"]}
    attack = settings["training"]["attack"]
    return {
        "unit_id": unit.id,
        "state": fitted.state,
        "network": settings["network"]["name"],
        "width": settings["network"]["width"],
        "norm": settings["network"]["norm"],
        **drawn,
        "log2_paths": _log2_paths(network),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": settings["data"]["name"],
        "data_digest": settings["data"]["digest"],
        "train_examples": settings["data"]["train_examples"],
        "held_out": settings["data"]["held_out"],
        "objective": settings["training"]["objective"],
        "epochs": len(rows),
        "attack": canonical(attack) if attack else None,
        "attack_mode": settings["training"]["attack_mode"],
        "seed": settings["seed"],
        "last_natural_correct": last.get("natural_correct"),
        "last_adversarial_correct": last.get("adversarial_correct"),
        "best_epoch": fitted.best_epoch,
        "best_natural_correct": best.get("natural_correct"),
        "best_adversarial_correct": best.get("adversarial_correct"),
        "last_sha256": fitted.last_sha256,
        "best_sha256": fitted.best_sha256,
        "settings": canonical(settings),
    }


def _import(job: Job, store: Store, report: Report) -> None:
    """Take a network that was trained elsewhere into the store, once it has shown that it can be evaluated."""
    settings, started, clock = job.unit.settings, datetime.now(UTC), time.perf_counter()
    device, info, own = torch.device(job.device), data.info(settings["data"]["name"]), "import" in settings["network"]
    name, lies = settings["network"]["import" if own else "name"], job.sources.get(job.unit.id)
    network = _built(settings, job.unit.id, lies)
    if not own:
        _start(network, job, single=None)
    elif (digest := settings["network"]["weights_sha256"]) is not None:
        assert lies is not None and lies.weights is not None
        tensors, _ = load(imported.weights_file(lies.weights, digest), digest)
        load_into(network.body, tensors, f"{lies.weights} (network.weights)")
    network = network.to(device)
    images = _load(settings["data"]["name"], settings["data"]["digest"], job.root, job.download).test
    some = torch.from_numpy(images.images[: source.CHECKED]).to(device).float() / 255
    random = settings["network"]["random"] if own else bool(network.paths.sizes)
    imported.check(network, some, classes=info.classes, random=random, name=name)
    # Copies: parameters that share their memory are stored as two, and loaded as one again.
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    last = Checkpoints(store, job.unit.id).write("last", state, {"import": name} if own else {"weights": name})
    made = provenance(
        device=device, precision=settings["precision"], compiled=False,
        kernel=_kernel(network, settings["network"]["paths"]), seconds=time.perf_counter() - clock,
        attempt=job.attempt, started_at=started, code=job.code,
    )
    trial = _imported_trial(job.unit, network, last) | made
    store.commit(job.unit.id, {"trials": from_rows("trials", [trial])}, record="trials")


def _imported_trial(unit: Unit, network: Network, last: str) -> dict[str, Any]:
    settings, given = unit.settings, unit.settings["network"]
    return {
        "unit_id": unit.id,
        "state": "imported",
        "network": given.get("import", given.get("name")),
        "width": given.get("width", 0),
        "norm": given.get("norm", "own"),
        "paths_drawn": given["paths"],
        "layer_based": network.paths.choices is not None,
        "log2_paths": _log2_paths(network),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": settings["data"]["name"],
        "data_digest": settings["data"]["digest"],
        "train_examples": 0,
        "held_out": 0,
        "objective": "imported",
        "epochs": 0,
        "seed": settings["seed"],
        "last_sha256": last,
        "settings": canonical(settings),
    }


def _evaluate(job: Job, store: Store, report: Report) -> None:
    settings, started, clock = job.unit.settings, datetime.now(UTC), time.perf_counter()
    device = torch.device(job.device)
    network, forward = _trained(
        job.store, settings["network"], settings["checkpoint"], job.device, settings["compile"],
        job.sources.get(settings["network"]),
    )
    images = _load(settings["data"]["name"], settings["data"]["digest"], job.root, job.download).test
    found = evaluate(settings, job.unit.id, network, images, device=device, forward=forward)
    shared = {"unit_id": job.unit.id, "evaluation": settings["evaluation"], "network_id": settings["network"]}
    said = {"attack": settings["attack"]["name"], "knowledge": settings["knowledge"], "draws": settings["draws"]}
    columns = found.columns
    rows = [
        {**shared, **said, **dict(zip(columns, values, strict=True))} for values in zip(*columns.values(), strict=True)
    ]
    record = {
        **shared,
        **said,
        **_knew(settings),
        **vars(found.behaviour),
        "flags": canonical(found.notes) if found.notes else None,
        "path_sharing": found.path_sharing,
        "settings": canonical(settings),
        **provenance(
            device=device, precision=settings["precision"], compiled=forward is not network,
            kernel=_kernel(network, settings["paths"]), seconds=time.perf_counter() - clock, attempt=job.attempt,
            started_at=started, code=job.code,
        ),
    }
    views = {"examples": from_rows("examples", rows), "evaluations": from_rows("evaluations", [record])}
    store.commit(job.unit.id, views, record="evaluations")


def _knew(settings: Mapping[str, Any]) -> dict[str, Any]:
    attack = settings["attack"]
    knowledge = Knowledge.parse(settings["knowledge"])
    return {
        "checkpoint": settings["checkpoint"],
        "data": settings["data"]["name"],
        "attack_settings": canonical(attack),
        "eps_255": attack.get("eps_255"),
        "eps_space": "pixel",
        "threat": attack.get("threat", "none"),
        "steps": attack.get("steps"),
        "restarts": attack.get("restarts"),
        "knowledge_k": settings.get("enumerated") or (knowledge.k if knowledge.kind == "eot" else None),
        "noise_255": settings["noise_255"],
        "eval_mode": settings["eval"],
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "batch": settings["batch"],
    }


def _probe(job: Job, store: Store, report: Report) -> None:
    settings, started, clock = job.unit.settings, datetime.now(UTC), time.perf_counter()
    device, roles = torch.device(job.device), [settings[role] for role in ("source", "network") if role in settings]
    networks, forwards = zip(*(_subject(job, role) for role in roles), strict=True)
    images = _load(settings["data"]["name"], settings["data"]["digest"], job.root, job.download).test
    found = probe(settings, networks, images, device=device, forwards=forwards)
    answers, attack = settings["network"], settings["attack"]
    shared = {"unit_id": job.unit.id, "evaluation": settings["evaluation"], "network_id": answers["id"]}
    pair = {"source_id": roles[0]["id"] if len(roles) == 2 else None}
    record = {
        **shared,
        **pair,
        "probe": settings["probe"],
        "checkpoint": answers["checkpoint"],
        "data": settings["data"]["name"],
        "classes": data.info(settings["data"]["name"]).classes,
        "attack_settings": canonical(attack) if attack else None,
        "eps_255": attack["eps_255"] if attack else None,
        "threat": attack["threat"] if attack else None,
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "settings": canonical(settings),
        **provenance(
            device=device, precision=answers["precision"], compiled=forwards[-1] is not networks[-1],
            kernel="native" if found.native else "mixture", seconds=time.perf_counter() - clock, attempt=job.attempt,
            started_at=started, code=job.code,
        ),
    }
    measures = [{**shared, **pair, "probe": settings["probe"], **row} for row in found.rows.measures]
    transfers = [{**shared, "source_id": roles[0]["id"], **row} for row in found.rows.transfers]
    details = {"measures": measures, "transfers": transfers}
    views = {view: from_rows(view, rows) for view, rows in details.items() if rows}
    store.commit(job.unit.id, {**views, "probes": from_rows("probes", [record])}, record="probes")


def _subject(job: Job, role: Mapping[str, Any]) -> tuple[Network, Forward]:
    """Return one network of a probe; of two imported ones, each finds the modules of its own folder first."""
    lies = job.sources.get(role["id"])
    with source.importing(lies.root) if lies and lies.root is not None else contextlib.nullcontext():
        return _trained(job.store, role["id"], role["checkpoint"], job.device, role["compile"], lies)


_DO: Mapping[str, Callable[[Job, Store, Report], None]] = {
    "train": _train, "import": _import, "evaluate": _evaluate, "probe": _probe
}


# -- what units read, kept by a process for the next unit --------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _load(name: str, digest: str, root: str | None, download: bool) -> Dataset:
    """Return a data set; DataError where this machine's files are not those that the unit's id counts."""
    found = data.load(name, root, download)
    if (here := data.digest_of(found)) != digest:
        raise DataError(
            f"the images of {name} on {platform.node()} have digest {here}, this unit was planned on {digest}: "
            f"give every node the same files in {root}"
        )
    return found


@functools.lru_cache(maxsize=NETWORKS_KEPT)
def _trained(
    store_uri: str, network_id: str, checkpoint: str, device: str, compiled: bool, lies: source.Source | None = None
) -> tuple[Network, Forward]:
    """Return a network of the store with its weights, their checksum verified, and the same compiled where asked."""
    store = open_store(store_uri)
    trial = store.read_file("trials", network_id).to_pylist()[0]
    network = _built(json.loads(trial["settings"]), network_id, lies)
    tensors, _ = Checkpoints(store, network_id).read(checkpoint, trial[f"{checkpoint}_sha256"])
    load_into(network, tensors, f"the {checkpoint} checkpoint of unit {network_id}")
    network = network.to(device)
    return network, _forward(network, compiled, torch.device(device))


def check_weights(store: Store, network_id: str, checkpoint: str) -> None:
    """Raise CheckpointError where a network's weights are missing, truncated, or another network's.

    Looks at the file's header and length alone; whoever loads the weights verifies their checksum too.
    """
    trial = store.read_file("trials", network_id).to_pylist()[0]
    record = store.files.full(layout.rows_file("trials", network_id))
    settings = json.loads(trial["settings"])
    again = "train" if "training" in settings else "import"
    redo = f"to {again} it again, delete {record} and repeat the command"
    path = layout.weights_file(network_id, checkpoint, trial[f"{checkpoint}_sha256"])
    found = weights.shapes(store, path, redo)
    if "import" in settings["network"]:
        return  # who evaluates it finds out: the user's code runs in no other process
    network = _build(settings, network_id)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if found != expected:
        key = min({*found.items()} ^ {*expected.items()})[0]
        raise CheckpointError(
            f"the weights {store.files.full(path)} do not fit their network: {key} has shape {found.get(key, 'none')} "
            f"in the file and {expected.get(key, 'none')} in the network; {redo}"
        )


def _build(settings: Mapping[str, Any], unit_id: str) -> Network:
    info = data.info(settings["data"]["name"])
    return build(
        settings["network"], shape=info.shape, classes=info.classes, mean=info.mean, std=info.std,
        seed=Randomness(unit_id).seed("initialisation"),
    )


def _built(settings: Mapping[str, Any], unit_id: str, lies: source.Source | None) -> Network:
    """Return the network of a train or an import unit before its weights are loaded."""
    if "import" not in settings["network"]:
        return _build(settings, unit_id)
    if lies is None or lies.root is None:
        raise NetworkError(f"network {unit_id} is imported, and nothing says from where")
    return imported.build(settings["network"], root=lies.root, seed=Randomness(unit_id).seed("initialisation"))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the same network with BN everywhere."""
    return {**settings, "network": {**settings["network"], "norm": "BN", "last_norm": None, "layer_based": False}}


def _start(network: Network, job: Job, *, single: Callable[[], Network] | None) -> None:
    """Load the weights that a sweep gives for a network of ours."""
    lies, digest = job.sources[job.unit.id], job.unit.settings["network"]["weights_sha256"]
    assert lies.weights is not None
    path = imported.weights_file(lies.weights, digest)
    where = f"{path} (network.weights)"
    pretrained.start(network, pretrained.read(path, digest), job.unit.settings, where=where, single=single)


def _training_images(settings: Mapping[str, Any], job: Job) -> tuple[Split, Split]:
    """Return the training images and the held-out ones: parts of one order that no seed changes."""
    train = _load(settings["name"], settings["digest"], job.root, job.download).train
    order = Randomness(f"held-out/{settings['name']}").permutation("order", len(train))
    held_out, rest = np.split(order, [settings["held_out"]])
    return train.part(rest[: settings["train_examples"]]), train.part(held_out)


# -- rules decided before a unit starts --------------------------------------------------------------------------------


def _forward(network: Network, asked: bool, device: torch.device) -> Forward:
    """Return the network, compiled where that is asked for and there is a compiler."""
    if not asked:
        return network
    needed = ["gcc", "clang", "cc"] if device.type == "cuda" else ["g++", "clang++", "c++"]
    python_h = Path(sysconfig.get_path("include"), "Python.h")
    if not any(shutil.which(compiler) for compiler in needed) or not python_h.is_file():
        log.warning("compile: it takes one of %s and %s, so the network runs uncompiled", ", ".join(needed), python_h)
        return network
    # A process does many units: graphs of the last one's layers must not count towards this one's limit, beyond which
    # torch would go on uncompiled without a word.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = COMPILES
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(network, dynamic=False)


def _kernel(network: Network, paths: str) -> str:
    """Return which computation the norm layers use: torch's kernels, or the mixture that path tensors select."""
    return "mixture" if network.paths.sizes and paths == "example" else "native"


def _log2_paths(network: Network) -> float:
    paths = network.paths
    return math.log2(len(paths.choices)) if paths.choices is not None else sum(map(math.log2, paths.sizes))
