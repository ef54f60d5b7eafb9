"""A unit's rows: one an example, the same every time."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_base import CPU, evaluated, network, settings, split
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from rna_ray.attacks.base import Attack, Ball, Judgement, Outcome, Proposal, Victim, margin
from rna_ray.attacks.ensemble import Best
from rna_ray.attacks.expectation import Draws, Passes
from rna_ray.data import Split
from rna_ray.evaluation.behaviour import KNOWN
from rna_ray.evaluation.evaluate import evaluate
from rna_ray.networks.paths import following, mode, random_layers
from rna_ray.randomness import Randomness
from rna_ray.store.records import SCHEMAS

ASKED = [
    {"attack": "natural"},
    {"attack": "noise"},
    {"attack": "gaussian", "attack_eps_space": "normalized"},
    {"attack": "pgd", "knowledge": "transfer"},
    {"attack": "pgd", "knowledge": "fixed"},
    {"attack": "pgd", "knowledge": "eot-2", "attack_threat": "l2"},
    {"attack": "mifgsm", "knowledge": "resample", "paths": "batch"},
    {"attack": "pgd", "knowledge": "resample", "eval": "train_frozen"},
    {"attack": "pgd", "knowledge": "transfer", "precision": "bf16"},
    {"attack": "deepfool", "knowledge": "resample", "attack_steps": 2, "draws": 1},
    {"attack": "cascade", "knowledge": "fixed", "attack_steps": 2, "attack_queries": 10, "noise_255": 25.5},
]
MORE = [
    {"attack": "pgd", "knowledge": "eot-2", "attack_mode": "train_frozen", "attack_restarts": 2},
    {"attack": "bim", "knowledge": "resample", "attack_steps": 3, "attack_eps_space": "normalized"},
    {"attack": "cw", "knowledge": "fixed", "attack_steps": 3, "draws": 2},
    {"attack": "square", "knowledge": "fixed", "attack_queries": 10, "draws": 2},
    {"attack": "pgd", "knowledge": "aggmo-eot-2", "attack_restarts": 2},
    {"attack": "cascade", "knowledge": "eot-2", "attack_steps": 2, "attack_queries": 10},
    {"attack": "cascade", "knowledge": "resample", "attack_steps": 2, "attack_queries": 10, "paths": "batch"},
    {"attack": "cascade", "knowledge": "transfer", "attack_steps": 2, "attack_queries": 10, "precision": "bf16"},
]
every_kind = pytest.mark.parametrize(
    "asked",
    [*ASKED, *(pytest.param(asked, marks=pytest.mark.slow) for asked in MORE)],
    ids=lambda asked: "-".join(map(str, asked.values())),
)


@every_kind
def test_rows_are_the_same_when_a_unit_is_done_again_and_the_network_is_left_as_it_was(asked: dict[str, Any]) -> None:
    made = network().train()
    weights = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    first = evaluated(made, **asked)
    assert made.training and all(module.training for module in made.modules())
    assert all(torch.equal(tensor, weights[key]) for key, tensor in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())
    assert all(layer.path is None for layer in random_layers(made))
    evaluated(made, unit="another", attack="pgd", knowledge="resample", examples=(8, 12))
    torch.manual_seed(5)
    assert evaluated(made, **asked) == first  # bit for bit: floats are compared as they are
    assert evaluated(network(), **asked) == first


@every_kind
def test_columns_are_those_of_the_view_and_agree_with_each_other(asked: dict[str, Any]) -> None:
    columns = evaluated(examples=(2, 9), **asked).columns
    assert set(columns) <= set(SCHEMAS["examples"].names)
    assert columns["example"] == list(range(2, 9))
    assert columns["label"] == split().labels[2:9].tolist()
    for image in ("natural", "adversarial"):
        for row, predictions in enumerate(columns[f"{image}_predictions"]):
            assert len(predictions) == asked.get("draws", 3)
            assert predictions.count(columns["label"][row]) == columns[f"{image}_correct"][row]
    eps = 8 / 255
    if asked["attack"] in ("noise", "mifgsm", "square") or (asked["attack"] == "pgd" and len(asked) == 2):
        assert max(columns["linf"]) <= eps + 1e-6
    if "attack_threat" in asked:
        assert max(columns["l2"]) <= eps + 1e-6


@pytest.mark.parametrize("attack", ["pgd", "arc", pytest.param("cascade", marks=pytest.mark.slow)])
@pytest.mark.parametrize("sharing", ["example", "batch"])
def test_all_paths_of_a_small_space_can_be_enumerated(sharing: str, attack: str) -> None:
    options = {"attack_steps": 2} | ({"attack_queries": 10} if attack == "cascade" else {})
    asked = {"attack": attack, "knowledge": "enumerate", "paths": sharing, "attack_eps_255": 32.0, **options}
    made = network("BN+IN+LN", layer_based=True)
    said = evaluated(made, attack="natural", draws=1, examples=(0, 24)).columns["natural_predictions"]
    images = Split(images=split().images, labels=np.array(said)[:, 0])  # so that there is something to break
    rows = [evaluated(made, images, examples=(0, 6), **asked) for _ in range(2)]
    assert rows[0] == rows[1] and {len(values) for values in rows[0].columns.values()} == {6}
    assert rows[0].behaviour.random_output
    assert 0 < max(rows[0].columns["linf"]) <= 32 / 255 + 1e-6


def test_what_an_attack_noticed_has_a_row_an_example_and_none_for_the_padding() -> None:
    asked = {"attack": "cascade", "knowledge": "transfer", "attack_steps": 2, "attack_queries": 5}
    columns = evaluated(network("BN"), examples=(0, 6), **asked).columns
    whole = evaluated(network("BN"), examples=(0, 8), **asked).columns
    for name in ("part", "zero_gradients"):
        assert len(columns[name]) == 6 and columns[name][:4] == whole[name][:4]
    wrong = [count == 0 for count in columns["natural_correct"]]
    assert any(wrong) and all((part == "") == is_wrong for part, is_wrong in zip(columns["part"], wrong, strict=True))
    assert [far == 0 for far in columns["linf"]] == wrong


@pytest.mark.slow
def test_work_in_another_thread_changes_nothing() -> None:
    asked = {"attack": "pgd", "knowledge": "eot-2", "examples": (0, 16)}
    made, other = network(), network()  # here, as torch initialises weights from the process's one generator
    alone, stop = evaluated(made, **asked).columns, threading.Event()

    def work() -> None:
        while not stop.is_set():
            torch.manual_seed(1)
            torch.rand(10)
            evaluated(other, unit="another", attack="pgd", knowledge="resample")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        together = [evaluated(made, **asked).columns for _ in range(3)]
    finally:
        stop.set()
        thread.join()
    assert together == [alone] * 3


def test_every_batch_has_its_full_size_the_last_one_padded_by_its_own_first_images() -> None:
    made, seen = network(), []
    images = split()

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append((x * 255).round().to(torch.uint8).numpy())
        return made(x)

    asked = settings("natural", (5, 15), draws=1)
    columns = evaluate(asked, "unit", made, images, device=CPU, forward=forward).columns
    assert {len(values) for values in columns.values()} == {10}
    assert {len(batch) for batch in seen} == {4}
    assert (seen[-1] == images.images[[13, 14, 13, 14]]).all()


def test_a_padded_row_is_the_row_of_the_same_image() -> None:
    """What the last batch holds beside an image does not matter to it."""
    padded = evaluated(examples=(0, 6), knowledge="eot-2").columns
    whole = evaluated(examples=(0, 8), knowledge="eot-2").columns
    assert padded["adversarial_predictions"] == whole["adversarial_predictions"][:6]
    assert padded["margin"] == pytest.approx(whole["margin"][:6], abs=1e-4)


def test_shards_make_the_rows_of_the_whole() -> None:
    """An evaluation's units have ids of their own, but under one id their draws are those of their examples."""
    whole = evaluated(examples=(0, 16)).columns
    parts = [evaluated(examples=(start, start + 8)).columns for start in (0, 8)]
    assert {name: parts[0][name] + parts[1][name] for name in whole} == whole


