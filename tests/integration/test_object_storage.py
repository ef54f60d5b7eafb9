"""A whole sweep on an object store: slow and failing requests, an endpoint that dies, images that lie there too."""

from __future__ import annotations

import gzip
import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from integration_base import UNITS, Run, Start, until
from object_store import ObjectStore, free_port, listening

from rna_ray.data import mnist
from rna_ray.store import Store, connect, differences, open_store
from rna_ray.store.files import open_files

FAULTS = {"500": 0.02, "503": 0.03, "reset": 0.02, "lost": 0.02, "half": 0.01}
_names = itertools.count()
_ELSEWHERE = """\
name: elsewhere
data: {name: mnist, root: "ROOT", train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4, norm: BN}
training: {objective: natural, epochs: 1, batch: 32}
evaluation:
  - {attack: natural, examples: 80, batch: 20, shard: 20}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RNA_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def uri(object_store: ObjectStore) -> str:
    """An address at which there is no store yet."""
    return object_store.uri(f"store-{next(_names)}")


def kinds(store: Store) -> dict[str, int]:
    return {view: store.read(view).num_rows for view in UNITS}


def test_a_sweep_among_slow_and_failing_requests_gives_the_rows_of_a_local_one(
    run: Run, sweep: Path, uri: str, object_store: ObjectStore, reference: Store, tmp_path: Path, own_cache: Path
) -> None:
    with object_store.faults(odds=FAULTS, seconds=0.02, seed=7) as faults:
        ended = run("run", sweep, "--store", uri, "--json")
        assert ended.code == 0 and not ended.document["failures"], ended.err
        assert ended.document["ran"] == sum(UNITS.values())
        again = run("resume", "small", "--store", uri, "--json")
        assert (again.code, again.document["ran"]) == (0, 0), again.err
        table = run("table", "small", "--store", uri)
        figure = run("figure", "small", "--store", uri, "-o", tmp_path)
        compared = run("compare", reference.uri, uri)
    assert len({fault for fault, _ in faults.done}) == len(FAULTS), "every fault is to have happened"
    assert (compared.code, compared.out) == (0, "the stores hold the same rows\n"), compared.out + compared.err
    assert (table.code, table.out) == (0, run("table", "small", "--store", reference.uri).out), table.err
    assert figure.code == 0 and (tmp_path / "small.png").stat().st_size > 0, figure.err
    stored = open_store(uri)
    assert kinds(stored) == UNITS and not stored.failures()
    assert len(list((own_cache / "weights").glob("*.safetensors"))) == UNITS["trials"]
    question = "SELECT sum(adversarial_correct), count(*) FROM examples"
    assert connect(stored).execute(question).fetchall() == connect(reference).execute(question).fetchall()


@pytest.fixture
def mortal(object_store: ObjectStore) -> Iterator[tuple[int, list[str]]]:
    """The port of an endpoint in a process of its own, that can be killed, and what starts it."""
    port = free_port()
    script = Path(__file__).parents[1] / "object_store.py"
    yield port, [str(script), str(port), str(object_store.behind)]


def trained_some(uri: str) -> bool:
    """Return whether a training has a state to resume from in the store."""
    return any(path.base_name == "resume.json" for path in open_files(uri).below(PurePosixPath("checkpoints")))


def test_an_endpoint_that_is_killed_for_a_moment_costs_nothing(
    start: Start, sweep: Path, uri: str, object_store: ObjectStore, mortal: tuple[int, list[str]], reference: Store
) -> None:
    port, words = mortal
    behind_it = uri.replace(str(object_store.proxy.port), str(port))
    with listening(words, port) as endpoint:
        driver = start("run", sweep, "--store", behind_it, "--json")
        driver.until(lambda: trained_some(uri))
        endpoint.kill()
        endpoint.wait()
    time.sleep(4)  # nobody answers
    with listening(words, port):
        ended = driver.ended()
    assert ended.code == 0 and not ended.document["failures"], ended.err
    stored = open_store(uri)
    assert differences(reference, stored) == [] and not stored.failures() and kinds(stored) == UNITS


def test_an_endpoint_that_stays_away_ends_the_run_and_the_next_one_goes_on(
    start: Start, run: Run, sweep: Path, uri: str, object_store: ObjectStore, mortal: tuple[int, list[str]],
    reference: Store,
) -> None:  # fmt: skip
    port, words = mortal
    behind_it = uri.replace(str(object_store.proxy.port), str(port))
    with listening(words, port) as endpoint:
        driver = start("run", sweep, "--store", behind_it, "--address", "inline")
        driver.until(lambda: trained_some(uri))
        endpoint.kill()
        endpoint.wait()
    ended = driver.ended()
    assert ended.code not in (0, 130) and "Traceback" not in ended.err, ended.err
    assert "no answer" in ended.err
    resumed = run("run", sweep, "--store", uri, "--address", "inline", "--json")
    assert resumed.code == 0, resumed.err
    stored = open_store(uri)
    assert differences(reference, stored) == [] and kinds(stored) == UNITS and not stored.failures()


def test_images_on_an_object_store_are_copied_once_for_all_processes(
    run: Run, uri: str, object_store: ObjectStore, tmp_path: Path, own_cache: Path
) -> None:
    images = open_files(object_store.uri("mnist"))
    for name, shape in zip(mnist.NAMES, ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)), strict=True):
        header = bytes([0, 0, 8, len(shape)]) + b"".join(side.to_bytes(4, "big") for side in shape)
        blank = bytes(shape[0] * (784 if len(shape) == 3 else 1))
        images.write(PurePosixPath(f"{name}.gz"), gzip.compress(header + blank, 1))
    sweep = tmp_path / "elsewhere.yaml"
    sweep.write_text(_ELSEWHERE.replace("ROOT", images.uri))
    with object_store.counted() as requests:
        ended = run("run", sweep, "--store", uri, "--json")  # a driver, a trial and two evaluators
    assert ended.code == 0 and ended.document["ran"] == 5, ended.err
    read = [request for request in requests if request.startswith("GET /bucket/mnist/")]
    assert len(read) == len(set(read)) == 4
    (copied,) = [path for path in (own_cache / "data").iterdir() if path.is_dir()]
    shutil.rmtree(copied)
    again = run("plan", sweep, "--store", uri, "--json")  # another copy, the same content, the same ids
    assert again.code == 0 and again.document["units"]["evaluate"]["done"] == 4, again.err
    assert until(lambda: copied.is_dir())
