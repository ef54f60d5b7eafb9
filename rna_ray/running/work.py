"""Do one unit in this process: read what it needs, compute, commit its rows. The same code inline and on Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import math
import platform
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from rna_ray import data
from rna_ray.attacks.expectation import Forward
from rna_ray.errors import OutOfMemory, StoreError, sentence
from rna_ray.evaluation.certify import certify
from rna_ray.evaluation.evaluate import evaluate, path_sharing
from rna_ray.evaluation.knowledge import Knowledge
from rna_ray.networks import imported, source
from rna_ray.networks.build import Network
from rna_ray.probes.probe import probe
from rna_ray.running import compiling, inputs, memory, spawn
from rna_ray.running.faults import outside
from rna_ray.running.provenance import Started, provenance
from rna_ray.running.tasks import TOGETHER_SECONDS, Done, Job
from rna_ray.running.watch import GRACE_SECONDS, Watch, check_in, watching
from rna_ray.store import Store, open_store
from rna_ray.store.records import RECORDS, Views, from_rows
from rna_ray.sweep.units import Unit, canonical
from rna_ray.training.checkpoint import Checkpoints
from rna_ray.training.fit import Fitted, Report, Stopped, fit, try_batch
from rna_ray.training.workers import ALONE, Workers

log = logging.getLogger(__name__)

Commit = Callable[[Store, Unit, Views], None]


def perform_all(jobs: Sequence[Job]) -> list[Done]:
    """Do short units one after the other, each as `perform` does, and let the disk be waited for once for all of them.

    Returns how they ended, without those that are left once they have taken `TOGETHER_SECONDS`, or one was stopped.
    """
    if len(jobs) == 1:
        return [perform(jobs[0])]
    made: list[tuple[str, Views, str]] = []
    ended = _one_by_one(
        jobs, lambda _, unit, views: made.append((unit.id, views, RECORDS[unit.kind])), seconds=TOGETHER_SECONDS
    )
    try:
        open_store(jobs[0].store).commit_all(made)
    except Exception:  # of one of them: each is done once more by itself, and says so
        return _one_by_one(jobs[: len(ended)], _commit)
    return ended


def _one_by_one(jobs: Sequence[Job], commit: Commit, *, seconds: float = math.inf) -> list[Done]:
    """Do units until one is stopped, as the next would be for the same reason, or so many seconds have passed."""
    ended: list[Done] = []
    until = time.monotonic() + seconds
    for job in jobs:
        ended.append(perform(job, commit=commit))
        if ended[-1].state == "stopped" or time.monotonic() > until:
            break
    return ended


def _commit(store: Store, unit: Unit, views: Views) -> None:
    store.commit(unit.id, views, record=RECORDS[unit.kind])


def perform(job: Job, report: Report = lambda row: None, commit: Commit = _commit) -> Done:
    """Do a unit and commit its rows; an error is recorded in the store as a failure and does not leave this function.

    A unit that the store holds already is left alone, and so is one whose process left because its time was up. What
    the driver does not want any more, and what is not the unit's fault, stops it. `report` gets each epoch's row of a
    training, which commits its rows itself; `commit` those of all else.
    """
    started = time.perf_counter()
    try:
        state, why = _performed(job, report, commit)
    except StoreError as error:  # it does not answer, or cannot even take the failure
        state, why = "stopped", str(error)
    return Done(
        unit_id=job.unit.id, kind=job.unit.kind, state=state, seconds=time.perf_counter() - started, error=why
    )


def _performed(job: Job, report: Report, commit: Commit) -> tuple[Literal["done", "failed", "stopped"], str]:
    """Return how a unit ended, and why; StoreError where this machine cannot use the store."""
    store, unit = open_store(job.store), job.unit
    if why := check_in(job, store):
        return "stopped", why
    if why := store.failed(unit.id, job.attempt):
        return "failed", why
    done = store.is_done(unit.id, RECORDS[unit.kind])
    while not done:
        try:
            if views := _do(job, store, report):
                commit(store, unit, views)
            done = True
        except Stopped as stopped:
            return "stopped", str(stopped)
        except Exception as error:
            if why := outside(error):
                log.warning("unit %s stopped: %s", unit.id, why)
                return "stopped", why
            failure: Exception = error
            if memory.exhausted(error):
                failure, smaller = _out_of_memory(job, error)
                if smaller:
                    job = dataclasses.replace(job, batch=smaller)
                    continue
            _record_failure(store, job, failure)
            return "failed", sentence(failure)
    return "done", ""


def _do(job: Job, store: Store, report: Report) -> Views | None:
    """Do a unit, watched over, and return its rows, None where it committed them itself."""
    _settle(job)
    alone = job.unit.kind == "train" and job.workers == 1
    # Several workers watch over themselves; they come first, as they know where they were.
    limit = None if job.limit is None else job.limit + (GRACE_SECONDS if job.workers > 1 else 0.0)
    with watching(job, store, looks=alone, limit=limit) as watch, inputs.importing(job.sources.values()):
        return _DO[job.unit.kind](job, store, report, watch)


def _out_of_memory(job: Job, error: Exception) -> tuple[Exception, int | None]:
    """Return the failure of a unit that ran out of memory, and the smaller batch to do it with, if it may be.

    The batch that fits is measured: here, on this unit's own network and images.
    """
    kind, settings = job.unit.kind, job.unit.settings
    asked, device = memory.asked(error), torch.device(job.device)
    memory.release(error)
    there = memory.there_is(device)
    said = f"out of memory: {asked}; there was {there}"
    attempt = _ATTEMPTS.get(kind)
    if attempt is None:
        return _failed(said, error), None
    batch = job.batch or (settings["training"] if kind == "train" else settings)["batch"]
    with inputs.importing(job.sources.values()):
        fits = memory.fitting(batch, functools.partial(attempt, job))
    said = f"out of memory with a batch of {batch}: {asked}; there was {there}"
    section, key = ("train", "training.batch") if kind == "train" else ("evaluate", "batch")
    if fits is None and memory.unsure(error):
        return error, None
    if fits is None:
        return _failed(f"{said}; no smaller batch fits", error), None
    said += f"; a batch of {fits} fits: write {key}: {fits}"
    if not _may_shrink(job):
        return _failed(f"{said} (its batch counts, so it is not made smaller by itself)", error), None
    if not job.smaller_batches:
        return _failed(f"{said}, or resources.{section}.smaller_batches: true", error), None
    log.warning("unit %s is done with a batch of %s instead of %s", job.unit.id, fits, batch)
    return _failed(said, error), fits


def _failed(said: str, error: Exception) -> OutOfMemory:
    failure = OutOfMemory(said)
    failure.__cause__ = error
    return failure


def _try_training(job: Job, batch: int) -> None:
    settings, device = _with_batch(job.unit.settings, batch), torch.device(job.device)
    train, held_out = inputs.training_images(settings["data"], job)
    network = inputs.initial(job).to(device)
    forward = compiling.compiled(network, compiling.compiles(job, settings, settings["network"]), device)
    try_batch(settings, network, train, held_out, device=device, forward=forward, count=job.workers)


def _try_evaluation(job: Job, batch: int) -> None:
    settings, device = job.unit.settings, torch.device(job.device)
    start = settings["examples"][0]
    few = {**settings, "batch": batch, "examples": (start, min(start + batch, settings["examples"][1]))}
    network, forward, _ = _subject(job, {**settings, "id": settings["network"]})
    attacked = _subject(job, settings["source"])[:2] if "source" in settings else None
    evaluate(few, job.unit.id, network, inputs.test_images(job), device=device, forward=forward, source=attacked)


def _try_certification(job: Job, batch: int) -> None:
    settings, device = job.unit.settings, torch.device(job.device)
    start = settings["examples"][0]
    few = {**settings, "batch": batch, "examples": (start, start + 1), "selection": batch, "draws": 1}
    network, forward, _ = _subject(job, {**settings, "id": settings["network"]})
    certify(few, network, inputs.test_images(job), device=device, forward=forward)


_ATTEMPTS: Mapping[str, Callable[[Job, int], None]] = {
    "train": _try_training, "evaluate": _try_evaluation, "certify": _try_certification,
}
"""What shows whether a batch of a unit fits: one such batch, done for nothing."""


def _may_shrink(job: Job) -> bool:
    """Return whether a smaller batch leaves the meaning of a unit as it is, or is a training, whose rows then say so.

    It does not where examples of a batch hang together: by its statistics, by a path that they share, or in what the
    user's own code makes of them.
    """
    settings = job.unit.settings
    if job.unit.kind != "evaluate":
        return True
    network, *_ = _subject(job, {**settings, "id": settings["network"]})
    attacked = _subject(job, settings["source"])[0] if "source" in settings else None
    if settings["eval"] != "eval" or "attack_mode" in settings or job.sources:
        return False
    return path_sharing(settings, network, attacked) == "example" and not any(
        one is not None and one.batch_dependent for one in (network, attacked)
    )


def _with_batch(settings: Mapping[str, Any], batch: int | None) -> dict[str, Any]:
    """Return the settings of a unit with another batch, if one is given."""
    if batch is None:
        return dict(settings)
    if "training" not in settings:
        return {**settings, "batch": batch}
    training = settings["training"]
    return {**settings, "training": {**training, "batch": batch, "batch_asked": training["batch"]}}


def _settle(job: Job) -> None:
    """Make sums of floats repeat: the threads that the sweep file gives, plain fp32, the same kernels every time.

    And let the process keep its memory, which makes them fast.
    """
    memory.keep()
    torch.set_num_threads(job.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _record_failure(store: Store, job: Job, error: Exception) -> None:
    log.warning("unit %s failed: %s", job.unit.id, sentence(error))
    store.fail(
        job.unit.id, kind=job.unit.kind, attempt=job.attempt, error=type(error).__name__, message=str(error),
        traceback="".join(traceback.format_exception(error)), host=platform.node(),
    )


def _train(job: Job, store: Store, report: Report, watch: Watch) -> None:
    if job.workers == 1:
        _train_as(job, ALONE, report, watch)
    else:
        spawn.together(train_together, job, report)


def train_together(job: Job, workers: Workers, report: Report) -> None:
    """Train a unit as one of several workers, in a process of its own."""
    _settle(job)
    try:
        with watching(job, open_store(job.store), looks=workers.first, limit=job.limit, last=False) as watch:
            _train_as(job, workers, report, watch)
    except Stopped:
        if not workers.first:  # which says why, and is heard to the end
            threading.Event().wait()
        raise


def _train_as(job: Job, workers: Workers, report: Report, watch: Watch) -> None:
    """Train a unit's network; the first worker commits its rows."""
    settings, started = _with_batch(job.unit.settings, job.batch), Started.now()
    store, device = open_store(job.store), workers.device(job.device)
    train, held_out = inputs.training_images(settings["data"], job)
    network = inputs.initial(job).to(device)
    forward = compiling.compiled(network, compiling.compiles(job, settings, settings["network"]), device)
    checkpoints = Checkpoints(store, job.unit.id, job.code.commit)
    try:
        fitted = fit(
            settings, network, train, held_out, checkpoints, device=device, forward=forward, report=report,
            workers=workers, checkpoint_seconds=job.checkpoint_seconds, stop=watch.asked,
        )
    except Stopped:
        raise Stopped(watch.reason) from None
    if not workers.first:
        return
    made = provenance(
        job, started, device=device, precision=settings["precision"], compiled=forward is not network,
        kernel=_kernel(network, settings["network"]["paths"]) if workers.count == 1 else "mixture",
    )
    rows = [{"unit_id": job.unit.id, **row} for row in fitted.epochs]
    trial = _trial(job.unit, network, fitted) | made | _earlier(made, checkpoints)
    if job.batch:
        trial |= {"batch": job.batch, "batch_asked": job.unit.settings["training"]["batch"]}
    store.commit(
        job.unit.id, {"epochs": from_rows("epochs", rows), "trials": from_rows("trials", [trial])}, record="trials"
    )
    checkpoints.drop_resume()
    (kept,) = store.read_file("trials", job.unit.id).select(["best_sha256", "last_sha256"]).to_pylist()
    checkpoints.keep_only(kept.values())  # of the attempt that counts, be it this one or not