@pytest.mark.parametrize("sharing", ["example", "batch"])
def test_under_fixed_each_draw_is_attacked_by_itself(sharing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients: list[torch.Tensor] = []
    answers: list[torch.Tensor] = []
    plain_gradient, plain_logits = Passes.gradient, Passes.logits

    def gradient(self: Passes, x: torch.Tensor, y: torch.Tensor, draws: Draws) -> torch.Tensor:
        gradients.append(draws.paths)
        return plain_gradient(self, x, y, draws)

    def logits(self: Passes, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        if not torch.is_grad_enabled():
            answers.append(draws.paths)
        return plain_logits(self, x, draws)

    monkeypatch.setattr(Passes, "gradient", gradient)
    monkeypatch.setattr(Passes, "logits", logits)
    columns = evaluated(network("BN+IN+LN"), knowledge="fixed", draws=5, examples=(0, 4), paths=sharing).columns
    looks = 1 + KNOWN
    looked, adversarial, natural = answers[:looks], answers[looks : looks + 5], answers[looks + 5 :]
    assert len(gradients) == 5 * 3 and len(natural) == 5
    for draw, answer in enumerate(adversarial):
        assert all(torch.equal(paths, answer) for paths in gradients[3 * draw : 3 * draw + 3])
    assert len({str(answer.tolist()) for answer in [*looked, *natural, *adversarial]}) == KNOWN + 5 + 5
    assert {len(predictions) for predictions in columns["adversarial_predictions"]} == {5}


@pytest.mark.parametrize(
    ("norm", "paths", "attack", "expected"),
    [
        ("BN+IN", "example", "pgd", "example"),
        ("BN+IN", "batch", "pgd", "batch"),
        ("BN+IN", "example", "square", "attack"),
        ("BN+IN", "batch", "square", "batch"),
        ("BN", "example", "square", "example"),
    ],
)
def test_which_images_share_a_path_is_said(norm: str, paths: str, attack: str, expected: str) -> None:
    options = {"attack_queries": 5} if attack == "square" else {}
    found = evaluated(network(norm), attack=attack, paths=paths, knowledge="fixed", draws=1, **options)
    assert found.path_sharing == expected


def test_answers_of_batch_statistics_are_those_of_whole_batches() -> None:
    made, images = network("RN+BN(track=false)"), split()
    found = evaluated(made, images, attack="natural", draws=2, examples=(0, 8))
    assert found.batch_statistics and found.path_sharing == "example"
    x = torch.from_numpy(images.images[:8]).float() / 255
    defence_paths = [
        made.paths.draw(Randomness("unit"), "defend/natural", torch.arange(start, start + 4), draw=draw)
        for start in (0, 4) for draw in (0, 1)
    ]  # fmt: skip
    with mode(made, "eval"), torch.no_grad():
        answers = []
        for index, path in enumerate(defence_paths):
            with following(made, path):
                answers.append(made(x[index // 2 * 4 : index // 2 * 4 + 4]).argmax(1))
    wanted = torch.cat([torch.stack(answers[:2], 1), torch.stack(answers[2:], 1)])
    assert found.columns["natural_predictions"] == wanted.tolist()
    assert not evaluated(network("BN+RN(track=true)"), attack="natural").batch_statistics
    assert evaluated(network("BN"), attack="natural", eval="train_frozen").batch_statistics


@pytest.mark.parametrize(("norm", "separate"), [("RN+BN", True), ("BN+IN", False)])
def test_draws_of_batch_statistics_are_batches_of_their_own(
    norm: str, separate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    made = network(norm)
    monkeypatch.setattr(made, "forward", lambda x: seen.append(len(x)) or type(made).forward(made, x))
    evaluated(made, knowledge="eot-3", draws=3)
    assert (set(seen) == {4}) is separate


def test_cw_on_images_that_hang_together_gives_a_batch_that_it_has_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    made, pixels, right = network("BN(track=false)"), split(8).images, []
    with mode(made, "eval"), torch.no_grad():
        y = made(torch.from_numpy(pixels).float() / 255).argmax(1)  # all are right before the attack
    images = Split(images=pixels, labels=y.numpy())

    def forward(x: torch.Tensor) -> torch.Tensor:
        logits = type(made).forward(made, x)
        if torch.is_grad_enabled():
            right.append((logits.argmax(1) == y).sum().item())
        return logits

    monkeypatch.setattr(made, "forward", forward)
    found = evaluated(made, images, attack="cw", knowledge="fixed", draws=1, batch=8, attack_steps=40, attack_c=10.0)
    assert right[0] == 8 and min(right) < 8 and len(set(right)) > 2  # successes come from step to step
    assert sum(found.columns["adversarial_correct"]) == min(right)


def test_of_several_starts_the_best_batch_counts_where_images_hang_together() -> None:
    judged = {0.0: ([1.0, 0.0], [0.5, -1.0]), 1.0: ([0.0, 1.0], [-2.0, 0.5]), 2.0: ([0.0, 0.0], [-1.0, -1.0])}

    class Told:
        def __init__(self, together: bool) -> None:
            self.together = together

        def rows(self, index: torch.Tensor) -> Told:
            return self

        def judge(self, x: torch.Tensor, y: torch.Tensor) -> Judgement:
            return Judgement(*map(torch.tensor, judged[x[0, 0, 0, 0].item()]))

    def best(together: bool, *starts: float) -> list[float]:
        offered = [torch.full((2, 1, 1, 1), start) for start in starts]
        kept = Best(Told(together), offered[0], torch.zeros(2, dtype=torch.int64))  # type: ignore[arg-type]
        for one in offered[1:]:
            kept.offer(one, torch.arange(2))
        return kept.x_adv.flatten().tolist()

    assert best(False, 0.0, 1.0) == [1.0, 0.0]  # each image's own best
    assert best(True, 0.0, 1.0) == [1.0, 1.0]  # as many right, by less: -0.75 on average instead of -0.25
    assert best(True, 1.0, 0.0) == [1.0, 1.0]
    assert best(True, 0.0, 1.0, 2.0) == [2.0, 2.0]


def test_no_attack_changes_nothing_and_answers_on_fresh_draws() -> None:
    columns = evaluated(attack="natural", examples=(0, 24), draws=20).columns
    assert set(columns["linf"]) == set(columns["l2"]) == {0.0}
    one = network("BN")
    columns = evaluated(one, attack="natural", draws=1).columns
    assert columns["natural_predictions"] == columns["adversarial_predictions"]
    assert columns["natural_margin"] == columns["margin"]


class Halving(Attack):
    """Darkens each image by half, and the defender's answer is known."""

    def propose(self, victim: Victim, x: torch.Tensor, y: torch.Tensor) -> Proposal:
        return Proposal(x / 2)


def test_distortion_is_that_of_the_images_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rna_ray.evaluation.evaluate.make", lambda settings, **options: Halving(Ball("none")))
    columns = evaluated(attack="cw", draws=1, knowledge="fixed").columns
    pixels = split().images[:8].reshape(8, -1) / 510
    assert columns["linf"] == pytest.approx(pixels.max(1).tolist(), rel=1e-5)
    assert columns["l2"] == pytest.approx(np.sqrt((pixels**2).sum(1)).tolist(), rel=1e-5)


@search(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(2, 7), st.integers(0, 2**31 - 1), st.booleans())
def test_the_margin_is_the_true_logit_minus_the_largest_other(
    n: int, m: int, classes: int, seed: int, tie: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, m, classes, generator=generator)
    logits = logits.round() if tie else logits
    y = torch.randint(classes, (n,), generator=generator)
    found = margin(logits, y)
    for i in range(n):
        for draw in range(m):
            row = logits[i, draw].tolist()
            true = row.pop(y[i])
            assert found[i, draw].item() == pytest.approx(true - max(row))


def test_what_an_attack_achieved_is_what_the_defender_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Outcome] = []
    plain = Attack.answered

    def answered(victim: Victim, x: torch.Tensor, found: Proposal) -> Outcome:
        kept.append(plain(victim, x, found))
        return kept[-1]

    monkeypatch.setattr(Attack, "answered", staticmethod(answered))
    columns = evaluated(knowledge="transfer", draws=4).columns
    logits = torch.cat([outcome.logits for outcome in kept])
    assert columns["adversarial_predictions"] == logits.argmax(2).tolist()
    y = torch.from_numpy(split().labels[:8])
    assert columns["margin"] == pytest.approx(margin(logits, y).mean(1).tolist(), abs=1e-6)


def test_images_are_scaled_to_one() -> None:
    white = Split(images=np.full((4, 1, 8, 8), 255, np.uint8), labels=np.zeros(4, np.int64))
    seen: list[float] = []
    made = network("BN")

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.max().item())
        return made(x)

    evaluate(settings("natural", (0, 4), draws=1), "unit", made, white, device=CPU, forward=forward)
    assert set(seen) == {1.0}
