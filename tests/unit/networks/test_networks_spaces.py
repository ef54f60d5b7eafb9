"""The grammar of norm spaces, and what a space becomes at a layer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rna_ray.errors import SpaceError
from rna_ray.networks.describe import describe
from rna_ray.networks.spaces import LayerMember, NormLayer, parse

powers = st.integers(0, 6).map(lambda power: 1 << power)
ranges = st.tuples(powers, powers).map(sorted).map(lambda pair: f"[{pair[0]}-{pair[1]}]")
options = st.sampled_from(["", "(affine=false)", "(affine=true)", "(affine = false)"])
whole = st.tuples(st.sampled_from(["BN", "IN", "LN", "RN", "MinMax"]), options).map("".join)
tracked = st.tuples(
    st.sampled_from(["BN", "BGN32", "BGN[1-4]", "RN", "MinMax"]),
    st.sampled_from(["(track=false)", "(affine=false, track = true)"]),
).map("".join)
robust = st.tuples(st.floats(1e-6, 2).map(lambda p: f"p={p:.6f}"), st.sampled_from(["", ",track=mean", ",track=true"]))
powered = robust.map(lambda stated: f"RN({''.join(stated)})")
counted = st.tuples(st.sampled_from(["GN", "BGN"]), st.integers(1, 64).map(str), options).map("".join)
sized = st.tuples(st.sampled_from(["GN", "BGN"]), st.one_of(ranges, powers.map(lambda s: f"[{s}]")), options).map(
    "".join
)
terms = st.one_of(whole, counted, sized, tracked, powered, st.just("none"))
spaces = st.lists(terms, min_size=1, max_size=5)


def layer(channels: int = 64, size: int = 8, name: str = "norm") -> NormLayer:
    return NormLayer(name=name, channels=channels, height=size, width=size)


@given(spaces)
def test_canonical_spelling_parses_to_itself(given_terms: list[str]) -> None:
    space = parse("+".join(given_terms))
    assert parse(space.canonical) == space
    assert parse(space.canonical).canonical == space.canonical


@given(spaces.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_order_repetition_and_blanks_do_not_matter(pair: tuple[list[str], list[str]]) -> None:
    one, other = pair
    assert parse("+".join(one)) == parse("  +  ".join([*other, other[0]]))


@pytest.mark.parametrize(
    ("spelled", "same"),
    [
        ("BGN+GN[1-1]", "BN+IN"),
        ("IN+BN", "BN+IN"),
        ("GN[1]", "IN"),
        ("GN1", "LN"),
        ("BGN[1]", "BN"),
        ("BGN+GN[1-4]", "BGN[1]+BGN[2]+BGN[4]+GN[1]+GN[2]+GN[4]"),
        ("BGN+LN+GN[2]", "LN+BGN[2]+GN[2]"),
        ("BGN[1-2]+GN[4]", "BN+BGN[2]+GN[4]"),
        ("BGN(affine=false)+GN[2]", "BGN[2](affine=false)+GN[2]"),
        ("GN+GN[2-4](affine=false)", "GN[2]+GN[4]+GN[2](affine=false)+GN[4](affine=false)"),
        ("BN(affine=true)", "BN"),
        ("GN32", "GN32"),
        ("RN(p=0.20)", "RN"),
        ("RN(track=false)", "RN"),
        ("MinMax(track=true, affine=true)", "MinMax(track=true)"),
        ("BN(track=true)", "BN"),
        ("BGN[1](track=false)+none", "none+BN(track=false)"),
        ("GN[1-64]", "+".join(["IN"] + [f"GN[{1 << p}]" for p in range(1, 7)])),
    ],
)
def test_spellings_of_one_space(spelled: str, same: str) -> None:
    assert parse(spelled) == parse(same)
    assert parse(spelled).canonical == parse(same).canonical


def test_canonical_names() -> None:
    assert parse("IN+BN").canonical == "BN+IN"
    assert parse("BGN+GN[1-4]").canonical == "BN+BGN[2]+BGN[4]+IN+GN[2]+GN[4]"
    assert parse("IN(affine=false)").canonical == "IN(affine=false)"
    assert parse("none+RN(track=mean,p=0.5)+MinMax+BN").canonical == "BN+MinMax+none+RN(p=0.5,track=mean)"
    assert parse("BGN32(track=false,affine=false)").canonical == "BGN32(affine=false,track=false)"


@pytest.mark.parametrize(
    ("space", "dependent"),
    [("BN+IN", False), ("none", False), ("RN", True), ("BN(track=false)+BN", True), ("RN(track=mean)", True),
     ("RN(track=true)+MinMax(track=true)", False), ("GN32", False)],
)  # fmt: skip
def test_a_space_is_batch_dependent_where_a_statistic_is_not_tracked(space: str, dependent: bool) -> None:
    assert parse(space).batch_dependent([layer()]) is dependent


@pytest.mark.parametrize(
    ("text", "character", "says"),
    [
        ("BNN", 1, "unknown norm 'BNN'; did you mean"),
        ("BN+XX", 4, "unknown norm 'XX'"),
        ("BN+", 4, "a norm is expected"),
        ("+BN", 1, "a norm is expected"),
        ("BN++IN", 4, "a norm is expected"),
        ("BN + 3", 6, "a norm is expected"),
        ("BN-IN", 3, "'-' is not part"),
        ("BN+GN", 4, "GN needs a group count"),
        ("GN[1-4]+BGN", 9, "BGN needs"),
        ("BN32", 3, "BN takes neither"),
        ("IN+LN[4]", 6, "LN takes neither"),
        ("GN2[4]", 4, "a count or sizes, not both"),
        ("GN0", 3, "a group count starts at 1"),
        ("GN[0-4]", 3, "power of two"),
        ("BN+GN[3]", 6, "power of two"),
        ("GN[8-4]", 3, "power of two"),
        ("GN[a]", 3, "is not a range"),
        ("GN[1-4", 3, "is not a range"),
        ("GN[]", 3, "is not a range"),
        ("BN(affine=no)", 3, "unknown"),
        ("BN(affine=false", 3, "unknown"),
        ("GN[4](track)", 6, "unknown"),
        ("bn", 1, "unknown norm 'bn'"),
        ("RN(p=0)", 3, "RN knows affine=true, affine=false, track=false, track=true, track=mean, p=NUMBER above 0"),
        ("RN(p=2.1)", 3, "unknown"),
        ("RN(p=1e-1)", 3, "unknown"),
        ("RN(p=0.1234567)", 3, "of up to 6 decimals"),
        ("RN(p=1,p=0.5)", 3, "each once"),
        ("BN(track=mean)", 3, "unknown"),
        ("BN(p=1)", 3, "unknown"),
        ("IN(track=true)", 3, "IN knows affine=true, affine=false, each once"),
        ("BN+none(affine=true)", 8, "none knows none"),
        ("RN4", 3, "RN takes neither"),
        ("minmax", 1, "did you mean 'MinMax'"),
    ],
)
def test_an_error_points_at_its_character(text: str, character: int, says: str) -> None:
    with pytest.raises(SpaceError) as error:
        parse(text)
    assert f"norm {text!r}, character {character}: " in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_space_is_refused(text: str) -> None:
    with pytest.raises(SpaceError, match="is empty"):
        parse(text)


@given(st.text(alphabet="BGNIL[]()+-0123456789 afine=ls", max_size=12))
def test_any_text_parses_or_is_a_space_error(text: str) -> None:
    try:
        parse(text)
    except SpaceError as error:
        assert "character" in str(error) or "is empty" in str(error)


def test_a_count_or_size_above_the_channels_is_clamped() -> None:
    assert parse("GN32").at(layer(16)) == (LayerMember("example", 16, True),)
    assert parse("GN[64]").at(layer(16)) == (LayerMember("example", 1, True),)
    assert parse("BGN[64]+BGN[2]").at(layer(16)) == (LayerMember("batch", 8, True), LayerMember("batch", 1, True))


def test_members_that_coincide_after_clamping_merge() -> None:
    space = parse("GN[1-64]")
    assert len(space.at(layer(64))) == 7
    assert len(space.at(layer(16))) == 5
    assert space.index_at(layer(16)) == (0, 1, 2, 3, 4, 4, 4)
    assert len(parse("LN+GN[64]").at(layer(64))) == 1
    assert len(parse("IN+IN(affine=false)").at(layer(64))) == 2


@given(spaces, st.integers(0, 7).map(lambda power: 1 << power))
def test_members_at_a_layer_are_distinct_and_divide_its_channels(given_terms: list[str], channels: int) -> None:
    space = parse("+".join(given_terms))
    try:
        members, index = space.at(layer(channels)), space.index_at(layer(channels))
    except SpaceError as error:
        assert "do not divide" in str(error)
        return
    assert len(set(members)) == len(members) <= len(space.members)
    assert all(channels % member.groups == 0 for member in members)
    assert sorted(set(index)) == list(range(len(members)))


def test_a_group_count_that_does_not_divide_names_the_layer() -> None:
    with pytest.raises(SpaceError, match=r"GN32: 32 groups do not divide the 48 channels of layer stages\.1\.0\.norm1"):
        parse("BN+GN32").at(layer(48, name="stages.1.0.norm1"))


@pytest.mark.parametrize("text", ["IN", "BN+IN", "GN[1-4]", "GN64", "IN(affine=false)"])
def test_a_group_of_one_element_is_refused_naming_the_layer(text: str) -> None:
    with pytest.raises(SpaceError, match=r"layer stages\.2\.norm has 1x1 pixels"):
        parse(text).at(layer(size=1, name="stages.2.norm"))


def test_one_pixel_is_enough_for_larger_groups_and_for_batch_statistics() -> None:
    assert len(parse("BN+LN+GN[2]+BGN[2]").at(layer(size=1))) == 4


def listed(space: str, layers: list[NormLayer], layer_based: bool) -> int:
    """Count paths by listing them."""
    members = [parse(space).at(each) for each in layers]
    if not layer_based:
        return len(list(itertools.product(*members)))
    return len({tuple(parse(str(m)).at(each)[0] for each in layers) for m in parse(space).members})


@pytest.mark.parametrize("layer_based", [False, True])
@pytest.mark.parametrize("space", ["BN", "BN+IN", "GN[1-16]", "BGN+GN[1-4]", "LN+GN[8-16]"])
def test_number_of_paths_is_the_true_one(space: str, layer_based: bool) -> None:
    layers = [layer(channels, name=f"norm{channels}") for channels in (4, 8, 16)]
    assert parse(space).paths(layers, layer_based=layer_based) == listed(space, layers, layer_based)


def test_number_of_paths_of_the_papers_networks() -> None:
    resnet = describe("resnet18", width=64, image_shape=(3, 32, 32), classes=10).layers
    assert parse("BN+IN").paths(resnet) == 2**20
    assert parse("BN+IN").paths(resnet, layer_based=True) == 2
    assert parse("BGN+GN[1-4]").paths(resnet) == 6**20
    # A wide ResNet starts with 16 channels, where sizes 16, 32 and 64 are one member.
    wide = [layer(channels, name=f"norm{channels}") for channels in (16, 160, 320)]
    assert parse("GN[1-32]").paths(wide) == 5 * 6 * 6
    assert parse("GN[1-32]").paths(wide, layer_based=True) == 6
    assert parse("BN+IN").paths([]) == parse("BN+IN").paths([], layer_based=True) == 1
