"""What the system's list of a processor's features says of bf16."""

from __future__ import annotations

from pathlib import Path

import pytest

from rna_ray.running import processor


@pytest.mark.parametrize(
    ("said", "slow"),
    [
        ("flags\t\t: fpu avx2 fma\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512bw avx512dq avx512vl\n", False),
        ("Features\t: fp asimd sve\n", True),
        ("Features\t: fp asimd sve bf16 i8mm\n", False),
        ("flags\t\t: fpu avx2\n\nflags\t\t: avx512bw avx512dq avx512vl\n", True),
        ("processor\t: 0\n", False),
        (None, False),
    ],
)
def test_a_processor_that_does_not_multiply_bf16_is_known_by_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, slow: bool
) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    if said is not None:
        (tmp_path / "cpuinfo").write_text(said)
    assert processor.slow_in_bf16() is slow


def test_torch_takes_its_fast_kernels_just_where_this_says_so() -> None:
    import torch

    if not Path("/proc/cpuinfo").is_file():
        pytest.skip("no list of the processor's features here")
    assert processor.slow_in_bf16() is not torch.ops.mkldnn._is_mkldnn_bf16_supported()