def _earlier(made: Mapping[str, Any], checkpoints: Checkpoints) -> dict[str, Any]:
    """Return which other code trained epochs of a network that was resumed."""
    mine = {"rna_ray": made["rna_ray"], "commit": made["commit"]}
    earlier = [one for one in checkpoints.made_by() if one != mine]
    return {"earlier_code": canonical(earlier) if earlier else None}


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


def _import(job: Job, store: Store, report: Report, watch: Watch) -> Views:
    """Take a network that was trained elsewhere into the store, once it has shown that it can be evaluated."""
    settings, started, given = job.unit.settings, Started.now(), job.unit.settings["network"]
    device, info = torch.device(job.device), data.info(settings["data"])
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
    return {"trials": from_rows("trials", [trial])}


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


def _evaluate(job: Job, store: Store, report: Report, watch: Watch) -> Views:
    settings, started = _with_batch(job.unit.settings, job.batch), Started.now()
    device = torch.device(job.device)
    network, forward, sha256 = _subject(job, {**settings, "id": settings["network"]})
    attacked = _subject(job, settings["source"]) if "source" in settings else None
    found = evaluate(
        settings, job.unit.id, network, inputs.test_images(job), device=device, forward=forward,
        source=attacked and attacked[:2],
    )  # fmt: skip
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
        "batch_asked": job.unit.settings["batch"] if job.batch else None,
        **vars(found.behaviour),
        "flags": canonical(found.notes) if found.notes else None,
        "path_sharing": found.path_sharing,
        "batch_statistics": found.batch_statistics,
        "weights_sha256": sha256,
        "source_sha256": attacked[2] if attacked else None,
        "settings": canonical(job.unit.settings),
        **provenance(
            job, started, device=device, precision=settings["precision"], compiled=forward is not network,
            kernel=_kernel(network, settings["paths"]),
        ),
    }
    return {"examples": from_rows("examples", rows), "evaluations": from_rows("evaluations", [record])}


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


