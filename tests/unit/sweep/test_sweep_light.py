from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SWEEPS = Path(__file__).parents[3] / "sweeps"


def test_planning_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys\n"
        "from rna_ray.sweep.plan import plan\n"
        "from rna_ray.sweep.spec import load\n"
        "from rna_ray.sweep.status import subtract\n"
        f"subtract(plan(load({str(SWEEPS / 'quickstart.yaml')!r}), digest=lambda data: data.name), set(), {{}})\n"
        "print(sorted({'torch', 'ray', 'torchattacks', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
