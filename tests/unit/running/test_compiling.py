"""A network is compiled where that pays and breaks nothing, and gives what it gives uncompiled."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_work import train

from rna_ray.attacks.catalog import find
from rna_ray.networks import paths
from rna_ray.randomness import Randomness
from rna_ray.running import compiling, inputs
from rna_ray.running.tasks import Job
from rna_ray.running.work import perform
from rna_ray.store import open_store
from rna_ray.sweep import cost, units
from rna_ray.training.checkpoint import Checkpoints

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_compiling_falls_back_where_there_is_no_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = inputs.built(train().settings, "unit")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert compiling.compiled(network, True, CUDA) is network
    assert "compile: it takes one of gcc, clang, cc and " in caplog.text
    assert "Python.h, so the network runs uncompiled" in caplog.text
    caplog.clear()
    assert compiling.compiled(network, True, CPU) is network  # where torch compiles C++
    assert "compile: it takes one of g++, clang++, c++ and " in caplog.text
    caplog.clear()
    assert compiling.compiled(network, False, CUDA) is network and not caplog.text


def test_compiling_falls_back_where_there_is_no_python_h(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = inputs.built(train().settings, "unit")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    assert compiling.compiled(network, True, CUDA) is network
    assert f"cc and {tmp_path}/Python.h, so the network runs uncompiled" in caplog.text


@pytest.mark.parametrize("width", [4, 8, 16])
def test_what_would_overrun_its_memory_is_not_compiled(
    width: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = inputs.built(train(width=width).settings, "unit")
    monkeypatch.setattr(torch, "compile", lambda network, **options: "compiled")
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name)
    monkeypatch.setattr(compiling.Path, "is_file", lambda path: True)  # Python.h
    found = compiling.compiled(network, True, CPU)
    assert (found, "its issue 6035" in caplog.text) == ((network, True) if width < 16 else ("compiled", False))
    assert compiling.compiled(network, True, CUDA) == "compiled"


@pytest.mark.parametrize("native", [True, False])
def test_on_a_cpu_only_long_units_are_compiled_and_no_rounding(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "multiplies_bf16", lambda: native)
    asked = {"compile": True, "precision": "bf16"}
    short = Job(unit=train(), store="", root=None, download=False, threads=1, device="cpu", attempt=1)
    long, two = dataclasses.replace(short, macs=2 * cost.COMPILED_MACS), {"norm": "BN+IN"}
    assert compiling.compiles(long, asked, two) is native
    assert compiling.compiles(long, asked | {"precision": "fp32"}, two)
    assert compiling.compiles(long, asked, {"import": "nets:Net"}) is native
    assert not compiling.compiles(short, asked, two)
    assert not compiling.compiles(long, asked | {"compile": False}, two)
    three = {"norm": "BN+IN+LN"}
    assert not compiling.compiles(long, asked, three)
    assert compiling.compiles(dataclasses.replace(long, macs=3 * cost.COMPILED_MACS), asked, three) is native
    assert compiling.compiles(dataclasses.replace(short, device="cuda"), asked, three)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_networks_of_an_architecture_share_their_graphs_until_these_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiler))

    def made(norm: str, seed: int) -> int:
        """Return how many graphs the passes of one more network took, which is gone after them."""
        before, settings = len(graphs), train(norm, width=compiling.ONEDNN_BLOCK).settings
        network = inputs.built(settings, f"u{seed}").requires_grad_(False)
        forward, x = compiling.compiled(network, True, CPU), torch.rand(4, 1, 8, 8)
        path = network.paths.draw(Randomness("u"), "path", torch.arange(4), step=seed)
        for mode in ("eval", "train_frozen"):
            with paths.mode(network, mode), paths.following(network, path):
                torch.testing.assert_close(forward(x), network(x), rtol=1e-4, atol=1e-5)
        return len(graphs) - before

    torch.compiler.reset()
    monkeypatch.setattr(compiling, "_forgotten", torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert [made("BN+IN", 0), made("BN+IN", 1), made("BN+LN", 0), made("BN+LN", 1)] == [2, 0, 2, 0]
    assert made("BN+IN", 2) == 0
    monkeypatch.setattr(compiling, "GRAPHS_KEPT", compiling.GRAPHS)
    assert [made("BN+IN", 3), made("BN+IN", 4)] == [2, 2]
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_a_long_unit_is_compiled_and_makes_the_same_update(tmp_path: Path) -> None:
    # Smooth throughout, and one update: at a kink of ReLU or a sign a rounding makes another one.
    attack = {"name": "pgd", **find("pgd").settings({"threat": "l2", "steps": 1, "eps_255": 255, "step_255": 128})}
    settings = train(compile=True, width=compiling.ONEDNN_BLOCK, epochs=1, batch=64, attack=attack).settings
    unit = units.train({**settings, "network": {**settings["network"], "activation": "silu"}})
    losses, weights = {}, {}
    for name, macs in (("short", 0), ("long", 4 * cost.COMPILED_MACS)):
        store = open_store(tmp_path / name)
        job = Job(
            unit=unit, store=store.uri, root=None, download=False, threads=1, device="cpu", attempt=1, macs=macs
        )
        assert perform(job).state == "done"
        (trial,) = store.read("trials").to_pylist()
        assert trial["state"] == "finished" and trial["compiled"] is (name == "long")
        (losses[name],) = store.read("epochs").select(["loss", "adversarial_loss"]).to_pylist()
        weights[name], _ = Checkpoints(store, unit.id).read("last", trial["last_sha256"])
    assert losses["long"] == pytest.approx(losses["short"], rel=1e-5)
    torch.testing.assert_close(weights["long"], weights["short"], rtol=1e-4, atol=1e-5)


def test_graphs_are_kept_in_a_folder_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, detected = [], dict(torch.cpu.get_capabilities())
    for cores, avx2 in ((2, True), (4, True), (4, False)):
        given = detected | {"num_physical_cores": cores, "avx2": avx2}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda given=given: given)
        monkeypatch.setenv(compiling.CACHE, str(tmp_path))
        for _ in range(2):  # for two networks, or by a process and its child
            compiling._keep_apart()
        folders.append(Path(os.environ[compiling.CACHE]))
    assert {folder.parent for folder in folders} == {tmp_path}
    assert folders[0] == folders[1] != folders[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="this processor has no AVX-512")
def test_no_graph_of_another_processor_is_taken_from_a_shared_folder(tmp_path: Path) -> None:
    code = """if True:
        import torch
        from rna_ray.running.compiling import compiled
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.LayerNorm(64))
        forward, x = compiled(network, True, torch.device("cpu")), torch.randn(8, 64)
        torch.testing.assert_close(forward(x), network(x))
    """
    for capability in ("avx512", "avx2"):
        here = {**os.environ, compiling.CACHE: str(tmp_path), "ATEN_CPU_CAPABILITY": capability}
        ended = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["avx2", "avx512"]
