"""Who knows which randomness: the defence as an attacker sees it, and as it answers.

    transfer      one draw made before the attack and kept; the defender draws afresh (the RNA paper's protocol)
    fixed         the very draw that the defender will use
    resample      a fresh draw at every forward pass
    eot-k         the mean over k fresh draws at every step (Athalye et al. 2018)
    aggmo-eot-k   the same, its steps along momentum aggregated over several dampings (Sitawarin et al. 2022)
    enumerate     the mean over all paths of a small space (as Dbouk & Shanbhag 2022 do over a randomised ensemble)

A draw is a path, and Gaussian noise where the defence adds any.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Literal, final

import torch

from rna_ray.attacks.base import Climbed, Judgement, margin
from rna_ray.attacks.expectation import Draws, Passes, mean_prediction
from rna_ray.networks.paths import PathSpace
from rna_ray.randomness import Randomness

JUDGED = 10
"""The draws on which an attacker who does not know the defender's compares its own images."""


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What an attacker knows of the defender's draw, and what it makes of it."""

    kind: Literal["none", "transfer", "fixed", "resample", "eot", "enumerate"]
    k: int = 1
    """Over how many draws a step takes its mean; the number of paths is only known with the network."""
    aggregated: bool = False
    """Whether the steps follow aggregated momentum."""

    @classmethod
    def parse(cls, text: str) -> Knowledge:
        """Return the knowledge that a word of the sweep file names; the word was checked when the file was read."""
        plain = text.removeprefix("aggmo-")
        kind, _, k = plain.partition("-")
        return cls(kind, int(k) if k else 1, aggregated=plain != text)  # type: ignore[arg-type]


