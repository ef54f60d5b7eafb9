from __future__ import annotations

import pydantic
import pytest
from sweep_base import BASE, Load, Planned

from rna_ray.errors import UserError
from rna_ray.sweep import sections
from rna_ray.sweep.experiment import Experiment, SweepSpec
from rna_ray.sweep.plan import plan
from rna_ray.sweep.spec import from_json, to_json

MODELS = [Experiment, SweepSpec] + [
    kind for kind in vars(sections).values() if isinstance(kind, type) and issubclass(kind, sections.Section)
]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_has_a_sentence(model: type[pydantic.BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description[0].isupper() and field.description.endswith("."), f"{model.__name__}.{name}"


# What is set, and the sentence that it gives.
BAD = {
    "network.nrom=BN": "network.nrom: unknown key 'nrom'; did you mean 'norm'? Known: activation, import,",
    "foo=3": "foo: unknown key 'foo'. Known: about, budget, certification, compile, data,",
    "network.norm=BN+": "network.norm: norm 'BN+', character 4: a norm is expected here",
    "network.norm=3": "network.norm: 3 is not a text",
    "network.width=0": "network.width: 0 is not at least 1",
    "network.name=resnet9": "network.name: unknown network 'resnet9'; did you mean 'resnet8'?",
    "data.name=cifer10": "data.name: unknown data set 'cifer10'; did you mean 'cifar10'?",
    "training.lr=fast": "training.lr: the text 'fast' is not a number",
    "training.lr='1e-3'": "training.lr: the text '1e-3' is not a number",
    "training.lr=.nan": "training.lr: nan is not a finite number",
    "training.lr=0": "training.lr: 0 is not above 0",
    "training.epochs=1.5": "training.epochs: 1.5 is not a whole number",
    "training.epochs=true": "training.epochs: true is not a whole number",
    "training.epochs=": "training.epochs: null is not a whole number",
    "training.objective=adv": "training.objective: the text 'adv' is not 'natural', 'whitebox' or 'blackbox'",
    "training.schedule.milestones=[100]": "training.schedule.milestones.0: 100 is not below 1",
    "training.schedule.milestones=[0.7, 0.2]": "training.schedule.milestones: must rise, each given once",
    "training.attack.eps_255=256": "training.attack.eps_255: 256 is not at most 255",
    "training=3": "training: 3 is not a mapping of keys",
    "compile=off": "compile: the text 'off' is not true or false",
    "seed=-1": "seed: -1 is not at least 0",
    "seed=9223372036854775808": "seed: 9223372036854775808 is not below 9.22337e+18",
    "name=a b": "name: the text 'a b' is not made of letters, digits, '.', '_' and '-', a letter or digit first",
    "name=..": "name: the text '..' is not made of letters",
    "evaluation=3": "evaluation: 3 is not a list",
    "evaluation=[natural]": "evaluation.0: the text 'natural' is not a mapping of keys",
    "evaluation.0.attack=pdg": "evaluation.0.attack: unknown attack 'pdg'; did you mean 'pgd'? Known: arc, autoattack,",
    "evaluation.0.stpes=2": "evaluation.0.stpes: unknown key 'stpes'; did you mean 'steps'?",
    "evaluation.0.options={}": "evaluation.0.options: unknown key 'options'",
    "evaluation.0.steps=0": "evaluation.0.steps: 0 is not a whole number above 0",
    "evaluation.0.steps=1.0": "evaluation.0.steps: 1.0 is not a whole number above 0",
    "evaluation.0.steps=true": "evaluation.0.steps: True is not a whole number above 0",
    "evaluation.0.eps_255=300": "evaluation.0.eps_255: 300 is not a number from 0 up to 255",
    "evaluation.0.eps_255=.nan": "evaluation.0.eps_255: nan is not a number from 0",
    "evaluation.0.threat=l3": "evaluation.0.threat: 'l3' is not linf or l2",
    "evaluation.0.knowledge=eot": "evaluation.0.knowledge: unknown knowledge 'eot'; did you mean 'eot-K'?",
    "evaluation.0.knowledge=eot-0": "evaluation.0.knowledge: unknown knowledge 'eot-0'",
    "evaluation.0.knowledge=eot-10000": "evaluation.0.knowledge: unknown knowledge 'eot-10000'",
    "evaluation.0.draws=10001": "evaluation.0.draws: 10001 is not at most 10000",
    "evaluation.0.draws=0": "evaluation.0.draws: 0 is not at least 1",
    "evaluation.0.knowledge=aggmo": "evaluation.0.knowledge: unknown knowledge 'aggmo'; did you mean 'aggmo-eot-K'?",
    "evaluation.0.knowledge=[]": "evaluation.0.knowledge: name at least one knowledge, each once",
    "evaluation.0.shard=150": "evaluation.0.shard: 150 is not a multiple of batch, 100",
    "evaluation.0.only=[BX]": "evaluation.0.only: no variant is called 'BX'; there are: BN+IN",
    "evaluation.1.steps=4": "evaluation.1.steps: '1' is not an entry of the list; allowed are 0 to 0, or * for all",
    "grid.network.nrom=[BN]": "network.nrom: unknown key 'nrom'; did you mean 'norm'?",
    "grid.name=[a, b]": "grid: name cannot vary; allowed are protocol, data, network, training, seed, precision,",
    "grid.seed=[0, 0]": "grid.seed: a value is given twice",
    "grid.seed=[]": "grid.seed: the list is empty; give at least one value",
    "grid.seed=3": "grid.seed: 3 is not a list",
    "grid.training.epochs=[3, x]": "variant 'x': training.epochs: the text 'x' is not a whole number",
    "resources.train.gpus=1": "resources.train.gpus: unknown key 'gpus'; did you mean 'gpu'?",
    "resources.train.cpu=0": "resources.train: a unit that takes neither CPU nor GPU cannot be placed",
    "resources.evaluate={cpu: 0, gpu: 0}": "resources.evaluate: a unit that takes neither CPU nor GPU cannot be placed",
    "resources.train.gpu=1.5": "resources.train.gpu: ",
    "probes.*.examples=3": "probes.*.examples: there is no list whose entries '*' could mean",
    "training.loss={beta: 6}": "training.loss.name: missing beside training.loss.beta; write trades or mart",
    "network.weights_sha256=abc": "network.weights_sha256: 'abc' is not the 64 hexadecimal digits",
    "name.x=3": "name.x: 'base' stands where 'x' should be a key",
    "a..b=3": "'a..b' is not a dotted key such as training.epochs",
    "seed": "write key=value, such as training.epochs=3",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_setting_is_one_sentence_that_names_it(load_text: Load, bad: str) -> None:
    with pytest.raises(UserError) as error:
        load_text(BASE, bad)
    assert str(error.value).startswith(f"--set {bad}: {BAD[bad]}")
    assert "\n" not in str(error.value) and "pydantic" not in str(error.value)


def test_yaml_that_is_not_valid_in_a_set_says_where(load_text: Load) -> None:
    with pytest.raises(UserError, match=r"^--set seed=\[1:1:3: not valid YAML"):
        load_text(BASE, "seed=[1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE.replace("norm:", "nrom:"), "network.nrom: unknown key 'nrom'; did you mean 'norm'?"),
        (BASE.replace(", norm: BN+IN", ""), "network.norm: missing; The norm, or the space from which"),
        (BASE.replace("name: resnet8, ", ""), "network.name: missing; The network; "),
        (BASE.replace("training:", "about:").replace("{objective", "'{objective").replace("5}}", "5}}'"),
         "training: missing; How the network is trained"),
        (BASE.replace("data:", "dta:"), "dta: unknown key 'dta'; did you mean 'data'?"),
        (BASE.replace("epochs: 3", "epochs: soon"), "training.epochs: the text 'soon' is not a whole number"),
        ("- 1", "a sweep file is a mapping of keys such as name, data, network and training"),
        ("", "a sweep file is a mapping of keys such as name, data, network and training"),
        (BASE + "protocol: paper\n", "evaluation.0.knowledge: protocol paper means transfer and one draw"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(load_text: Load, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        load_text(text)
    assert f"sweep.yaml: {sentence}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_problem_is_told_of_where_it_came_from(load_text: Load) -> None:
    text = BASE + "presets: {small: {training.epochs: few}}\n"
    with pytest.raises(UserError, match=r"sweep.yaml, preset small: training.epochs: the text 'few'"):
        load_text(text, "seed=3", preset="small")
    with pytest.raises(UserError, match=r"sweep.yaml: unknown preset 'smal'; did you mean 'small'\? Known: small"):
        load_text(text, preset="smal")
    assert load_text(text, "training.epochs=2", preset="small").training.epochs == 2  # the last word counts


def test_numbers_are_what_they_look_like(load_text: Load) -> None:
    spec = load_text(BASE, "training.lr=1e-3", "training.weight_decay=0", "training.attack.eps_255=8")
    assert spec.training.lr == 0.001
    assert isinstance(spec.training.attack.eps_255, float) and isinstance(spec.training.weight_decay, float)


def test_a_spec_is_frozen(load_text: Load) -> None:
    spec = load_text()
    with pytest.raises(pydantic.ValidationError):
        spec.training.epochs = 9  # type: ignore[misc]


def test_presets_come_before_the_grid_and_may_change_it(planned: Planned) -> None:
    text = BASE + "grid: {seed: [0, 1, 2]}\npresets: {small: {grid.seed: [7], 'evaluation.*.examples': 10}}\n"
    assert [unit.settings["seed"] for unit in planned(text, preset="small").units if unit.kind == "train"] == [7]
    assert [unit.settings["examples"] for unit in planned(text, preset="small").units[1:]] == [[0, 10]]
    assert sum(unit.kind == "train" for unit in planned(text).units) == 3


@pytest.mark.parametrize(
    ("more", "key", "sentence"),
    [
        ("grid: {seed: [0, 1]}", "seed=3", "the grid varies seed; replace its values: --set grid.seed='[…]'"),
        ("grid: {training.attack: [{name: fgsm}]}", "training.attack.steps=3", "the grid varies training.attack;"),
        ("variants: {A: {seed: 1}, B: {}}", "seed=3", "variant 'A' sets seed itself; set that: --set 'variants.A.seed"),
    ],
)
def test_an_override_that_would_do_nothing_is_refused(load_text: Load, more: str, key: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        load_text(f"{BASE}{more}\n", key)
    assert str(error.value).startswith(f"--set {key}: {sentence}")
    name, _, value = key.partition("=")
    with pytest.raises(UserError, match=r"preset small: (the grid varies|variant 'A' sets)"):
        load_text(f"{BASE}{more}\npresets: {{small: {{{name}: {value}}}}}\n", preset="small")


def test_a_setting_of_a_variant_alone_is_overridden_by_its_name(load_text: Load) -> None:
    text = BASE + "variants: {A: {network.norm: BN, seed: 1}, A.b: {network.norm: IN}}\n"
    spec = load_text(text, "variants.A.seed=3", "variants.A.b.training.epochs=2", "variants.B={network.norm: LN}")
    assert spec.variants == {
        "A": {"network.norm": "BN", "seed": 3},
        "A.b": {"network.norm": "IN", "training.epochs": 2},
        "B": {"network.norm": "LN"},
    }


def test_a_key_that_grid_and_variants_both_set_is_refused(load_text: Load) -> None:
    with pytest.raises(UserError, match="A: seed is also set by the grid's axis seed; keep one of them"):
        load_text(BASE + "grid: {seed: [0, 1]}\nvariants: {A: {seed: 1}}\n")
    with pytest.raises(UserError, match=r"network\.norm is also set by the grid's axis network; keep one of them"):
        load_text(BASE + "grid: {network: [{name: resnet8, norm: BN}], network.norm: [BN]}\n")


def test_a_list_entry_is_overridden_by_index_or_star(load_text: Load) -> None:
    text = BASE + "  - {attack: natural}\n"
    spec = load_text(text, "evaluation.*.examples=7", "evaluation.0.steps=3")
    assert [entry.examples for entry in spec.evaluation] == [7, 7]
    assert spec.evaluation[0].options == {"steps": 3}


def test_knowledge_may_be_one_or_several(load_text: Load) -> None:
    assert load_text().evaluation[0].knowledge == ("eot-10",)
    several = load_text(BASE, "evaluation.0.knowledge=[transfer, resample, fixed, eot-1]")
    assert several.evaluation[0].knowledge == ("transfer", "resample", "fixed", "eot-1")


def test_the_largest_numbers_that_are_allowed(load_text: Load) -> None:
    spec = load_text(BASE, f"seed={2**63 - 1}", "evaluation.0.draws=10000", "evaluation.0.knowledge=eot-9999")
    assert (spec.seed, spec.evaluation[0].draws, spec.evaluation[0].knowledge) == (2**63 - 1, 10_000, ("eot-9999",))


def test_a_unit_may_do_without_one_of_cpu_and_gpu(load_text: Load) -> None:
    spec = load_text(BASE, "resources.train={cpu: 0, gpu: 2}", "resources.evaluate={cpu: 1, gpu: 0}")
    assert (spec.resources.train.cpu, spec.resources.train.gpu, spec.resources.evaluate.cpu) == (0, 2.0, 1)


def test_keys_that_only_the_axes_give_are_not_missing(planned: Planned) -> None:
    text = BASE.replace(", norm: BN+IN", "")
    variants = planned(text + "variants: {A: {network.norm: BN}, B: {network.norm: IN, seed: 2}}\n")
    assert [(unit.settings["network"]["norm"], unit.settings["seed"]) for unit in variants.units[:2]] == [
        ("BN", 0), ("IN", 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"network\.norm: missing"):
        planned(text + "variants: {A: {network.norm: BN}, B: {}}\n")


def test_a_spec_survives_json(load_text: Load) -> None:
    text = BASE + "grid: {seed: [0, 1], network.norm: [IN, BN]}\nvariants: {A: {precision: bf16}, B: {}}\n"
    spec = load_text(text, "evaluation.0.steps=3", "training.schedule.milestones=[0.1, 0.9]", "data.root=/x")
    again = from_json(to_json(spec))
    assert again == spec
    assert plan(again, digest=str) == plan(spec, digest=str)
