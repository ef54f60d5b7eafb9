"""Do one unit in this process: read what it needs, compute, commit its rows. The same code inline and on Ray."""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rna_ray import data
from rna_ray.attacks.expectation import Forward
from rna_ray.evaluation.certify import certify
from rna_ray.evaluation.evaluate import evaluate
from rna_ray.evaluation.knowledge import Knowledge
from rna_ray.networks import imported, source
from rna_ray.networks.build import Network
from rna_ray.probes.probe import probe
from rna_ray.running import inputs, spawn
from rna_ray.running.provenance import Started, provenance
from rna_ray.running.tasks import Done, Job
from rna_ray.store import Store, open_store
from rna_ray.store.records import RECORDS, from_rows
from rna_ray.sweep.units import Unit, canonical
from rna_ray.training.checkpoint import Checkpoints
from rna_ray.training.fit import Fitted, Report, fit
from rna_ray.training.workers import ALONE, Workers

log = logging.getLogger(__name__)


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
    settings, started = job.unit.settings, Started.now()
    store, device = open_store(job.store), workers.device(job.device)
    train, held_out = inputs.training_images(settings["data"], job)
    network = inputs.initial(job).to(device)
    forward = inputs.compiled(network, settings["compile"], device)
    checkpoints = Checkpoints(store, job.unit.id)
    fitted = fit(
        settings, network, train, held_out, checkpoints, device=device, forward=forward, report=report, workers=workers
    )
    if not workers.first:
        return
    made = provenance(
        job, started, device=device, precision=settings["precision"], compiled=forward is not network,
        kernel=_kernel(network, settings["network"]["paths"]) if workers.count == 1 else "mixture",
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
    settings, started, given = job.unit.settings, Started.now(), job.unit.settings["network"]
    device, info = torch.device(job.device), data.info(settings["data"]["name"])
    network = inputs.initial(job).to(device)
    some = torch.from_numpy(inputs.test_images(job).images[: source.CHECKED]).to(device).float() / 255
    name, random = given.get("import", given.get("name")), given.get("random", bool(network.paths.sizes))
    imported.check(network, some, classes=info.classes, random=random, name=name)
    # Copies: parameters that share their memory are stored as two, and loaded as one again.
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    last = Checkpoints(store, job.unit.id).write("last", state, {"import" if "import" in given else "weights": name})
    made = provenance(
        job, started, device=device, precision=settings["precision"], compiled=False,
        kernel=_kernel(network, given["paths"]),
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
    settings, started, device = job.unit.settings, Started.now(), torch.device(job.device)
    network, forward = _subject(job, {**settings, "id": settings["network"]})
    attacked = _subject(job, settings["source"]) if "source" in settings else None
    found = evaluate(
        settings, job.unit.id, network, inputs.test_images(job), device=device, forward=forward, source=attacked
    )
    shared = {"unit_id": job.unit.id, "evaluation": settings["evaluation"], "network_id": settings["network"]}
    said = {"attack": settings["attack"]["name"], "knowledge": settings["knowledge"], "draws": settings["draws"]}
    columns = found.columns
    rows = [
        {**shared, **said, **dict(zip(columns, values, strict=True))} for values in zip(*columns.values(), strict=True)
    ]
    record = {
        **shared,
        **said,
        "source_id": settings["source"]["id"] if attacked else None,
        **_knew(settings),
        **vars(found.behaviour),
        "flags": canonical(found.notes) if found.notes else None,
        "path_sharing": found.path_sharing,
        "batch_statistics": found.batch_statistics,
        "settings": canonical(settings),
        **provenance(
            job, started, device=device, precision=settings["precision"], compiled=forward is not network,
            kernel=_kernel(network, settings["paths"]),
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
        "eps_space": attack.get("eps_space", "pixel"),
        "threat": attack.get("threat", "none"),
        "steps": attack.get("steps"),
        "restarts": attack.get("restarts"),
        "knowledge_k": settings.get("enumerated") or (knowledge.k if knowledge.kind == "eot" else None),
        "noise_255": settings["noise_255"],
        "eval_mode": settings["eval"],
        "attack_mode": settings.get("attack_mode"),
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "batch": settings["batch"],
    }


def _probe(job: Job, store: Store, report: Report) -> None:
    settings, started, device = job.unit.settings, Started.now(), torch.device(job.device)
    roles = [settings[role] for role in ("source", "network") if role in settings]
    networks, forwards = zip(*(_subject(job, role) for role in roles), strict=True)
    found = probe(settings, networks, inputs.test_images(job), device=device, forwards=forwards)
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
        "eps_space": attack.get("eps_space", "pixel") if attack else None,
        "threat": attack["threat"] if attack else None,
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "settings": canonical(settings),
        **provenance(
            job, started, device=device, precision=answers["precision"],
            compiled=forwards[-1] is not networks[-1], kernel="native" if found.native else "mixture",
        ),
    }
    measures = [{**shared, **pair, "probe": settings["probe"], **row} for row in found.rows.measures]
    transfers = [{**shared, "source_id": roles[0]["id"], **row} for row in found.rows.transfers]
    details = {"measures": measures, "transfers": transfers}
    views = {view: from_rows(view, rows) for view, rows in details.items() if rows}
    store.commit(job.unit.id, {**views, "probes": from_rows("probes", [record])}, record="probes")


def _certify(job: Job, store: Store, report: Report) -> None:
    settings, started, device = job.unit.settings, Started.now(), torch.device(job.device)
    network, forward = _subject(job, {**settings, "id": settings["network"]})
    found = certify(settings, network, inputs.test_images(job), device=device, forward=forward)
    shared = {"unit_id": job.unit.id, "evaluation": settings["evaluation"], "network_id": settings["network"]}
    record = {
        **shared,
        **{name: settings[name] for name in ("checkpoint", "noise_255", "draws", "selection", "abandon", "batch")},
        "data": settings["data"]["name"],
        "classes": data.info(settings["data"]["name"]).classes,
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "settings": canonical(settings),
        **provenance(
            job, started, device=device, precision=settings["precision"], compiled=forward is not network,
            kernel=_kernel(network, "example"),
        ),
    }
    rows = [{**shared, **row} for row in found]
    views = {"certificates": from_rows("certificates", rows), "certifications": from_rows("certifications", [record])}
    store.commit(job.unit.id, views, record="certifications")


def _subject(job: Job, role: Mapping[str, Any]) -> tuple[Network, Forward]:
    """Return one network of a unit; of two imported ones, each finds the modules of its own folder first."""
    lies = job.sources.get(role["id"])
    with source.importing(lies.root) if lies and lies.root is not None else contextlib.nullcontext():
        return inputs.trained(job.store, role["id"], role["checkpoint"], job.device, role["compile"], lies)


_DO: Mapping[str, Callable[[Job, Store, Report], None]] = {
    "train": _train, "import": _import, "evaluate": _evaluate, "probe": _probe,
    "certify": _certify,
}


def _kernel(network: Network, paths: str) -> str:
    """Return which computation the norm layers use: torch's kernels, or the mixture that path tensors select."""
    return "mixture" if not network.native or (network.paths.sizes and paths == "example") else "native"


def _log2_paths(network: Network) -> float:
    paths = network.paths
    return math.log2(len(paths.choices)) if paths.choices is not None else sum(map(math.log2, paths.sizes))
