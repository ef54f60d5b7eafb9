"""What is not the unit's fault is no failed attempt."""

from __future__ import annotations

import errno
import os

import pytest

from rna_ray.errors import CheckpointError, DataError, StoreError
from rna_ray.running.faults import outside


def raised(message: str, cause: BaseException | None = None) -> StoreError:
    error = StoreError(message)
    error.__cause__ = cause
    return error


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "error",
    [
        full(),
        raised(f"cannot write /s/a: {full()}", full()),
        raised("cannot write /s/a", full()),
        RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos: No space left on device"),
        DataError("cannot read /data/train.bin: No such file or directory"),
        raised("cannot read s3/a", OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7")),
        raised("cannot look at s3/a: AWS Error SLOW_DOWN during HeadObject operation"),
        raised("cannot list /nfs/a", OSError(errno.ESTALE, os.strerror(errno.ESTALE))),
    ],
)
def test_a_disk_a_store_or_data_that_let_a_unit_down(error: Exception) -> None:
    said, cause = outside(error), error.__cause__
    assert said is not None and said.startswith(str(error)) and (cause is None or str(cause) in said)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a setting"),
        raised("cannot write /s/a: [Errno 21] Is a directory", IsADirectoryError(errno.EISDIR, "Is a directory")),
        raised("the store has no file /s/trials/a", FileNotFoundError(errno.ENOENT, "No such file or directory")),
        raised("cannot read s3/a", OSError("AWS Error NO_SUCH_KEY during GetObject operation: no such key")),
        CheckpointError("the weights are damaged"),
        ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),  # of a user's own code
    ],
)
def test_what_is_the_units_own_fault(error: Exception) -> None:
    assert outside(error) is None
