"""Start the processes that train one network together, hear what they say, and let none of them outlive the unit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rna_ray.errors import UnitError
from rna_ray.running.tasks import Job
from rna_ray.training.fit import Report
from rna_ray.training.workers import Workers, join, leave

Do = Callable[[Job, Workers, Report], None]
"""What each worker does; a function of a module, so that a new process finds it."""

_DONE = "done"
_TURN_SECONDS = 0.5
_ECHO_SECONDS = 1.0  # for a death to show of which another worker's error may only be the echo


def together(do: Do, job: Job, report: Report) -> None:
    """Do a job in `job.workers` new processes; `report` gets, in this process, what they report.

    The first error of any worker ends them all and is raised here, and so does what `report` raises, and Ctrl-C. Where
    this process dies, they end too.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share the locks of torch's threads
    with tempfile.TemporaryDirectory(prefix="rna-ray-") as folder, contextlib.ExitStack() as stack:
        said: dict[Connection, BaseProcess] = {}
        for rank in range(job.workers):
            receiver, sender = context.Pipe(duplex=False)
            given = (do, job, rank, str(Path(folder, "meeting")), sender)
            process = context.Process(target=_work, args=given, name=f"worker {rank}", daemon=True)
            said[receiver] = process
            stack.callback(_end, process)
            process.start()
            sender.close()  # so that the pipe ends with the worker
        for message in _messages(said):
            if message is not None:
                report(message)


def _messages(said: dict[Connection, BaseProcess]) -> Iterator[dict[str, Any] | None]:
    """Yield what the workers report until all are done, and None now and then, when the caller may be interrupted.

    Raises the error of the first that has one, or that died.
    """
    processes = list(said.values())
    while said:
        yield None
        for receiver in wait(list(said), timeout=_TURN_SECONDS):
            assert isinstance(receiver, Connection)
            try:
                message = receiver.recv()
            except EOFError:
                said[receiver].join()
                raise _died(said[receiver], len(processes)) from None
            if isinstance(message, Exception):
                wait([process.sentinel for process in processes], timeout=_ECHO_SECONDS)
                dead = next((process for process in processes if process.exitcode), None)
                raise message if dead is None else _died(dead, len(processes))
            if message == _DONE:
                del said[receiver]
            else:
                yield message


def _died(process: BaseProcess, count: int) -> UnitError:
    code = process.exitcode or 0
    how = f"with exit status {code}" if code >= 0 else f"of signal {-code} ({signal.strsignal(-code)})"
    return UnitError(f"{process.name} of {count} died {how}")


def _end(process: BaseProcess) -> None:
    if process.pid is not None:
        process.kill()  # none of them holds anything that a checkpoint does not
        process.join()


def _work(do: Do, job: Job, rank: int, meeting: str, sender: Connection) -> None:
    """Be one worker: what a new process runs."""
    for number in (signal.SIGINT, signal.SIGTERM):  # which a group gets as one, are for who started this process
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        workers = join(rank, job.workers, meeting=meeting, kind=job.device)
        do(job, workers, sender.send)
    except Exception as error:
        sender.send(_sendable(error, rank))
        threading.Event().wait()  # to leave would give the others an error of their own
    leave()
    sender.send(_DONE)


def _follow() -> None:
    """End this process with the one that started it, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sendable(error: Exception, rank: int) -> Exception:
    """Return an error with its traceback as a note, as another process can read it."""
    error.add_note(f"in worker {rank}:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # whatever an error's class makes of it
        plain = UnitError(f"{type(error).__name__}: {error}")
        plain.add_note(error.__notes__[-1])
        return plain
