"""Who knows which randomness: the defence as an attacker sees it, and as it answers.

    transfer   one path drawn before the attack and kept; the defender draws afresh (the RNA paper's protocol)
    fixed      the very path that the defender will use
    resample   a fresh path at every forward pass
    eot-k      the mean over k fresh paths at every step (Athalye et al. 2018)
"""

from __future__ import annotations

import dataclasses
from typing import Literal, final

import torch

from rna_ray.attacks.expectation import Passes, mean_prediction
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What an attacker knows of the path: a kind, and over how many draws a step takes its mean."""

    kind: Literal["none", "transfer", "fixed", "resample", "eot"]
    k: int = 1

    @classmethod
    def parse(cls, text: str) -> Knowledge:
        """Return the knowledge that a word of the sweep file names; the word was checked when the file was read."""
        kind, _, k = text.partition("-")
        return cls(kind, int(k) if k else 1)  # type: ignore[arg-type]


@final
class Defence:
    """A network under attack: a Victim whose paths are drawn as the attacker's knowledge and the answer ask.

    The attacker's draws and the defender's have names of their own, so they are independent; under `fixed` the
    attacker is given the defender's draw number `draw`.
    """

    def __init__(
        self, passes: Passes, paths: PathSpace, random: Randomness, examples: torch.Tensor, knowledge: Knowledge, *,
        draws: int, draw: int = 0, attack_passes: Passes | None = None,
    ) -> None:
        self.passes, self.attack_passes = passes, attack_passes or passes
        self.paths, self.random, self.examples = paths, random, examples
        self.knowledge, self.draws, self.first_draw = knowledge, draws, draw
        self._calls = 0

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's loss, its mean over the attacker's paths at this step."""
        return self.attack_passes.gradient(x, y, self.attacker_paths(step))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attacker's logits (N, classes); each call counts as a step."""
        self._calls += 1
        return mean_prediction(self.attack_passes.logits(x, self.attacker_paths(self._calls - 1)))

    def alone(self, row: int) -> Defence:
        """Return the same defence of one of the images: its paths are those that the image has in its batch."""
        only = slice(0, 1) if self.attack_passes.shared else slice(row, row + 1)  # the first image's path is shared
        return Defence(
            self.passes, self.paths, self.random, self.examples[only], self.knowledge,
            draws=self.draws, draw=self.first_draw, attack_passes=self.attack_passes,
        )

    @torch.no_grad()
    def answer(self, x: torch.Tensor, name: str = "adversarial") -> torch.Tensor:
        """Return the defender's logits (N, m, classes), on draws that only `fixed` attackers know."""
        return self.passes.logits(x, self.defender_paths(name)).transpose(0, 1)

    def defender_paths(self, name: str) -> torch.Tensor:
        """Return the paths (m, N, L) that the defender answers with; N is 1 where shared."""
        return torch.stack([self._defender_path(name, self.first_draw + draw) for draw in range(self.draws)])

    def attacker_paths(self, step: int) -> torch.Tensor:
        """Return the paths (k, N, L) along which the attacker's gradient runs at a step; N is 1 where shared."""
        if self.knowledge.kind == "fixed":
            return self._defender_path("adversarial", self.first_draw, shared=self.attack_passes.shared)[None]
        at = 0 if self.knowledge.kind == "transfer" else step + 1
        return torch.stack(
            [
                self._draw("attack/path", self.attack_passes.shared, step=at, draw=draw)
                for draw in range(self.knowledge.k)
            ]
        )

    def _defender_path(self, name: str, draw: int, *, shared: bool | None = None) -> torch.Tensor:
        return self._draw(f"defend/{name}", self.passes.shared if shared is None else shared, draw=draw)

    def _draw(self, name: str, shared: bool, *, step: int = 0, draw: int = 0) -> torch.Tensor:
        examples = self.examples[:1] if shared else self.examples
        return self.paths.draw(self.random, name, examples, step=step, draw=draw)
