"""A command line in this process, as the `rna-ray` script would run it, for tests that call it hundreds of times."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from unittest import mock

from rna_ray import cli


@dataclasses.dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def one_sentence(self) -> bool:
        """Whether it ended as a mistake does: one line on stderr, nothing on stdout."""
        line = self.err.startswith("rna-ray: ") and self.err.endswith("\n") and self.err.count("\n") == 1
        return self.code == 2 and not self.out and line


class _Output(io.StringIO):
    """Text as on a terminal's stdout, whose bytes can be written too."""

    @property
    def buffer(self) -> _Bytes:  # type: ignore[override]
        return _Bytes(self)


class _Bytes:
    def __init__(self, text: _Output) -> None:
        self.text = text

    def write(self, data: bytes) -> None:
        self.text.write(data.decode())

    def flush(self) -> None:
        pass


def rna(*words: object) -> Ended:
    """Run a command to its end; what it raises beyond its own errors goes on to the test."""
    out, err = _Output(), io.StringIO()
    code = 0
    argv = mock.patch.object(sys, "argv", ["rna-ray", *map(str, words)])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), argv:
        try:
            cli.main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return Ended(code, out.getvalue(), err.getvalue())