def _probe(job: Job, store: Store, report: Report, watch: Watch) -> Views:
    settings, started, device = job.unit.settings, Started.now(), torch.device(job.device)
    roles = [settings[role] for role in ("source", "network") if role in settings]
    networks, forwards, sha256s = zip(*(_subject(job, role) for role in roles), strict=True)
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
        "classes": data.info(settings["data"]).classes,
        "attack_settings": canonical(attack) if attack else None,
        "eps_255": attack["eps_255"] if attack else None,
        "eps_space": attack.get("eps_space", "pixel") if attack else None,
        "threat": attack["threat"] if attack else None,
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "weights_sha256": sha256s[-1],
        "source_sha256": sha256s[0] if len(roles) == 2 else None,
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
    return {**views, "probes": from_rows("probes", [record])}


def _certify(job: Job, store: Store, report: Report, watch: Watch) -> Views:
    settings, started = _with_batch(job.unit.settings, job.batch), Started.now()
    device = torch.device(job.device)
    network, forward, sha256 = _subject(job, {**settings, "id": settings["network"]})
    found = certify(settings, network, inputs.test_images(job), device=device, forward=forward)
    shared = {"unit_id": job.unit.id, "evaluation": settings["evaluation"], "network_id": settings["network"]}
    record = {
        **shared,
        **{name: settings[name] for name in ("checkpoint", "noise_255", "draws", "selection", "abandon", "batch")},
        "batch_asked": job.unit.settings["batch"] if job.batch else None,
        "data": settings["data"]["name"],
        "classes": data.info(settings["data"]).classes,
        "start": settings["examples"][0],
        "stop": settings["examples"][1],
        "weights_sha256": sha256,
        "settings": canonical(job.unit.settings),
        **provenance(
            job, started, device=device, precision=settings["precision"], compiled=forward is not network,
            kernel=_kernel(network, "example"),
        ),
    }
    rows = [{**shared, **row} for row in found]
    return {"certificates": from_rows("certificates", rows), "certifications": from_rows("certifications", [record])}


