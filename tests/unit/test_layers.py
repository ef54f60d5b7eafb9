"""The rooms import one way, heavy libraries stay where they belong, and everything public says what it promises."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import rna_ray

ROOT = Path(rna_ray.__file__).parent
ANALYSIS = ROOT.parent / "analysis"

# From the ground up: a module may import from its own layer and from those below it. The longest prefix decides.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("rna_ray",),  # the package itself: a version, and names that are imported when they are asked for
    ("rna_ray.errors",),
    ("rna_ray.randomness",),
    ("rna_ray.networks.spaces",),
    ("rna_ray.networks.describe",),
    ("rna_ray.networks.source",),
    ("rna_ray.data",),
    ("rna_ray.attacks.catalog",),
    ("rna_ray.probes.catalog",),
    ("rna_ray.store.records",),
    ("rna_ray.store",),
    ("rna_ray.sweep",),
    ("rna_ray.networks",),
    ("rna_ray.attacks",),
    ("rna_ray.evaluation",),
    ("rna_ray.probes",),
    ("rna_ray.training",),
    ("rna_ray.running",),
    ("rna_ray.show",),
    ("rna_ray.analysis",),
    ("rna_ray.completion",),
    ("rna_ray.export",),
    ("rna_ray.notebook",),
    ("rna_ray.cli",),
)
ANALYSIS_MAY_IMPORT = ("rna_ray.analysis", "rna_ray.errors", "rna_ray.store.records", "rna_ray.evaluation.radii")

# Who may import a library, function-level imports included; no one else does.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "ray": (
        "rna_ray.running.logs", "rna_ray.running.machines", "rna_ray.running.on_ray",
        "rna_ray.running.pool", "rna_ray.running.races", "rna_ray.running.trials",
    ),
    "optuna": ("rna_ray.running.rounds",),
    "torch": (
        "rna_ray.randomness", "rna_ray.networks", "rna_ray.attacks", "rna_ray.evaluation", "rna_ray.probes",
        "rna_ray.training", "rna_ray.running.compiling", "rna_ray.running.doctor", "rna_ray.running.inline",
        "rna_ray.running.inputs", "rna_ray.running.memory", "rna_ray.running.provenance", "rna_ray.running.work",
    ),
    "duckdb": ("rna_ray.store.views", "rna_ray.analysis"),
    "matplotlib": ("rna_ray.analysis.figures",),
    "jinja2": ("rna_ray.analysis.report",),
    "pyarrow": ("rna_ray.store", "rna_ray.analysis"),
    "pydantic": ("rna_ray.sweep",),
    "typer": ("rna_ray.cli", "rna_ray.completion"),
    "yaml": ("rna_ray.sweep.yaml_file",),
    "torchattacks": ("rna_ray.attacks.libraries",),
    "pyautoattack": ("rna_ray.attacks.libraries",),
    "foolbox": ("rna_ray.attacks.boundary",),
    "PIL": ("rna_ray.data.image_files",),
    "safetensors": ("rna_ray.training.checkpoint",),
}  # fmt: skip
WITHOUT_TORCH = (
    "rna_ray.networks", "rna_ray.networks.spaces", "rna_ray.networks.describe", "rna_ray.networks.source",
    "rna_ray.attacks.catalog", "rna_ray.evaluation", "rna_ray.evaluation.radii", "rna_ray.probes",
    "rna_ray.probes.catalog",
)  # fmt: skip


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT.parent).with_suffix("").parts)
    parts = ["rna_ray", *parts] if parts[0] == "analysis" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for folder in (ROOT, ANALYSIS) for path in sorted(folder.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes under `if TYPE_CHECKING:`, which never run."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {node for block in blocks for node in ast.walk(block)}


@functools.cache
def imports(module: str, *, types: bool) -> tuple[str, ...]:
    """Return the dotted names that a module imports, anywhere in it."""
    return tuple(_imports(module, types))


def _imports(module: str, types: bool) -> Iterator[str]:
    tree = TREES[module]
    skipped = set() if types else for_types_only(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively: {ast.unparse(node)}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(module: str, *, types: bool) -> set[str]:
    """Return the modules of rna-ray that a module imports."""
    found = set()
    for name in imports(module, types=types):
        if name.split(".")[0] == "rna_ray":
            while name not in MODULES:
                name = name.rpartition(".")[0]
            found.add(name)
    return found - {module}


def inside(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def layer(module: str) -> int:
    depths = {len(prefix): at for at, names in enumerate(LAYERS) for prefix in names if inside(module, (prefix,))}
    return depths[max(depths)]


def test_every_module_stands_in_a_layer_that_someone_named() -> None:
    assert len(MODULES) > 50
    unnamed = [module for module in MODULES if module != "rna_ray" and layer(module) == 0]
    assert not unnamed, f"say in LAYERS where {unnamed} stand"
    for prefix in (prefix for names in LAYERS for prefix in names):
        assert any(inside(module, (prefix,)) for module in MODULES), f"LAYERS names {prefix}, which is gone"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"rna_ray"}))
def test_imports_point_down(module: str) -> None:
    upwards = {other for other in rooms(module, types=True) if layer(other) > layer(module)}
    assert not upwards, f"{module} imports {sorted(upwards)}, which stand above it"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: rooms(module, types=False) - {"rna_ray"} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError says which


def test_analysis_imports_only_the_contract() -> None:
    for module in MODULES:
        if inside(module, ("rna_ray.analysis",)):
            others = [other for other in rooms(module, types=True) if not inside(other, ANALYSIS_MAY_IMPORT)]
            assert not others, f"{module} imports {others}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {
        module
        for module in MODULES
        if any(name.split(".")[0] == library for name in imports(module, types=False))
    }  # fmt: skip
    assert users, f"nothing imports {library}"
    strangers = [module for module in users if not inside(module, LIBRARIES[library])]
    assert not strangers, f"{strangers} import {library}"


def test_what_planning_reads_of_heavy_rooms_is_light() -> None:
    for module in WITHOUT_TORCH:
        assert not [name for name in imports(module, types=False) if name.split(".")[0] == "torch"], module


def test_import_rna_ray_is_light() -> None:
    code = (
        "import sys, rna_ray\n"
        "print(sorted({'torch', 'ray', 'pyarrow', 'numpy', 'pydantic', 'duckdb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_is_named_after_nothing_in_particular() -> None:
    vague = ("utils", "util", "helpers", "helper", "common", "manager", "managers", "misc")
    repository = [*ROOT.parent.glob("tests/**/*.py"), *MODULES.values()]
    assert not [path for path in repository if set(path.stem.split("_")) & set(vague) or path.parent.name in vague]


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module: str) -> None:
    tree = TREES[module]
    assert ast.get_docstring(tree), f"{module} does not say what it is"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} says nothing"


def test_exports_are_pinned() -> None:
    assert rna_ray.__all__ == ["__version__", "load_network", "open_store", "randomize"]
    assert {*rna_ray.__all__} <= set(dir(rna_ray))
    assert all(callable(getattr(rna_ray, name)) for name in rna_ray.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="has no attribute 'randomise'"):
        _ = rna_ray.randomise
