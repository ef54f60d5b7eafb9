"""Files that appear whole: written aside, then put into place by rename, together."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path


def put(contents: Mapping[Path, bytes]) -> None:
    """Write files and make the folders that they lack; OSError where that cannot be, and then none is there."""
    temporary = {path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp"): path for path in contents}
    try:
        for path in contents:
            path.parent.mkdir(parents=True, exist_ok=True)
        for path, data in zip(temporary, contents.values(), strict=True):
            path.write_bytes(data)
        for path, target in temporary.items():
            os.replace(path, target)
    finally:
        _remove(temporary)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # the folder is none, or may not be changed: that was said already
            return
