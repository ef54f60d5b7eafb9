from __future__ import annotations

import pytest

from rna_ray.attacks.catalog import ATTACKS, Attack, find
from rna_ray.errors import SweepError

# The RNA paper, Section 5.1.
PAPER = {
    "fgsm": {"eps_255": 8.0},
    "pgd": {"eps_255": 8.0, "step_255": 2.0, "steps": 20},
    "mifgsm": {"eps_255": 8.0, "step_255": 2.0, "steps": 5, "decay": 1.0},
    "cw": {"c": 1e-4, "steps": 1000, "lr": 0.01},
    "deepfool": {"steps": 50, "overshoot": 0.02},
    "autoattack": {"eps_255": 8.0, "version": "standard"},
}


@pytest.mark.parametrize("name", PAPER)
def test_defaults_are_the_papers(name: str) -> None:
    assert PAPER[name].items() <= find(name).settings({}).items()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_records_are_complete(attack: Attack) -> None:
    settings = attack.settings({})
    assert attack.about.endswith(".") and all(option.about.endswith(".") for option in attack.options)
    assert all(option.check(option.default) == option.default for option in attack.options)
    assert "{" not in attack.label.format(**settings)
    assert attack.passes(settings, 10) >= 0
    assert attack.bounded == ("eps_255" in settings or attack.name == "natural")


def test_whole_numbers_become_floats_where_a_float_is_meant() -> None:
    settings = find("pgd").settings({"eps_255": 4, "steps": 7})
    stated = {"threat": "linf", "eps_255": 4.0, "step_255": 2.0, "steps": 7, "random_start": True, "restarts": 1}
    assert settings == stated
    assert type(settings["eps_255"]) is float and type(settings["steps"]) is int


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("pgd", {"stepz": 1}, "stepz: unknown option of attack pgd: 'stepz'; did you mean 'steps'?"),
        ("natural", {"steps": 1}, "steps: unknown option of attack natural: 'steps'. Known: "),
        ("mifgsm", {"decay": -1}, "decay: -1 is not a number from 0"),
        ("pgd", {"random_start": 1}, "random_start: 1 is not true or false"),
        ("mifgsm", {"threat": "l2"}, "threat: 'l2' is not linf"),
        ("square", {"queries": "many"}, "queries: 'many' is not a whole number above 0"),
        ("noise", {"kind": ["uniform"]}, "kind: ['uniform'] is not uniform or gaussian"),
    ],
)
def test_a_bad_option_is_one_sentence(name: str, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(SweepError) as error:
        find(name).settings(given)
    assert str(error.value).startswith(sentence)


def test_passes_are_the_work_done() -> None:
    assert find("pgd").passes(find("pgd").settings({"steps": 40}), 10) == 40
    assert find("natural").passes({}, 10) == 0
    autoattack = find("autoattack")
    standard, rand = (autoattack.passes({"version": version}, 10) for version in ("standard", "rand"))
    assert standard == pytest.approx(100 + 900 + 1800 + 5000 / 3)
    assert rand == 4000
