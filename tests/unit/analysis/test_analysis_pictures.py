"""The figures' files: pictures that say what they show and hold nothing else, all three or none."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from figures_base import ELL, STORES, table_of_cells, transfers
from PIL import Image

from rna_ray.analysis import figures
from rna_ray.analysis.figures import style
from rna_ray.analysis.figures.catalog import ABLATION, FIGURES
from rna_ray.errors import FigureError, QueryError
from rna_ray.store import Store, connect, open_store

SAID = {
    "rna-figure1": ["natural training", "adversarial training", "from natural training", "to adversarial training",
                    "accuracy (%)", "target: the network that answers", "source: the network that was attacked"],
    "rna-figure2": ["along the attack (1/255)", "orthogonal to it (1/255)", "loss (cross-entropy, nats)", "IN",
                    "attack (1/255)", "loss (nats)"],
    "rna-figure3": ["cosine similarity", "images (%)", "BN, IN", "BN, IN in BN+IN", "two networks,"],
    "rna-figure5": ["steps of PGD", "radius ε (1/255)", "path difference (layers)", "@eot-5",
                    "BN+IN, printed"],
    "rna-theory": ["gradient norm (nats a unit)", "curvature along gradient (nats a unit²)", "attacked → answers",
                   "IN, formula", "BN, measured", "vacuous: says nothing"],
    "robustnorm-figure1": ["tracked", "batch, mean over batches", "(a) mean, natural images", "BN+IN: BN", "BN",
                           "(d) difference, natural images", "(h) difference, attacked images", "deviation"],
    "robustnorm-figure9": ["first direction", "second direction", "loss (cross-entropy, nats; log scale)",
                           "(a) BN natural", "natural training, natural images", "at the dot: loss 4.5, 33.3 % right"],
    "robustnorm-figure3": ["loss", "accuracy (%)", "epoch", "held-out images, natural", "held-out images, attacked",
                           "BN, 3 seeds †", "IN, 1 seed", "RN natural, 2 seeds"],
    "robustnorm-figure8": ["training images, natural", "training images, attacked", "held-out images, natural",
                           "held-out images, attacked", "BN, 3 seeds †"],
    "s": ["accuracy over fresh draws (%)", "variant", "natural", f"pgd-20@transfer #2, {ELL}∞ ε = 16/255"],
}  # fmt: skip
"""What each figure must say: labels of its axes, titles, its legend."""
SIZES = {"rna-figure1": (13.0, 4.7), "rna-figure3": (7.7, 3.4), "rna-figure5": (14.2, 4.6)}  # inches, at 150 dpi


# -- the files ---------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    name: str
    store: Store
    folder: Path
    """Where its files are."""
    picture: Any
    """What matplotlib has of it."""


@pytest.fixture(scope="module", params=list(STORES))
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_book: Any) -> Drawn:
    """Each figure, from a store of its own."""
    folder, made, plain = tmp_path_factory.mktemp(request.param), [], style.picture
    store = STORES[request.param](new_book(open_store(folder / "store")))

    def picture(*size_and_words: Any) -> Any:
        made.append(plain(*size_and_words))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "picture", picture)
        paths = figures.figure(connect(store), request.param, folder / "out", None if request.param == "s" else "s")
    assert paths == [folder / "out" / f"{request.param}.{suffix}" for suffix in ("png", "svg", "parquet")]
    return Drawn(request.param, store, folder / "out", *made)


@pytest.mark.slow
def test_three_files_and_no_other(drawn: Drawn) -> None:
    name, _, folder, _ = drawn
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for kind in ("png", "svg", "parquet")}


@pytest.mark.slow
def test_the_parquet_file_is_the_table(drawn: Drawn) -> None:
    name, store, folder, _ = drawn
    found = pq.read_table(folder / f"{name}.parquet")
    assert found.equals(FIGURES.get(name, ABLATION).tabulate(connect(store), "s")) and found.num_rows
    assert found.schema.metadata[b"about"].startswith(b"ResNet-18, width 16, CIFAR-10")


@pytest.mark.slow
def test_the_picture_has_its_size_and_is_not_blank(drawn: Drawn) -> None:
    name, _, folder, _ = drawn
    with Image.open(folder / f"{name}.png") as image:
        if name in SIZES:
            assert image.size == pytest.approx([150 * side for side in SIZES[name]], abs=1)
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert len(colours) > 50
        white = max(count for count, colour in colours if colour == (255, 255, 255))
        assert white < 0.95 * image.width * image.height


def test_the_svg_holds_its_words_as_text(drawn: Drawn) -> None:
    name, _, folder, _ = drawn
    root = ElementTree.parse(folder / f"{name}.svg").getroot()
    texts = ["".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert not [said for said in SAID[name] if said not in texts]
    footer = " ".join(texts)
    for said in ("ResNet-18", "10,000 training images", "n = ", "95 %", "seed"):
        assert said in footer


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(drawn: Drawn, tmp_path: Path) -> None:
    name, store, folder, _ = drawn
    for path in figures.figure(connect(store), name, tmp_path, None if name == "s" else "s"):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_words_stay_inside_the_picture_and_legends_off_the_data(drawn: Drawn) -> None:
    name, _, _, picture = drawn
    with style.applied():
        width, height = picture.canvas.get_width_height()
        panels = [axes.get_tightbbox() for axes in picture.axes if axes.name != "3d"]  # with their titles and labels
        legends = [each.get_window_extent() for part in (picture, *picture.subfigs) for each in part.legends]
        lines = [picture._suptitle.get_window_extent(), picture._supxlabel.get_window_extent()]
    assert panels and (legends or name in ("rna-figure1", "rna-figure2", "robustnorm-figure9"))
    for box in (*panels, *legends, *lines):
        assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
    assert not [box for box in legends if any(line.overlaps(box) for line in lines)]
    for above in (*legends, *lines):
        assert not [box for box in panels if above.overlaps(box)]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known(book, tmp_path: Path) -> None:
    connection = connect(table_of_cells(book))
    known = "Known: rna-figure1, .*, s, stn-figure1, .*"
    with pytest.raises(FigureError, match=rf"unknown figure 'rna-figure4'; did you mean .* {known}"):
        figures.figure(connection, "rna-figure4", tmp_path / "out")
    with pytest.raises(FigureError, match=r"unknown sweep of this store: 't'. Known: s"):
        figures.figure(connection, "rna-figure1", tmp_path / "out", "t")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(name for name in FIGURES if FIGURES[name].rows))
def test_a_figure_without_rows_says_which_sweep_to_run(book, tmp_path: Path, name: str) -> None:
    book.trained("BN")
    connection, own = connect(book.close()), FIGURES[name].sweep or name
    with pytest.raises(FigureError, match=f"no rows for figure {name} yet: .* rna-ray run sweeps/{own}.yaml$"):
        figures.figure(connection, name, tmp_path / "out")
    says = rf"no rows for figure {name} in sweep 's' yet: it draws what .*{own}.yaml|'s' asks for no evaluation"
    with pytest.raises((FigureError, QueryError), match=says):
        figures.figure(connection, name, tmp_path / "out", "s")
    assert not (tmp_path / "out").exists()


def test_a_sweep_without_evaluations_says_so(book, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="asks for no evaluation"):
        figures.figure(connect(transfers(book)), "s", tmp_path)


def test_nothing_is_half_written(book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, out = connect(table_of_cells(book)), tmp_path / "out"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FigureError, match=r"cannot write figure s to .*file, which is a file: give a folder"):
        figures.figure(connection, "s", tmp_path / "file")
    before = figures.figure(connection, "s", out)[0].read_bytes()

    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "parquet" in path.name:  # the last of the three
            raise OSError(28, "No space left on device")
        return written(path, data + b"other")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FigureError, match=r"cannot write figure s to .*out: No space left on device"):
        figures.figure(connection, "s", out)
    assert sorted(path.name for path in out.iterdir()) == ["s.parquet", "s.png", "s.svg"]
    assert (out / "s.png").read_bytes() == before


@pytest.mark.slow
def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, rna_ray.analysis.figures; print([name for name in sys.modules if 'matplotlib' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_readers_own_settings_change_nothing(book, tmp_path: Path) -> None:
    import matplotlib

    connection = connect(table_of_cells(book))
    plain = figures.figure(connection, "s", tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "savefig.dpi": 30, "axes.grid": True}):
        styled = figures.figure(connection, "s", tmp_path / "styled")
    assert [path.read_bytes() for path in styled] == [path.read_bytes() for path in plain]


def test_the_colours_are_okabe_and_itos() -> None:
    known = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"]
    assert sorted(style.COLOURS) == sorted(known) and len(set(style.MARKERS)) == len(style.MARKERS)


def test_all_columns_of_a_table_are_of_the_stated_types(drawn: Drawn) -> None:
    name, _, folder, _ = drawn
    schema = pq.read_schema(io.BytesIO((folder / f"{name}.parquet").read_bytes()))
    assert {"n", "seeds", "low", "high"} <= set(schema.names)
    assert all(schema.field(column).type == pa.float64() for column in ("low", "high"))
