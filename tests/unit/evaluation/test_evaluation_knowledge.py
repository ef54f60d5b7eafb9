"""Who knows which path, shown by the paths that the network was run along."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from evaluation_base import evaluated, network
from torch.nn import functional as F

from rna_ray.attacks.base import Ball
from rna_ray.attacks.expectation import Draws, Passes, mean_prediction
from rna_ray.attacks.gradient import GradientAttack
from rna_ray.evaluation.knowledge import Defence, Knowledge
from rna_ray.networks.build import Network
from rna_ray.networks.paths import PathSpace, difference, following, mode
from rna_ray.randomness import Randomness

EXAMPLES = torch.arange(100, 108)
X = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


class Recording(Passes):
    """Passes that keep the paths of each call."""

    def __init__(self, made: Network, **options: bool) -> None:
        super().__init__(made, **options)
        self.gradients: list[torch.Tensor] = []
        self.answers: list[torch.Tensor] = []

    def gradient(self, x: torch.Tensor, y: torch.Tensor, draws: Draws) -> torch.Tensor:
        self.gradients.append(draws.paths)
        return super().gradient(x, y, draws)

    def logits(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        if not torch.is_grad_enabled():
            self.answers.append(draws.paths)
        return super().logits(x, draws)


def attacked(knowledge: str, *, draws: int = 3, draw: int = 0, steps: int = 4, **options: bool) -> Recording:
    """Attack and answer once, and return what was run."""
    made = network("BN+IN+LN").eval()
    passes = Recording(made, **options)
    defence = Defence(
        passes, made.paths, Randomness("unit"), EXAMPLES, Knowledge.parse(knowledge), draws=draws, draw=draw
    )
    GradientAttack(Ball("linf", 0.1), step=0.03, steps=steps)(defence, X, Y)
    assert len(passes.gradients) == steps and len(passes.answers) == 1
    return passes


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean path difference: 6 of the 9 layers where paths over 3 norms are independent, 0 where equal."""
    return difference(a, b).float().mean().item()


def test_transfer_keeps_one_path_an_example_over_all_steps_and_the_defender_draws_afresh() -> None:
    passes = attacked("transfer", draws=20)
    first, *others = passes.gradients
    assert first.shape == (1, 8, 9) and all(torch.equal(first, other) for other in others)
    assert len({tuple(path) for path in first[0].tolist()}) == 8
    assert passes.answers[0].shape == (20, 8, 9)
    assert apart(passes.answers[0], first) == pytest.approx(6, abs=0.5)
    assert apart(passes.answers[0][1:], passes.answers[0][:-1]) == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize("draw", [0, 1, 5])
def test_a_fixed_attacker_sees_exactly_the_path_that_answers(draw: int) -> None:
    passes = attacked("fixed", draws=1, draw=draw)
    assert all(torch.equal(paths, passes.answers[0]) for paths in passes.gradients)
    assert apart(passes.answers[0], attacked("fixed", draws=1, draw=draw + 1).answers[0]) > 4


def test_resample_draws_at_every_step() -> None:
    passes = attacked("resample", steps=6)
    for one in range(6):
        assert apart(passes.answers[0], passes.gradients[one]) > 4
        for other in range(one):
            assert apart(passes.gradients[one], passes.gradients[other]) > 4


def test_eot_draws_k_paths_at_every_step() -> None:
    passes = attacked("eot-5")
    assert {paths.shape for paths in passes.gradients} == {(5, 8, 9)}
    drawn = torch.cat(passes.gradients)
    assert len({str(paths) for paths in drawn.tolist()}) == 20
    assert torch.equal(drawn[:1], attacked("resample").gradients[0])  # one draw of it is what resample draws


@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-2"])
def test_a_shared_path_is_one_for_all(knowledge: str) -> None:
    passes = attacked(knowledge, draws=1, shared=True)
    assert {paths.shape[1:] for paths in [*passes.gradients, *passes.answers]} == {(1, 9)}
    assert all(torch.equal(paths, passes.answers[0]) for paths in passes.gradients) == (knowledge == "fixed")


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("k", [1, 4])
def test_eot_is_the_mean_of_k_gradients(k: int, separate: bool) -> None:
    made = network().eval()
    draws = Defence(
        Passes(made), made.paths, Randomness("unit"), EXAMPLES, Knowledge("eot", k), draws=1
    ).attacker_draws(X, 0)
    singles = []
    for path in draws.paths:
        x = X.clone().requires_grad_()
        with following(made, path):
            singles.append(torch.autograd.grad(F.cross_entropy(made(x), Y, reduction="sum"), x)[0])
    found = Passes(made, separate=separate).gradient(X, Y, draws)
    torch.testing.assert_close(found, torch.stack(singles).mean(0), rtol=0, atol=1e-6)
    assert found.abs().max() > 1e-3