def _subject(job: Job, role: Mapping[str, Any]) -> tuple[Network, Forward, str]:
    """Return one network of a unit, with the SHA-256 of its weights.

    Of two imported ones, each finds the modules of its own folder first.
    """
    lies, trial = job.sources.get(role["id"]), inputs.trial(open_store(job.store), role["id"])
    sha256 = trial[f"{role['checkpoint']}_sha256"]
    compile = compiling.compiles(job, role, json.loads(trial["settings"])["network"])
    with source.importing(lies.root) if lies and lies.root is not None else contextlib.nullcontext():
        one = (job.store, role["id"], role["checkpoint"], sha256, job.device, compile, lies)
        return *inputs.trained(*one), sha256


_DO: Mapping[str, Callable[[Job, Store, Report, Watch], Views | None]] = {
    "train": _train, "import": _import, "evaluate": _evaluate, "probe": _probe,
    "certify": _certify,
}


def _kernel(network: Network, paths: str) -> str:
    """Return which computation the norm layers use: torch's kernels, or the mixture that path tensors select."""
    return "mixture" if not network.native or (network.paths.sizes and paths == "example") else "native"


def _log2_paths(network: Network) -> float:
    paths = network.paths
    return math.log2(len(paths.choices)) if paths.choices is not None else sum(map(math.log2, paths.sizes))
