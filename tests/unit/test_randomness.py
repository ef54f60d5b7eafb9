"""Named random numbers: pinned values, and the statistics that a uniform draw owes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rna_ray import randomness
from rna_ray.randomness import Randomness

MASK = (1 << 64) - 1
MANY = torch.arange(20_000)


def random() -> Randomness:
    return Randomness("unit")


def test_pinned_values() -> None:
    """Changing any of these changes the result of every unit: bump the versions of the kinds that draw."""
    examples = torch.arange(3)
    assert random().words("path", examples, 2, step=1, draw=2).tolist() == [
        [-5952600749097279293, -6539633112764617172],
        [-7005983065674849538, -4936173117283630114],
        [-7236637228046846309, 8167731288385430814],
    ]
    assert random().integers("path", examples, [2, 3, 10]).tolist() == [[1, 2, 3], [0, 1, 5], [0, 1, 1]]
    assert random().uniform("noise", examples, (2,)).tolist() == [
        [0.7601363658905029, 0.4061049818992615],
        [0.6361314058303833, 0.8636136054992676],
        [0.23801106214523315, 0.5440971255302429],
    ]
    normal = torch.tensor([[0.70975912, 0.99498451, -1.53349638], [0.17994352, 0.71108621, 1.41051245]])
    torch.testing.assert_close(random().normal("noise", examples[:2], (3,)), normal, rtol=1e-5, atol=1e-6)
    assert random().permutation("order", 8).tolist() == [1, 4, 0, 7, 6, 5, 3, 2]
    assert random().permutation("order", 8, step=1).tolist() == [5, 2, 6, 7, 3, 1, 0, 4]
    assert random().seed("init") == 323178106


def mix(word: int) -> int:
    """SplitMix64's output function, in Python's own integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


@settings(max_examples=50)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 1000))
def test_words_are_splitmix64_in_unsigned_arithmetic(example: int, step: int, draw: int) -> None:
    golden = 0x9E3779B97F4A7C15
    state = mix((example * golden + random()._key("name")) & MASK)
    for number in (step, draw):
        state = mix((state + (number + 1) * golden) & MASK)
    expected = [mix((state + place * golden) & MASK) for place in (1, 2, 3)]
    words = random().words("name", torch.tensor([example]), 3, step=step, draw=draw)[0]
    assert [word & MASK for word in words.tolist()] == expected