def test_with_batch_statistics_k_draws_are_k_batches() -> None:
    made = network()
    draws = Defence(
        Passes(made), made.paths, Randomness("unit"), EXAMPLES, Knowledge("eot", 3), draws=1
    ).attacker_draws(X, 0)
    with mode(made, "train_frozen"), torch.no_grad():
        expected = []
        for path in draws.paths:
            with following(made, path):
                expected.append(made(X))
        torch.testing.assert_close(Passes(made, separate=True).logits(X, draws), torch.stack(expected))
        assert not torch.allclose(Passes(made).logits(X, draws), torch.stack(expected), atol=1e-3)


def test_the_expected_prediction_is_the_mean_of_the_softmax() -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_prediction(logits).exp(), logits.softmax(-1).mean(0))
    assert torch.equal(mean_prediction(logits[:1]), logits[0])


def test_a_library_that_reseeds_torch_replays_no_path() -> None:
    made = network("BN+IN+LN").eval()

    def call(times: int, seed: int | None) -> list[torch.Tensor]:
        defence = Defence(
            Passes(made), made.paths, Randomness("unit"), EXAMPLES, Knowledge.parse("resample"), draws=1
        )
        found = []
        for _ in range(times):
            if seed is not None:
                torch.manual_seed(seed)
            found.append(defence.logits(X).detach())
        return found

    seeded = call(4, 0)
    assert all((seeded[one] - seeded[other]).abs().max() > 1e-3 for one in range(4) for other in range(one))
    assert all(torch.equal(one, other) for one, other in zip(seeded, call(4, None), strict=True))


def test_one_image_alone_is_defended_as_in_its_batch() -> None:
    made = network("BN+IN+LN").eval()
    for shared in (False, True):
        passes = Passes(made, shared=shared)
        whole = Defence(passes, made.paths, Randomness("unit"), EXAMPLES, Knowledge("eot", 2), draws=3, draw=4)
        for row in (0, 5):
            alone, image = whole.rows(torch.tensor([row])), X[row : row + 1]
            for draws in (lambda one, x: one.attacker_draws(x, 2), lambda one, x: one.defender_draws(x, "x")):
                found, expected = draws(alone, image), draws(whole, X)
                assert torch.equal(found.paths[:, 0], expected.paths[:, 0 if shared else row])
                assert found.seeds == expected.seeds
            assert alone.logits(image).shape == (1, 10)


Drawn = dict[tuple[str, int, int, int], list[int]]


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Drawn]:
    """Evaluate, and return every path that either side drew, by name, example, step and draw."""
    plain = PathSpace.draw

    def run(**given: object) -> tuple[Drawn, dict[str, list[object]]]:
        drawn: Drawn = {}

        def draw(
            self: PathSpace, random: Randomness, name: str, examples: torch.Tensor, *, step: int = 0, draw: int = 0
        ) -> torch.Tensor:
            paths = plain(self, random, name, examples, step=step, draw=draw)
            for example, path in zip(examples.tolist(), paths.tolist(), strict=True):
                assert drawn.setdefault((name, example, step, draw), path) == path
            return paths

        with monkeypatch.context() as patch:
            patch.setattr(PathSpace, "draw", draw)
            columns = evaluated(**given).columns  # type: ignore[arg-type]
        return {key: path for key, path in drawn.items() if key[0] != "look"}, columns

    return run


@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-2"])
def test_draws_do_not_depend_on_how_examples_are_batched(
    knowledge: str, draws: Callable[..., tuple[Drawn, dict[str, list[object]]]]
) -> None:
    small, few = draws(examples=(3, 13), batch=4, knowledge=knowledge)
    large, many = draws(examples=(3, 13), batch=8, knowledge=knowledge)
    assert small == large and {example for _, example, _, _ in small} == set(range(3, 13))
    for column in ("example", "label", "natural_predictions", "adversarial_predictions"):
        assert few[column] == many[column]
    assert few["margin"] == pytest.approx(many["margin"], abs=1e-3)
    names = {name for name, *_ in small}
    assert names == {"defend/natural", "defend/adversarial"} | ({"attack/path"} if knowledge != "fixed" else set())


def test_another_unit_draws_other_paths(draws: Callable[..., tuple[Drawn, dict[str, list[object]]]]) -> None:
    one, _ = draws(unit="one")
    other, _ = draws(unit="other")
    assert one.keys() == other.keys()
    assert sum(one[key] == other[key] for key in one) <= 3


def victim(made: Network, knowledge: str, *, noise: float = 0.0, shared: bool = False, **options: int) -> Defence:
    return Defence(
        Passes(made, shared=shared), made.paths, Randomness("unit"), EXAMPLES, Knowledge.parse(knowledge),
        draws=options.get("draws", 1), draw=options.get("draw", 0), noise=noise,
    )  # fmt: skip


def along(made: Network, path: torch.Tensor) -> torch.Tensor:
    """Return the gradient (N, C, H, W) of each example's cross-entropy along one path (L,)."""
    x = X.clone().requires_grad_()
    with following(made, path.expand(len(X), -1)):
        return torch.autograd.grad(F.cross_entropy(made(x), Y, reduction="sum"), x)[0]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("norm", "members"), [("BN+IN", 2), ("BN+IN+LN", 3)])
