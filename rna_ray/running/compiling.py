"""Whether a network is compiled, and where the graphs that this gives are kept, in this process and on this machine."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rna_ray.attacks.expectation import Forward
from rna_ray.networks.build import Network
from rna_ray.networks.precision import multiplies_bf16
from rna_ray.networks.spaces import parse
from rna_ray.running.tasks import Job
from rna_ray.sweep import cost

log = logging.getLogger(__name__)
CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that says where torch keeps compiled graphs, for all processes."""
NETWORKS_KEPT = 4
"""How many networks a process keeps, compiled or not."""
GRAPHS = 32
"""More than a network needs: attack, update and answers, each with and without gradients, at a few batch sizes."""
GRAPHS_KEPT = NETWORKS_KEPT * GRAPHS
"""How many graphs a process may keep once it compiles one network more."""
ONEDNN_BLOCK = 16
"""How many channels oneDNN takes at a time, at most."""

_forgotten = 0
"""How many graphs this process has made that it keeps no more."""


def compiles(job: Job, role: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
    """Return whether a unit compiles a network with these settings in a role, which says whether that is asked.

    On a CPU only in a unit that is long for so many norms at a layer, and not in bf16 where the processor does not
    multiply it: the compiler leaves the rounding of products out. Known before it starts and from the unit alone, so
    that no row hangs on a timing, or on what other images a sweep asks for.
    """
    if job.device != "cpu" or not role["compile"]:
        return role["compile"]
    members = len(parse(network["norm"]).members) if "norm" in network else 2  # an imported network's are not told
    return job.macs >= members * cost.COMPILED_MACS and (role["precision"] != "bf16" or multiplies_bf16())


def compiled(network: Network, asked: bool, device: torch.device) -> Forward:
    """Return the network, compiled where that is asked for, and there is a compiler and nothing that it would break."""
    if not asked:
        return network
    needed = ["g++", "clang++", "c++"] if device.type == "cpu" else ["gcc", "clang", "cc"]
    python_h = Path(sysconfig.get_path("include"), "Python.h")
    if not any(shutil.which(compiler) for compiler in needed) or not python_h.is_file():
        log.warning("compile: it takes one of %s and %s, so the network runs uncompiled", ", ".join(needed), python_h)
        return network
    if device.type == "cpu" and _overruns(network):
        log.warning(
            "compile: oneDNN may overrun its memory in a strided 1x1 convolution of fewer than %d channels (its issue "
            "6035), so the network runs uncompiled", ONEDNN_BLOCK,
        )  # fmt: skip
        return network
    _keep_apart()
    # A process does many units, and a graph serves all networks of an architecture. Those kept count towards a limit,
    # beyond which torch would go on uncompiled without a word: all go before one more network could reach it, even if
    # those that are there already were to make as many as they may.
    global _forgotten
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    if made - _forgotten > GRAPHS_KEPT - GRAPHS:
        torch.compiler.reset()
        _forgotten = made
    torch._dynamo.config.recompile_limit = 2 * GRAPHS_KEPT
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(network, dynamic=False)


def _overruns(network: Network) -> bool:
    """Return whether a network, compiled on a CPU, could write beyond its memory and take wrong gradients.

    oneDNN does so for the gradient of such a convolution's weights where the channels come last, as the compiler has
    them: on AVX2 below 8 channels, on AVX-512 below 16 where images are large. Evaluations, which take no such
    gradient, go the way of their network's training.
    """
    return any(
        isinstance(module, torch.nn.Conv2d)
        and module.in_channels // module.groups < ONEDNN_BLOCK
        and module.kernel_size == (1, 1) and module.stride != (1, 1)
        for module in network.modules()
    )  # fmt: skip


def _keep_apart() -> None:
    """Let torch keep graphs in a folder of this kind of processor, inside the one where it would keep them.

    torch does not ask for which vectors a graph was made: one of AVX-512, taken from a folder that machines share,
    answers nonsense where there is AVX2 alone, without a word. A cache_key_tag of torch's would keep the graphs apart,
    but not the libraries that are built for them with all instructions that a processor has.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # here, as torch.compile's own modules are

    if (folder := Path(cache_dir())).name != (kind := _processor()):  # a parent's may already be of its kind
        os.environ[CACHE] = str(folder / kind)


def _processor() -> str:
    """Return the name of a kind of processor: its vectors as torch uses them, and a digest of all that it can do."""
    vectors = torch.backends.cpu.get_cpu_capability()
    can = sorted(
        f"{name}={value}" for name, value in torch.cpu.get_capabilities().items()
        if value is True or name == "architecture" or name.endswith("_length")  # not how many cores, of which caches
    )  # fmt: skip
    return f"{vectors.lower().replace(' ', '-')}-{hashlib.sha256(' '.join(can).encode()).hexdigest()[:8]}"
