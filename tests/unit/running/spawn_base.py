"""What workers do in the tests of starting them: functions that a new process finds by name."""

from __future__ import annotations

import os
import signal
import threading

import torch

from rna_ray.running.spawn import Report
from rna_ray.running.tasks import Job
from rna_ray.training.workers import Workers


def fail_in_the_second(job: Job, workers: Workers, report: Report) -> None:
    """Raise in one worker while the other waits for it."""
    if workers.rank == 1:
        raise ZeroDivisionError("the second worker has no images")
    workers.sum([torch.zeros(3)])


def die_in_the_second(job: Job, workers: Workers, report: Report) -> None:
    """Die in one worker without a word while the other waits for it."""
    if workers.rank == 1:
        os._exit(7)
    workers.sum([torch.zeros(3)])


def kill_the_second(job: Job, workers: Workers, report: Report) -> None:
    """Kill one worker as the kernel does where memory runs out."""
    if workers.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    workers.sum([torch.zeros(3)])


def wait_for_ever(job: Job, workers: Workers, report: Report) -> None:
    """Report who this is, and never end."""
    report({"pid": os.getpid()})
    threading.Event().wait()