def test_enumerate_takes_the_mean_over_all_paths(norm: str, members: int, shared: bool) -> None:
    made = network(norm, layer_based=True).eval()
    found = victim(made, "enumerate", shared=shared)
    expected = torch.stack([along(made, torch.full((9,), member)) for member in range(members)])
    for step in (0, 3):  # there is nothing to draw
        torch.testing.assert_close(found.gradient(X, Y, step=step), expected.mean(0), rtol=0, atol=3e-6)
    assert all((expected[0] - other).abs().max() > 1e-3 for other in expected[1:])
    logits = []
    for member in range(members):
        with following(made, torch.full((8, 9), member)), torch.no_grad():
            logits.append(made(X))
    whole = torch.stack(logits)
    torch.testing.assert_close(found.judge(X, Y).right, (whole.argmax(2) == Y).float().mean(0))
    torch.testing.assert_close(found.logits(X).exp(), whole.softmax(2).mean(0), rtol=0, atol=1e-5)
    each = [member(X).detach() for member in found.members(X)]
    torch.testing.assert_close(torch.stack(each), whole, rtol=0, atol=1e-5)


def test_enumerate_of_a_free_space_lists_the_product() -> None:
    assert PathSpace((2, 3)).all().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert PathSpace((3,)).all().tolist() == [[0], [1], [2]] and PathSpace(()).all().shape == (1, 0)


@pytest.mark.parametrize(
    ("knowledge", "apart_by"), [("transfer", 0), ("fixed", 0), ("resample", 6), ("eot-3", 6), ("enumerate", 0)]
)
def test_each_part_of_an_attack_draws_its_own_but_transfer_has_one_draw(knowledge: str, apart_by: int) -> None:
    made = network("BN+IN+LN", layer_based=knowledge == "enumerate").eval()
    whole, every = victim(made, knowledge), torch.arange(8)
    one, other, again = (whole.rows(every, part) for part in ("one", "other", "one"))
    nested = one.rows(every, "deeper")
    for step in (0, 2):
        paths = [defence.attacker_draws(X, step).paths for defence in (whole, one, other, nested)]
        for number, path in enumerate(paths):
            for earlier in paths[:number]:
                assert apart(path, earlier) == pytest.approx(apart_by, abs=1)
        assert torch.equal(again.attacker_draws(X, step).paths, paths[1])
    answers = [defence.defender_draws(X, "adversarial").paths for defence in (whole, one, nested)]
    assert all(torch.equal(answers[0], answer) for answer in answers)
    assert all(torch.equal(defence.judge(X, Y).margin, whole.judge(X, Y).margin) for defence in (one, other, nested))


@pytest.mark.parametrize("knowledge", ["transfer", "fixed", "resample", "eot-3", "aggmo-eot-3"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_some_images_keep_the_draws_that_they_have_in_their_batch(noise: float, knowledge: str) -> None:
    made, rows = network("BN+IN+LN").eval(), torch.tensor([6, 1, 3])
    whole = victim(made, knowledge, draws=2, noise=noise)
    some = whole.rows(rows)
    assert some.rows(torch.tensor([2])).examples.tolist() == [103]
    for take in (lambda one, x: one.attacker_draws(x, 2), lambda one, x: one.defender_draws(x, "adversarial")):
        few, many = take(some, X[rows]), take(whole, X)
        assert torch.equal(few.paths, many.paths[:, rows]) and few.seeds == many.seeds
        for mine, theirs in zip(few.noise, many.noise, strict=True):
            assert torch.equal(mine(), theirs()[rows])
    few, many = some.judge(X[rows], Y[rows]), whole.judge(X, Y).rows(rows)
    torch.testing.assert_close(few.margin, many.margin, rtol=0, atol=1e-5)
    assert torch.equal(few.right, many.right)


def test_a_word_of_knowledge_is_read() -> None:
    read = {word: Knowledge.parse(word) for word in ("none", "fixed", "eot-20", "aggmo-eot-5", "aggmo-fixed")}
    assert read == {
        "none": Knowledge("none"),
        "fixed": Knowledge("fixed"),
        "eot-20": Knowledge("eot", 20),
        "aggmo-eot-5": Knowledge("eot", 5, aggregated=True),
        "aggmo-fixed": Knowledge("fixed", aggregated=True),
    }


def test_aggregated_momentum_is_another_attack_on_the_same_draws() -> None:
    rows = {word: evaluated(attack="pgd", knowledge=word, attack_steps=4).columns for word in ("eot-2", "aggmo-eot-2")}
    one, other = rows.values()
    assert one["natural_predictions"] == other["natural_predictions"]
    assert max(abs(a - b) for a, b in zip(one["margin"], other["margin"], strict=True)) > 1e-3
