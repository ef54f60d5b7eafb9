"""An exported network: the same logits wherever it is loaded, and a card whose every line can be checked."""

from __future__ import annotations

import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import rna
from safetensors.torch import load_file, save_file

import rna_ray
from rna_ray.errors import CheckpointError
from rna_ray.sweep import plan, spec
from rna_ray.training import checkpoint

NAME = "quickstart-BN+IN-black-box-seed0"
IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def exported(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files of a network, which is the current one."""
    monkeypatch.chdir(tmp_path)
    ended = rna("export", "BN+IN black-box", "--seed", "0", "-o", "networks", "--store", quickstart)
    assert (ended.code, ended.out.split()) == (0, [f"networks/{NAME}.{kind}" for kind in ("safetensors", "md")])
    monkeypatch.chdir(tmp_path / "networks")
    return Path.cwd()


def logits(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network(IMAGES), network(IMAGES)])


def blocks(card: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)


def test_its_logits_are_the_same_bit_for_bit_in_python_and_in_a_sweep(exported: Path, quickstart: Path) -> None:
    expected = logits(rna_ray.open_store(quickstart).network("BN+IN black-box", seed=0))
    assert torch.equal(logits(rna_ray.load_network(f"{NAME}.safetensors")), expected)
    (network,) = blocks(exported / f"{NAME}.md", "yaml")
    Path("again.yaml").write_text(
        f"name: again\ndata: {{name: digits}}\n{network}evaluation: [{{attack: natural, examples: 20}}]\n"
    )
    ended = rna("run", "again.yaml", "--address", "inline", "--store", "again")
    assert ended.code == 0, ended.err
    assert torch.equal(logits(rna_ray.open_store("again").network("BN+IN")), expected)


def test_no_room_for_its_weights_is_one_sentence(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save

    def in_a_thousand_bytes(*given: Any) -> str:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most[1]))
        try:
            return save(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)

    monkeypatch.setattr(checkpoint, "save", in_a_thousand_bytes)
    ended = rna("export", "BN+IN black-box", "--seed", "0", "-o", tmp_path / "networks", "--store", quickstart)
    said = rf"rna-ray: cannot write {re.escape(NAME)} to .* \(TMPDIR\): .*\n"
    assert ended.code == 2 and re.fullmatch(said, ended.err)
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_it_is_and_its_lines_load_it(exported: Path, quickstart: Path) -> None:
    card = exported / f"{NAME}.md"
    text, images = card.read_text(encoding="utf-8"), {"images": IMAGES}
    (code,) = blocks(card, "python")
    assert len(code.splitlines()) <= 5
    exec(code, images)
    assert images["logits"].shape == (6, 10)
    table = rna_ray.open_store(quickstart).table("quickstart")
    assert "license:   # yours to say" in text and "## Licence\n\nNot stated yet" in text
    for part in ("resnet8, width 4", "BN+IN, 2^9 paths", "64 images, 32 held out, seed 0", "digits, digest 25128ceef"):
        assert part in text
    for knowledge in ("transfer", "eot-4"):
        assert re.search(rf"\| pgd-2 +\| ℓ∞ 25\.5/255 +\| {knowledge} +\| 20 +\| 10 +\| [\d.]+ +\| [\d.]+ to", text)
    assert "* `eot`: the mean over k fresh draws at every step" in text and "`fixed`" not in text
    assert len(table) == 6 and text.count("| pgd-2 ") == 2  # of the two networks, and of this one alone


def test_the_numbers_of_a_card_are_of_this_network_and_of_these_weights(quickstart: Path, tmp_path: Path) -> None:
    natural = {}
    for seed in (0, 1):
        rna("export", "BN+IN black-box", "--seed", seed, "-o", tmp_path, "--store", quickstart)
        text = (tmp_path / f"quickstart-BN+IN-black-box-seed{seed}.md").read_text(encoding="utf-8")
        natural[seed] = float(re.findall(r"\| natural .*\| 10 +\| ([\d.]+)", text)[0])
    table = rna_ray.open_store(quickstart).query(
        """SELECT seed, 100 * avg(natural_correct / draws) FROM examples JOIN trials ON network_id = trials.unit_id
           WHERE examples.attack = 'natural' AND norm = 'BN+IN' GROUP BY seed"""
    )
    assert natural == pytest.approx(dict(table.fetchall()), abs=0.05)
    rna("export", "BN", "--checkpoint", "last", "-o", tmp_path / "last", "--store", quickstart)
    assert "no evaluation of its last weights" in (tmp_path / "last/quickstart-BN-seed0-last.md").read_text()


def test_an_imported_network_is_loaded_by_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code").mkdir()
    Path("code/mynet.py").write_text(
        "from torch import nn\nimport rna_ray\n\ndef build():\n"
        "    layers = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)\n"
        "    return rna_ray.randomize(nn.Sequential(*layers), 'BN+IN')\n"
    )
    Path("own.yaml").write_text(
        "name: own\ndata: {name: digits}\nnetwork: {import: 'mynet:build', root: code}\n"
        "evaluation: [{attack: natural, examples: 20}]\n"
    )
    assert rna("run", "own.yaml", "--address", "inline").code == 0
    expected = logits(rna_ray.open_store("rna-store").network("mynet:build"))
    assert rna("export", "mynet:build").code == 0
    assert torch.equal(logits(rna_ray.load_network("own-mynet-build-seed0.safetensors", root="code")), expected)
    (network,) = blocks(Path("own-mynet-build-seed0.md"), "yaml")
    shutil.copy("code/mynet.py", "mynet.py")
    Path("again.yaml").write_text(
        f"name: again\ndata: {{name: digits}}\n{network}evaluation: [{{attack: natural, examples: 20}}]\n"
    )
    found = plan.plan(spec.load("again.yaml"))
    assert [trial.kind for trial in found.trials] == ["import"]


def test_other_files_and_folders_are_refused_and_nothing_is_left(exported: Path, quickstart: Path) -> None:
    save_file(load_file(f"{NAME}.safetensors"), "silent.safetensors")
    with pytest.raises(CheckpointError, match=r"silent.safetensors does not say which network it is"):
        rna_ray.load_network("silent.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        rna_ray.load_network("nowhere.safetensors")
    Path("file").write_text("")
    before = sorted(exported.iterdir())
    ended = rna("export", "BN", "-o", "file", "--store", quickstart)
    assert ended.one_sentence and "cannot write quickstart-BN-seed0 to file" in ended.err
    ended = rna("export", "BN+IN black-box", "--store", quickstart)
    assert ended.one_sentence and "say which seed, of 0, 1" in ended.err
    assert rna("export", "BN", "--checkpoint", "first", "--store", quickstart).one_sentence
    assert sorted(exported.iterdir()) == before
