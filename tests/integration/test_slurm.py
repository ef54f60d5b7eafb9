"""The Slurm recipe as it stands, on this machine: its commands are played, the nodes and the sweep are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration_base import SECONDS, epochs_behind, processes_of, until

from rna_ray.store import Store, differences, open_store

SCRIPT = Path(__file__).parents[2] / "docs/clusters/slurm.sh"

# One task a node, all on this machine; they end with it, as Slurm sees to.
SRUN = """\
#!/bin/bash
while [[ $1 == --* ]]; do shift; done
trap 'kill $(jobs -p); wait' TERM
for ((task = 0; task < SLURM_NNODES; task++)); do SLURM_PROCID=$task "$@" & done
wait
"""
SCONTROL = """\
#!/bin/bash
echo "$@" >> "$PLAYED/said"
"""
# Runs the script with what its own #SBATCH lines ask for.
SBATCH = """\
#!/bin/bash
asked() { sed -n "s/^#SBATCH --$1=//p" "$SCRIPT"; }
SCRIPT=$1
shift
export SLURM_JOB_ID=4711 SLURM_NNODES=$(asked nodes) SLURM_CPUS_PER_TASK=1 SLURM_GPUS_ON_NODE=0
[[ $(asked signal) == B:USR1@300 ]] || exit 99
exec bash "$SCRIPT" "$@"
"""


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """A folder with Slurm's commands, as far as the recipe uses them."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "sbatch": SBATCH}.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def submitted(played: Path, store: Path) -> Iterator[list[subprocess.Popen[str]]]:
    jobs: list[subprocess.Popen[str]] = []
    yield jobs
    for job in jobs:
        for group in (job.pid, *(pid for pid, _ in processes_of(job.pid))):
            if group != job.pid or job.poll() is None:
                os.kill(group, signal.SIGKILL)


def submit(played: Path, store: Path, sweep: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PATH": f"{played}:{os.environ['PATH']}", "PLAYED": str(played), "RNA_RAY_STORE": str(store),
        "RNA_RAY_ENV": str(Path(sys.executable).parents[1]), "RNA_RAY_HEAD_IP": "127.0.0.1",
    }  # fmt: skip
    return subprocess.Popen(
        ["sbatch", SCRIPT, sweep], env=environment, executable=str(played / "sbatch"), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )


def test_a_job_whose_time_is_over_writes_checkpoints_queues_up_again_and_goes_on(
    played: Path, store: Path, sweep: Path, reference: Store, submitted: list[subprocess.Popen[str]]
) -> None:
    first = submit(played, store, sweep)
    submitted.append(first)
    until(lambda: store.exists() and any(epochs_behind(store).values()), first)
    os.kill(first.pid, signal.SIGUSR1)  # to the script alone, as B: says
    said, _ = first.communicate(timeout=SECONDS)
    assert first.returncode == 0, said
    assert (played / "said").read_text().splitlines() == ["requeue 4711"]
    assert len(open_store(store).done("evaluations")) < 10
    behind = {unit: len(epochs) for unit, epochs in epochs_behind(store).items()}
    assert any(behind.values())

    again = submit(played, store, sweep)
    submitted.append(again)
    said, _ = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, said
    assert len((played / "said").read_text().splitlines()) == 1  # what is done needs no other turn
    assert differences(reference, open_store(store)) == []
