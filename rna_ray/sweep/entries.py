"""The entries of a sweep file's lists as frozen models: what is done with every network of the sweep.

What an entry becomes for a network is in `evaluations`, `probes` and `certifications`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from rna_ray.attacks import catalog
from rna_ray.errors import UserError, unknown
from rna_ray.probes import catalog as probes
from rna_ray.sweep.section import SEVERAL, Section, Texts, Whole, known, refusal, uncounted

KNOWLEDGE = ("transfer", "fixed", "resample", "eot-K", "aggmo-eot-K", "enumerate")
_GRAMMAR = re.compile(r"transfer|fixed|resample|enumerate|(aggmo-)?eot-[1-9][0-9]{0,3}")


def _knowledge(given: object) -> object:
    """Return one or several knowledges as a tuple, each checked against the grammar."""
    asked = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else given
    if isinstance(asked, tuple):
        for one in asked:
            if not isinstance(one, str) or not _GRAMMAR.fullmatch(one):
                raise refusal(unknown("knowledge", str(one), KNOWLEDGE) + " (K: up to 9999 draws, as in eot-10)")
        if not asked or len(set(asked)) < len(asked):
            raise refusal("name at least one knowledge, each once")
    return asked


class Entry(Section):
    """One thing that is done with every network of the sweep."""

    examples: Whole | None = None
    """How many test images, from the first; null is 1,000, for a probe its own number, or the whole test set where it
    is smaller."""
    checkpoint: Literal["last", "best"] = "best"
    """Which weights: those of the last epoch, or those that were best on the held-out images."""
    only: Texts | None = uncounted(None)
    """The variants that this entry is for, of a pair both; by label, name or any of their axes' values; null is all."""
    priority: int = uncounted(0)
    """How urgent the entry's units are, on top of their network's own priority: the higher the earlier."""


class NamedEntry(Entry):
    """One thing of a catalog, whose own options stand in the entry beside the fields."""

    key: ClassVar[str]
    """The field that names what is done."""
    records: ClassVar[Mapping[str, catalog.Named]]
    """What it can name."""

    options: Mapping[str, Any] = Field({}, exclude=True)
    """The entry's own options as it states them; not a key of its own."""
    batch: Whole = 100
    """The number of images attacked or measured together, the last batch padded."""
    shard: Whole | None = None
    """The number of images in a unit, a multiple of batch; null is the first multiple from 100 on."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        """Move the keys that are not fields into `options`, checked against those that the named one takes."""
        if not isinstance(given, dict):
            return given
        fields = [name for name in cls.model_fields if name != "options"]
        stated = {key: value for key, value in given.items() if key in fields}
        options = {key: value for key, value in given.items() if key not in fields}
        named = given.get(cls.key)
        record = cls.records.get(named) if isinstance(named, str) else None
        if record is None:
            return stated  # the field's own error says more
        names = [option.name for option in record.options]
        for key in options:
            if key not in names:
                raise PydanticCustomError("unknown", "{key}", {"key": key, "known": [*fields, *names]})
        try:
            record.settings(options)
        except UserError as error:
            raise refusal(str(error), kind="refused_key") from None
        return stated | {"options": options}

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.shard and self.shard % self.batch:
            raise refusal(f"shard: {self.shard} is not a multiple of batch, {self.batch}", kind="refused_key")
        return self

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**handler(self), **self.options}

    @property
    def record(self) -> catalog.Named:
        """The record of what is named, in its catalog."""
        return self.records[getattr(self, self.key)]

    @property
    def called(self) -> str:
        """How tables call what is named, with these options."""
        return self.record.called(self.options)

    @property
    def distinguishing(self) -> dict[str, Any]:
        """What makes a different number: the options, the weights and which images are answered together."""
        return {**self.options, "checkpoint": self.checkpoint, "batch": self.batch}


class Evaluation(NamedEntry):
    """One attack on every network of the sweep; the attack's own options stand in the entry beside these fields."""

    key: ClassVar[str] = "attack"
    records: ClassVar[Mapping[str, catalog.Attack]] = catalog.ATTACKS

    attack: Annotated[str, known(catalog.find)]
    """The attack; `rna_ray.attacks.catalog.ATTACKS` lists them with their options."""
    knowledge: Annotated[tuple[str, ...] | None, BeforeValidator(_knowledge)] = None
    """What the attacker knows of the defender's draws, one or several: transfer, fixed, resample, eot-K, aggmo-eot-K,
    enumerate; null is transfer, for arc enumerate."""
    source: str | None = None
    """The variant whose network the attack is crafted on (black-box transfer), of the same data and seed; `knowledge`
    is then about the draws of that network. Null is the network that answers."""
    draws: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """How many fresh paths the defender answers with; null is 10, under fixed 1; a network of one path always 1."""
    eval: Literal["eval", "train_frozen"] = "eval"
    """The network's mode: its running statistics, or those of each test batch."""
    attack_mode: Literal["eval", "train_frozen"] | None = None
    """Its mode while the attack is crafted, `eval` being that in which it answers; null is the same."""
    precision: Literal["fp32", "bf16"] | None = None
    """What attack and answers compute in; null is as the network was trained. An attack that stops on the border
    between classes, as DeepFool does, needs fp32: in bf16 classes tie there, and a tie is no robustness."""

    @property
    def distinguishing(self) -> dict[str, Any]:
        """What makes a different number: the options, weights, modes, draws and precision."""
        stated = {name: value for name in ("draws", "precision") if (value := getattr(self, name))}
        if self.crafting != self.eval:
            stated["attack_mode"] = self.crafting
        return {**super().distinguishing, "eval": self.eval, **stated}

    @property
    def called(self) -> str:
        """How tables call the attack, with the source where it is crafted on another network."""
        return super().called + (f" from {self.source}" if self.source is not None else "")

    @model_validator(mode="after")
    def _looks(self) -> Evaluation:
        if self.source is not None and not self.record.adaptive:
            raise refusal(f"source: {self.attack} looks at no network; leave it out", kind="refused_key")
        return self

    @property
    def crafting(self) -> Literal["eval", "train_frozen"]:
        """The network's mode while the attack is crafted; of no matter to one that does not look at it."""
        return self.attack_mode if self.attack_mode and self.record.adaptive else self.eval


class Probe(NamedEntry):
    """One measurement on every network of the sweep, or on every pair; its own options stand beside these fields."""

    key: ClassVar[str] = "probe"
    records: ClassVar[Mapping[str, probes.Probe]] = probes.PROBES

    probe: Annotated[str, known(probes.find)]
    """What is measured; `rna_ray.probes.catalog.PROBES` lists the probes with their options."""


class Certification(Entry):
    """How often each network answers each class under Gaussian noise: what certified radii follow from."""

    draws: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...], SEVERAL] = (100,)
    """How many draws bound the class's probability (n), one number or several; each number has fresh draws."""
    selection: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """How many separate draws choose the class (n0)."""
    noise_255: Annotated[tuple[Annotated[float, Field(gt=0, le=1275)], ...] | None, SEVERAL] = None
    """The standard deviation of the noise in 255ths, one number or several; null is the sweep's own noise_255."""
    abandon: Literal["none", "misclassified"] = "none"
    """Which images get no bounding draws and count as abstentions: none, or those whose selection draws choose another
    class than the label."""
    batch: Whole = 1000
    """The number of noisy images that pass through the network together."""
    precision: Literal["fp32", "bf16"] | None = None
    """What the answers are computed in; null is as the network was trained."""
    shard: Whole | None = None
    """The number of images in a unit; null is as many tens as 20,000 draws are for."""
