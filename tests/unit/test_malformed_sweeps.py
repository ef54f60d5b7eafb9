"""Sweep files with something wrong in them: one sentence that says so, never a traceback; nothing is written."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import rna
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SWEEPS = sorted(Path(__file__).parents[2].joinpath("sweeps").glob("*.yaml"))
TINY = """\
name: one
data: {name: digits, train_examples: 64, held_out: 32}
network: {name: resnet8, width: 4}
training: {objective: blackbox, epochs: 1, batch: 32, attack: {eps_255: 8, step_255: 2, steps: 2}}
grid: {network.norm: [BN, "BGN+GN[1-2]"], seed: [0, 1]}
evaluation:
  - {attack: natural, examples: 20}
  - {attack: pgd, steps: 2, knowledge: [transfer, eot-5], examples: 20, eps_255: 8, step_255: 2}
probes: [{probe: transfer, examples: 20, steps: 2, eps_255: 8, step_255: 2}]
"""
TEXTS = [TINY] * 4 + [path.read_text(encoding="utf-8") for path in SWEEPS]  # data that is not here hides much of theirs

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 3), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "../../etc/passwd", "'; DROP TABLE trials; --", "BN+", "GN[4-1]", "eot-", "1e-3", "a" * 9999]),
    st.sampled_from([10**30, -1, 0, 1e-300, math.inf, math.nan]), st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(0, 3), max_size=2),
)  # fmt: skip


@st.composite
def malformed(draw: st.DrawFn) -> bytes:
    """A sweep file with one to three things done to its values, its text or its bytes."""
    text = draw(st.sampled_from(TEXTS))
    tree = yaml.safe_load(text)
    for _ in range(draw(st.integers(0, 2))):
        tree = draw(altered(tree))
    if tree != yaml.safe_load(text):
        text = yaml.safe_dump(tree, allow_unicode=draw(st.booleans()), sort_keys=False)
    data = text.encode(errors="surrogatepass")
    how = draw(st.sampled_from(("as it is", *BYTES)))
    return BYTES[how](draw, data) if how in BYTES else data


@st.composite
def altered(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one value or key of it replaced, left out, renamed or nested."""
    if isinstance(tree, dict) and tree and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(tree, key=str)))
        match draw(st.sampled_from(("inside", "inside", "inside", "drop", "rename", "junk"))):
            case "inside":
                return {**tree, key: draw(altered(tree[key]))}
            case "drop":
                return {name: value for name, value in tree.items() if name != key}
            case "rename":
                name = draw(st.one_of(st.text(max_size=6), st.integers(), st.just(str(key).upper())))
                return {(name if one == key else one): value for one, value in tree.items()}
        return {**tree, key: draw(JUNK)}
    if isinstance(tree, list) and tree and draw(st.integers(0, 2)):
        at = draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], draw(altered(tree[at])), *tree[at + 1 :]]
    return draw(st.one_of(JUNK, st.just([tree]), st.just({"x": tree}), st.just([tree, tree])))


def _at(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def _put(data: bytes, at: int, more: bytes) -> bytes:
    return data[:at] + more + data[at:]


BYTES = {
    "cut": lambda draw, data: data[: _at(draw, data)],
    "flip": lambda draw, data: bytes(one ^ (0x80 if at == _at(draw, b"x" * 60) else 0) for at, one in enumerate(data)),
    "insert": lambda draw, data: _put(data, _at(draw, data), draw(st.sampled_from(SNIPPETS))),
    "another encoding": lambda draw, data: data.decode().encode(draw(st.sampled_from(CODECS)), "replace"),
    "twice": lambda draw, data: data * 2,
    "nested": lambda draw, data: data + b"deep: " + draw(st.sampled_from((b"[", b"{a: "))) * 5000,
    "nested a little": lambda draw, data: data + b"deep: " + b"[" * 300 + b"]" * 300 + b"\n",
    "aliases": lambda draw, data: data + b"a: &a [x, x, x]\n" + b"".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n".encode()
        for old, new in itertools.pairwise("abcdefghijklmnop")
    ),
    "a loop": lambda draw, data: data + b"loop: &l [*l]\n",
    "empty": lambda draw, data: b"",
}
UNTOUCHED = {text.encode() for text in TEXTS}
CODECS = ("utf-16", "utf-32", "cp500")
SNIPPETS = (
    b"\t", b"\x00", b"\xff\xfe", b": ", b"- ", b"'", b'"', b"{", b"]", b"&x ", b"*x",
    b"!!python/object/apply:os.system ['x']", b"!!binary x", b"%YAML 9\n---\n", b"---\n", b"<<: {}\n", b"\xef\xbb\xbf",
    "\u2028".encode(), b"? ", b"|\n", b"@", b"`",
)  # fmt: skip


def check(data: bytes) -> bool:
    """Return whether the file was refused; what is accepted, as a setting that may be left out, must be planned."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.yaml"
        path.write_bytes(data)
        ended = rna("plan", path, "--store", Path(folder) / "store", "--json")
        if ended.code == 0:
            assert json.loads(ended.out)["units"] and not ended.err
        else:
            assert ended.one_sentence and "Traceback" not in ended.err, ended
        assert [one.name for one in Path(folder).iterdir()] == ["one.yaml"]
        return ended.code != 0


OPTIONS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=10, derandomize=True, **OPTIONS)
@given(malformed())
def test_a_few_malformed_sweep_files_are_one_sentence_each(data: bytes) -> None:
    check(data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_malformed_sweep_files_are_one_sentence_each() -> None:
    refused = 0

    @settings(max_examples=240, **OPTIONS)
    @given(malformed().filter(lambda data: data not in UNTOUCHED))
    def each(data: bytes) -> None:
        nonlocal refused
        refused += check(data)

    each()
    assert refused >= 200


@pytest.mark.parametrize("how", ["nested", "nested a little", "aliases", "a loop", "twice", "empty"])
def test_files_that_try_to_exhaust_the_reader_do_not(how: str) -> None:
    class Deepest:
        def __call__(self, strategy: object) -> bytes:
            return b"["

    check(BYTES[how](Deepest(), TINY.encode()))  # type: ignore[operator]
