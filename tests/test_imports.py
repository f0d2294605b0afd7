"""Who may import whom. The arrows are read off the code, so nobody has to remember them."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import augbench

ROOT = Path(augbench.__file__).parent
ALLOWED = {
    "core": set(),
    "procedural": set(),
    "metrics": {"core"},
    "storage": {"core"},
    "planning": {"core", "storage"},
    "datasets": {"core", "procedural"},
    "diffusion": {"core", "procedural"},
    "classifiers": {"core"},
    "features": {"core", "classifiers"},
    "augmenters": {"core", "procedural", "diffusion", "planning"},
    "stages": {"core", "storage", "planning", "metrics", "classifiers", "features"},
    "runner": {"core", "storage", "planning", "stages"},
    "monitoring": {"core", "storage", "planning"},
    "report": {"core", "storage", "planning", "metrics", "diffusion"},
    "advice": {"core", "storage", "planning", "datasets", "metrics", "stages", "runner", "report"},
    "api": {"core", "storage", "planning", "metrics", "runner", "report", "advice"},
    "cli": {
        "api",
        "core",
        "storage",
        "planning",
        "diffusion",
        "procedural",
        "monitoring",
        "report",
        "runner",
        "stages",
        "advice",
    },
    "testing": {"core", "storage", "planning", "report"},
    "__main__": {"cli"},
    "": {"core", "storage", "planning", "api"},
}
HEAVY = {"torch", "torchvision", "timm", "diffusers", "transformers", "peft", "sklearn", "ray", "safetensors", "scipy",
         "matplotlib"}  # fmt: skip


def files():
    return sorted(ROOT.rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path, top_level_only=False):
    """Modules a file imports, as dotted names; names under TYPE_CHECKING count for packages, not for loading."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module and (ROOT.parent / node.module.replace(".", "/")).is_dir():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", files(), ids=lambda p: module_of(p))
def test_packages(path):
    package = package_of(module_of(path))
    for name in imports(path):
        if name.split(".")[0] == "augbench":
            other = package_of(name)
            inside = other == package and package not in ("datasets", "augmenters")
            own_helper = other == package and name.split(".")[-1].startswith("_")
            version_only = name == "augbench" or other == "__version__"
            assert inside or own_helper or version_only or other in ALLOWED[package], f"{path.name} imports {name}"
        if name.split(".")[0] == "ray":
            assert package == "runner", f"{path.name} imports ray"


@pytest.mark.parametrize("path", files(), ids=lambda p: module_of(p))
def test_heavy_libraries_are_imported_late(path):
    late = ("nodes", "ray_tune", "tune_dispatch", "ray_data", "tune_search", "trainables", "tune_tracking")
    if module_of(path) in {f"augbench.runner.{name}" for name in late}:
        return  # loaded by the driver once a run on Ray starts
    heavy = {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY
    assert not heavy, f"{path.name} imports {heavy} at its top"


def test_no_pickle_and_no_unsafe_yaml():
    for path in files():
        assert not {"pickle", "cloudpickle", "dill", "joblib"} & {n.split(".")[0] for n in imports(path)}, path
        text = path.read_text(encoding="utf-8")
        assert "yaml.load(" not in text and "eval(" not in text.replace(".eval()", "")
        assert all("weights_only=True" in line for line in text.splitlines() if "torch.load(" in line), path


def test_no_cycles():
    modules = {module_of(path) for path in files()}
    graph = {module_of(path): modules & set(imports(path)) - {module_of(path)} for path in files()}
    for package in [name for name in graph if (ROOT.parent / name.replace(".", "/")).is_dir()]:
        for name in graph:  # importing a module runs the packages above it
            if name.startswith(package + "."):
                graph[name].discard(package)
    graph = {name: sorted(others - {"augbench"}) for name, others in graph.items()}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the cycle


def test_help_loads_nothing_heavy():
    heavy = ("numpy", "pandas", "torch", "ray", "rich")
    code = f"import sys, augbench.cli.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
