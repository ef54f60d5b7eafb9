"""What this machine's processor computes fast."""

from __future__ import annotations

import contextlib
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_BF16 = {"flags": {"avx512bw", "avx512vl", "avx512dq"}, "Features": {"bf16"}}
"""What oneDNN's convolutions in bf16 take, as Linux lists it of an x86 and of an Arm processor."""


def slow_in_bf16() -> bool:
    """Return whether torch convolves bf16 value by value here, 10 to 30 times slower than fp32; False if unknown."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = _CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    said = {name.strip(): {*value.split()} for name, _, value in (line.partition(":") for line in lines)}
    return any(name in said and not needs <= said[name] for name, needs in _BF16.items())