def test_splitmix64_gives_its_published_sequence() -> None:
    """Seed 1234567: the values that implementations of SplitMix64 are commonly checked against."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [mix((1234567 + place * 0x9E3779B97F4A7C15) & MASK) for place in range(1, 6)] == known


@settings(max_examples=25)
@given(st.permutations(range(30)), st.integers(1, 30))
def test_the_batch_does_not_matter(order: list[int], size: int) -> None:
    some = torch.tensor(order[:size])
    assert torch.equal(random().normal("n", some, (2, 3)), random().normal("n", torch.arange(30), (2, 3))[some])


def test_shapes_and_types() -> None:
    examples = torch.arange(4)
    assert random().uniform("u", examples, (3, 5, 5)).shape == (4, 3, 5, 5)
    assert random().normal("n", examples, (3, 5, 5)).shape == (4, 3, 5, 5)
    assert random().normal("n", examples, ()).shape == (4,)
    assert random().integers("i", examples, []).shape == (4, 0)
    assert random().integers("i", examples[:0], [2, 3]).shape == (0, 2)
    assert random().uniform("u", examples, (2,)).dtype is torch.float32
    assert random().integers("i", examples.int(), [5]).dtype is torch.int64


def test_the_global_generators_are_untouched() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = random().normal("n", MANY[:10], (4,))
    torch.manual_seed(1)
    assert torch.equal(random().normal("n", MANY[:10], (4,)), first)
    torch.set_rng_state(torch_before)
    random().permutation("p", 10), random().integers("i", MANY, [7]), random().seed("s")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_uniform_moments() -> None:
    u = random().uniform("u", MANY, (8,)).double()
    assert u.min() >= 0 and u.max() < 1
    assert u.mean().item() == pytest.approx(1 / 2, abs=5 / math.sqrt(12 * u.numel()))
    assert u.var().item() == pytest.approx(1 / 12, abs=5 * math.sqrt(1 / 180 / u.numel()))
    counts = torch.histc(u.float(), bins=64, min=0, max=1)
    assert chi_square(counts) < 63 + 5 * math.sqrt(2 * 63)


def test_normal_moments_and_tails() -> None:
    z = random().normal("z", MANY, (9,)).double()
    n = z.numel()
    assert z.isfinite().all()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (z**power).mean().item() == pytest.approx(moment, abs=5 * math.sqrt(spread / n))
    for bound in (1, 2, 3, 4):
        share = math.erfc(bound / math.sqrt(2))
        assert (z.abs() > bound).double().mean().item() == pytest.approx(share, abs=5 * math.sqrt(share / n))


def test_normal_halves_are_independent() -> None:
    """Both numbers that Box & Muller make of one pair are used: neither they nor their squares may correlate."""
    z = random().normal("z", MANY, (4,)).double()
    for one, other in itertools.combinations(z.unbind(1), 2):
        assert abs(correlation(one, other)) < 5 / math.sqrt(len(MANY))
        assert abs(correlation(one**2, other**2)) < 5 / math.sqrt(len(MANY))


def chi_square(counts: torch.Tensor) -> float:
    expected = counts.double().mean()
    return ((counts.double() - expected) ** 2 / expected).sum().item()


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([one, other]))[0, 1].item()


@pytest.mark.parametrize("bound", [2, 3, 5, 7, 64, 1000])
def test_integers_are_uniform(bound: int) -> None:
    drawn = random().integers("i", MANY, [bound] * 4)
    assert drawn.min() >= 0 and drawn.max() < bound
    for column in drawn.unbind(1):
        assert chi_square(torch.bincount(column, minlength=bound)) < bound - 1 + 5 * math.sqrt(2 * (bound - 1))


def test_integers_of_huge_bounds_stay_inside() -> None:
    drawn = random().integers("i", MANY, [1, 2**31 - 1])
    assert drawn[:, 0].eq(0).all()
    assert drawn[:, 1].min() >= 0 and drawn[:, 1].max() < 2**31 - 1
    assert drawn[:, 1].double().mean().item() == pytest.approx(2**30, rel=0.02)


def test_neighbours_do_not_correlate() -> None:
    """Neither do examples, steps, draws, names and units one apart, nor steps and draws exchanged."""

    def u(unit: str = "a", name: str = "n", start: int = 0, step: int = 0, draw: int = 0) -> torch.Tensor:
        return Randomness(unit).uniform(name, MANY + start, (2,), step=step, draw=draw).double()

    streams = {
        "base": u(),
        "next unit": u(unit="b"),
        "next name": u(name="m"),
        "step 1": u(step=1),
        "step 2": u(step=2),
        "draw 1": u(draw=1),
        "draw 2": u(draw=2),
        "step 1, draw 2": u(step=1, draw=2),
        "step 2, draw 1": u(step=2, draw=1),
        "next example": u(start=1),
        "far example": u(start=10**9),
    }
    for (a, one), (b, other) in itertools.combinations(streams.items(), 2):
        for left, right in itertools.product((0, 1), repeat=2):
            found = correlation(one[:, left], other[:, right])
            assert abs(found) < 5 / math.sqrt(len(MANY)), f"{a} and {b}: {found}"
    assert abs(correlation(streams["base"][:, 0], streams["base"][:, 1])) < 5 / math.sqrt(len(MANY))


def test_no_word_repeats() -> None:
    words = [
        random().words(name, MANY, 4, step=step, draw=draw) for name in ("a", "b") for step in (0, 1) for draw in (0, 1)
    ]
    everything = torch.cat([each.flatten() for each in words])
    assert len(torch.unique(everything)) == len(everything)


def test_every_bit_is_fair() -> None:
    words = random().words("bits", MANY, 4).flatten()
    for bit in range(64):
        share = ((words >> bit) & 1).double().mean().item()
        assert share == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(len(words)))


@given(st.integers(0, 300), st.integers(0, 5))
def test_a_permutation_holds_every_index_once(size: int, step: int) -> None:
    assert sorted(random().permutation("p", size, step=step)) == list(range(size))


def test_permutations_put_each_element_anywhere() -> None:
    firsts = np.array([random().permutation("p", 5, step=step) for step in range(2000)])
    for column in firsts.T:
        assert chi_square(torch.from_numpy(np.bincount(column, minlength=5))) < 4 + 5 * math.sqrt(8)


def test_seeds_fit_every_library_and_differ_by_name() -> None:
    seeds = [random().seed(f"name {index}") for index in range(1000)]
    assert len(set(seeds)) == 1000
    assert min(seeds) >= 0 and max(seeds) < 2**31


def test_each_example_may_be_on_a_draw_of_its_own() -> None:
    examples, draws = torch.tensor([7, 7, 9, 7]), torch.tensor([0, 3, 3, 2**40])
    for draw in (
        lambda examples, draw: random().words("name", examples, 5, step=2, draw=draw),
        lambda examples, draw: random().integers("name", examples, [3, 10], draw=draw),
        lambda examples, draw: random().normal("name", examples, (3, 3), step=1, draw=draw),
    ):
        alone = [draw(examples[at : at + 1], int(draws[at])) for at in range(4)]
        assert torch.equal(draw(examples, draws), torch.cat(alone))


def test_normals_of_a_large_batch_are_those_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU makes them in parts, for its cache: no bit may hang on where it cuts."""
    examples, draws = torch.arange(50), torch.arange(50) * 3
    for shape in ((3, 32, 32), (1, 5, 5), (7,)):
        whole = []
        for at_once in (1, 100, 4096, 1 << 40):
            monkeypatch.setattr(randomness, "CACHED", at_once)
            whole.append(random().normal("noise", examples, shape, draw=draws))
        assert all(torch.equal(whole[0], other) for other in whole)
