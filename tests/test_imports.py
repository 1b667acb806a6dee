"""The order of the packages is the design; it is checked here, not remembered."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "distill3d"

# A package imports only what stands left of it (ARCHITECTURE: the house, in one breath).
CELLS = [
    {"errors", "types", "files", "progress", "devices", "memory"},
    {"geometry"},
    {"nn"},
    {"losses"},
    {"models"},
    {"checkpoints", "adapters"},
    {"data", "cache"},
    {"teachers"},
    {"infer"},
    {"train", "eval", "export", "viewer"},
    {"cli"},
    {"__main__"},
]
RANK = {package: rank for rank, cell in enumerate(CELLS) for package in cell}


def imported_packages(path: Path) -> set[str]:
    """First-level packages of distill3d that a file imports, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "distill3d":
            parts = node.module.split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("distill3d."))
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_what_stands_left_of_it(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        pytest.skip("the public names come from everywhere")
    for package in imported_packages(path):
        assert RANK[package] <= RANK[own], f"{own} must not import {package}"


def test_every_package_has_its_place_in_the_order():
    present = {child.name.removesuffix(".py") for child in SOURCE.iterdir() if child.name[0] not in "_."}
    assert present - set(RANK) <= {"weights", "py.typed"}


def test_two_packages_of_one_cell_do_not_import_each_other():
    imports: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        imports.setdefault(own, set()).update(imported_packages(path))
    for cell in CELLS:
        for package in cell:
            for other in (cell & imports.get(package, set())) - {package}:
                assert package not in imports.get(other, set()), f"{package} and {other} import each other"


@pytest.mark.parametrize("statement", ["import distill3d", "import distill3d.cli", "import distill3d.train.config"])
def test_light_imports_stay_light(statement):
    heavy = ["torch", "cv2", "scipy", "matplotlib", "trimesh", "pyarrow", "tensorboard"]
    code = f"import sys\n{statement}\nprint([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