@final
class Defence:
    """A network under attack: a Victim whose draws are made as the attacker's knowledge and the answer ask.

    The attacker's draws and the defender's have names of their own, so they are independent; under `fixed` the
    attacker is given the defender's draw number `draw`. `noise` is the standard deviation of the defence's Gaussian
    noise, in [0, 1] pixels, added before the input normalisation and not clipped (STN). Where the examples are a slice
    of a batch, `first` is the index of the batch's first.
    """

    def __init__(
        self, passes: Passes, paths: PathSpace, random: Randomness, examples: torch.Tensor, knowledge: Knowledge, *,
        draws: int, draw: int = 0, attack_passes: Passes | None = None, noise: float = 0.0, first: int | None = None,
    ) -> None:
        self.passes, self.attack_passes = passes, attack_passes or passes
        self.paths, self.random, self.examples = paths, random, examples
        self.knowledge, self.draws, self.first_draw, self.noise = knowledge, draws, draw, noise
        self._first = int(examples[0]) if first is None else first  # by whose index a batch draws what it shares
        self._part = "attack"
        self._calls = 0
        self._same: Draws | None = None  # what a `fixed` or a `transfer` attacker sees at every step, once made

    @property
    def steady(self) -> bool:
        """Whether the attacker sees the same draws at every step."""
        return self.knowledge.kind not in ("resample", "eot")

    @property
    def together(self) -> bool:
        """Whether the images of a batch decide each other's answers."""
        return self.passes.together or self.attack_passes.together

    def seed(self, name: str) -> int:
        """Return a seed for a library's generator: another one for each batch and each draw that is attacked."""
        return self.random.seed(f"{name}/{self._first}/{self.first_draw}")

    def gradient(self, x: torch.Tensor, y: torch.Tensor, *, step: int) -> torch.Tensor:
        """Return the gradient (N, C, H, W) of each example's loss, its mean over the attacker's draws at this step."""
        return self.attack_passes.gradient(x, y, self.attacker_draws(x, step))

    def climbing(self, loss: Climbed) -> Defence:
        """Return the same defence, its gradient that of another loss than cross-entropy."""
        other = copy.copy(self)
        other.attack_passes = self.attack_passes.climbing(loss)
        return other

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the attacker's logits (N, classes), of several draws the mean prediction's; each call is a step."""
        return mean_prediction(self._next_logits(x))

    def expected_margin(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean (N,) of the margins of the attacker's draws; each call counts as a step."""
        return margin(self._next_logits(x).transpose(0, 1), y).mean(1)

    def _next_logits(self, x: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        return self.attack_passes.logits(x, self.attacker_draws(x, self._calls - 1))

    @torch.no_grad()
    def judge(self, x: torch.Tensor, y: torch.Tensor) -> Judgement:
        """Return what the attacker makes of its own images: on the draw it knows, or on fresh ones of its own."""
        if not self.steady:
            passes = self.passes  # the answers to come are each example's own, whatever the attack shares
            draws = self._draws("judge", x, range(JUDGED), shared=passes.shared)
        else:
            passes, draws = self.attack_passes, self.attacker_draws(x, 0)
        logits = passes.logits(x, draws).transpose(0, 1)
        return Judgement((logits.argmax(2) == y[:, None]).float().mean(1), margin(logits, y).mean(1))

    @torch.no_grad()
    def answer(self, x: torch.Tensor, name: str = "adversarial") -> torch.Tensor:
        """Return the defender's logits (N, m, classes), on draws that only `fixed` attackers know."""
        return self.passes.logits(x, self.defender_draws(x, name)).transpose(0, 1)

    def members(self, x: torch.Tensor) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        """Return the attacker's draws at the start as classifiers of their own."""

        def member(draw: Draws) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda images: self.attack_passes.logits(images, draw)[0]

        return [member(draw) for draw in self.attacker_draws(x, 0).split(1)]

    def rows(self, index: torch.Tensor, part: str = "") -> Defence:
        """Return the same defence of some of the images: their draws are those that they have in their batch.

        With the name of a `part` of the attack, that part's draws are its own; under `transfer`, the attacker's one
        draw stays the same for all parts.
        """
        some = copy.copy(self)
        some.examples, some._calls, some._same = self.examples[index], 0, None
        if part and self.knowledge.kind != "transfer":
            some._part = f"{self._part}/{part}"
        return some

    def defender_draws(self, x: torch.Tensor, name: str) -> Draws:
        """Return the m draws that the defender answers with."""
        draws = range(self.first_draw, self.first_draw + self.draws)
        return self._draws(f"defend/{name}", x, draws, shared=self.passes.shared)

    def seen_draws(self, x: torch.Tensor, draw: int) -> Draws:
        """Return one draw by which to look at the network, that neither side uses."""
        return self._draws("look", x, range(draw, draw + 1), shared=self.passes.shared)

    def attacker_draws(self, x: torch.Tensor, step: int) -> Draws:
        """Return the k draws along which the attacker's gradient runs at a step."""
        shared = self.attack_passes.shared
        match self.knowledge.kind:
            case "fixed":
                draw = range(self.first_draw, self.first_draw + 1)
                self._same = self._same or self._draws("defend/adversarial", x, draw, shared=shared)
                return self._same
            case "transfer":
                self._same = self._same or self._draws(f"{self._part}/path", x, range(1), shared=shared)
                return self._same
            case "enumerate":
                paths = self.paths.all().to(x.device)[:, None].expand(-1, 1 if shared else len(x), -1)
                return Draws(paths, (0,) * len(paths))
        return self._draws(f"{self._part}/path", x, range(self.knowledge.k), step=step + 1, shared=shared)

    def _draws(self, name: str, x: torch.Tensor, draws: range, *, step: int = 0, shared: bool) -> Draws:
        examples = torch.full_like(self.examples[:1], self._first) if shared else self.examples
        shape = x.shape[1:]

        def noise(draw: int) -> Callable[[], torch.Tensor]:
            return lambda: self.noise * self.random.normal(f"{name}/noise", examples, shape, step=step, draw=draw)

        return Draws(
            torch.stack([self.paths.draw(self.random, name, examples, step=step, draw=draw) for draw in draws]),
            tuple(self.random.seed(f"{name}/{self._first}/{step}/{draw}") for draw in draws),
            tuple(noise(draw) for draw in draws) if self.noise else (),
        )
