"""The small valid sweep that the tests of this room change one thing at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from safetensors.numpy import save

from rna_ray.sweep.experiment import SweepSpec
from rna_ray.sweep.plan import Plan

BASE = """\
name: base
data: {name: digits, held_out: 128}
network: {name: resnet8, width: 16, norm: BN+IN}
training: {objective: blackbox, epochs: 3, attack: {eps_255: 25.5, step_255: 6.4, steps: 5}}
evaluation:
  - {attack: pgd, examples: 200, knowledge: eot-10}
"""

WEIGHTS = save({"w": np.zeros(1)})
"""A whole file of weights, of no network."""

Load = Callable[..., SweepSpec]
Planned = Callable[..., Plan]
