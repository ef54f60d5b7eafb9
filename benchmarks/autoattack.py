"""AutoAttack standard on a network of one path, by two evaluators of one thread, against pyautoattack in one process.

    python benchmarks/autoattack.py [--repeat N] [--small]

Both attack the same shards of the digits with the same seeds, and their verdicts must agree example by example: that is
an assertion here. Ours are two of the pool's actors; the peer has one thread too. Each process does a shard to be warm.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from pairs import Apart, Comparison, Turn, in_turn, main, times
from subjects import done, folder, jobs

from rna_ray.running.tasks import Job
from rna_ray.store import open_store

MINUTES = 25
ACTORS = 2
EPS_255 = 40
"""More than the network was trained under, so that some images stand and some do not."""
SIZES = {
    False: {"width": 16, "epochs": 12, "examples": 128, "shard": 8},
    True: {"width": 4, "epochs": 1, "examples": 2, "shard": 1},
}  # fmt: skip


def compare(repeat: int, small: bool) -> Iterator[Comparison]:
    """Yield the row; AssertionError where a verdict differs."""
    size = SIZES[small]
    shard = {"batch": size["shard"], "shard": size["shard"]}
    sweep = {
        "name": "autoattack", "data": {"name": "digits", "held_out": 128},
        "network": {"name": "resnet8", "width": size["width"], "norm": "BN"},
        "training": {
            "objective": "whitebox", "epochs": size["epochs"], "batch": 64, "lr": 0.2,
            "schedule": {"name": "one-cycle"}, "attack": {"eps_255": 25.5, "step_255": 6.4, "steps": 5},
        },
        "evaluation": [
            {"attack": "autoattack", "eps_255": EPS_255, "examples": size["examples"], "checkpoint": "last", **shard}
        ],
    }  # fmt: skip
    store = open_store(folder() / "autoattack")
    network, *shards = jobs(sweep, store)
    with (
        Apart(f"rna-ray, {ACTORS} actors of 1 thread", actors, network, shards, threads=1) as ours,
        Apart("pyautoattack, 1 thread", library, network, shards, threads=1) as theirs,
    ):
        mine, peers = in_turn(ours, theirs, repeat=repeat, name="AutoAttack", warm=False)
        verdicts = {row["example"]: row["adversarial_correct"] == 1 for row in store.read("examples").to_pylist()}
        assert verdicts == theirs.said, f"ours and pyautoattack's verdicts differ: {verdicts} and {theirs.said}"
    stood = sum(verdicts.values())
    yield Comparison(
        row=f"AutoAttack standard, {len(verdicts)} images, {stood} stand", unit="seconds", goal=times(1.9),
        ours=ours.side(mine), peer=theirs.side(peers),
    )


def actors(turn: Turn, network: Job, shards: Sequence[Job]) -> None:
    """Measure the seconds in which two evaluators do all shards."""
    import ray
    from ray.util import ActorPool

    from rna_ray.running.on_ray import cluster
    from rna_ray.running.pool import Evaluator

    done(network)
    store = open_store(network.store)
    with cluster("local"):
        evaluators = [Evaluator.options(num_cpus=0).remote() for _ in range(ACTORS)]
        ray.get([actor.perform.remote([job]) for actor, job in zip(evaluators, shards, strict=False)])
        pool = ActorPool(evaluators)
        while True:
            for job in shards:
                store.discard(job.unit.id, "evaluations")
            started = time.perf_counter()
            ended = list(pool.map_unordered(lambda actor, job: actor.perform.remote([job]), shards))
            assert all(done.state == "done" for (done,) in ended), ended
            turn(time.perf_counter() - started)


def library(turn: Turn, network: Job, shards: Sequence[Job]) -> None:
    """Measure the seconds in which pyautoattack does all shards, one after the other, and say its verdicts."""
    import pyautoattack
    import torch

    from rna_ray import data
    from rna_ray.randomness import Randomness
    from rna_ray.running import inputs

    store, asked, images = open_store(network.store), network.unit, data.load("digits").test
    done(network)
    sha256 = inputs.weights_sha256(store, asked.id, "last")
    victim, _ = inputs.trained(network.store, asked.id, "last", sha256, "cpu", False)
    victim.eval()

    def attacked(job: Job) -> dict[int, bool]:
        start, stop = job.unit.settings["examples"]
        x = torch.from_numpy(images.images[start:stop]).float() / 255
        y = torch.from_numpy(images.labels[start:stop])
        seed = Randomness(job.unit.id).seed(f"attack/library/{start}/0")  # the unit's own, of this batch
        attack = pyautoattack.AutoAttack(victim, norm="Linf", eps=EPS_255 / 255, seed=seed, version="standard")
        _, predicted = attack.run_standard_evaluation(x, y, batch_size=len(x))
        return dict(zip(range(start, stop), (predicted == y).tolist(), strict=True))

    attacked(shards[0])
    while True:
        started, verdicts = time.perf_counter(), {}
        for job in shards:
            verdicts |= attacked(job)
        turn(time.perf_counter() - started, said=verdicts)


if __name__ == "__main__":
    main(compare, __doc__)
