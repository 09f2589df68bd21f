"""The arrows between the package's parts, read from the import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optzoo

PACKAGE = Path(optzoo.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# A primitive imports those of lower levels only; what is not named here is of the highest.
LEVELS = {
    "base": 0,
    "axes": 1,
    "combine": 1,
    "labels": 2,
    "norms": 2,
    "evaluation": 2,
    "polynomials": 2,
    "stacks": 2,
}


def imports(module):
    """The modules of ours that a module names in an import statement, wherever it stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            found.add(name)
    return found - {"", module}


def part(name):
    return [module for module in MODULES if f"{module}.".startswith(f"optzoo.{name}.")]


def leaves(name):
    """The modules of a part without the __init__s, which only re-export or explain."""
    return [module for module in part(name) if MODULES[module].name != "__init__.py"]


def test_the_reader_of_imports_sees_what_is_there():
    assert "optzoo.primitives.base" in imports("optzoo.primitives.combine")
    assert imports("optzoo.optimizers.matrix.muon") >= {"optzoo.registry", "optzoo.primitives.axes"}


def test_the_registry_imports_nothing_of_ours():
    assert imports("optzoo.registry") == set()


def level(primitive):
    return LEVELS.get(primitive.removeprefix("optzoo.primitives."), 3)


@pytest.mark.parametrize("module", leaves("primitives"))
def test_primitives_do_not_import_one_another_sideways(module):
    assert imports(module) <= {
        other for other in leaves("primitives") if level(other) < level(module)
    }


@pytest.mark.parametrize("module", leaves("optimizers"))
def test_an_optimizer_knows_primitives_and_the_registry(module):
    assert imports(module) <= {"optzoo.registry", *leaves("primitives")}


def test_the_catalogue_derives_from_the_registry_alone():
    assert imports("optzoo.catalog") == {"optzoo.describe", "optzoo.plugins", "optzoo.registry"}
    assert imports("optzoo.plugins") == set()
    assert imports("optzoo.describe") <= set(leaves("primitives"))


def test_the_package_only_re_exports():
    docstring, *body, version = ast.parse(MODULES["optzoo"].read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in body)
    assert ast.unparse(version) == f"__version__ = {optzoo.__version__!r}"


@pytest.mark.parametrize("module", part("problems"))
def test_problems_know_no_optimizer(module):
    assert imports(module) <= set(part("problems"))


@pytest.mark.parametrize("module", part("compare"))
def test_compare_knows_the_registry_and_problems_and_names_no_optimizer(module):
    allowed = {"optzoo", "optzoo.plugins", "optzoo.registry", *part("problems"), *part("compare")}
    assert imports(module) <= allowed
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not names & set(optzoo.REGISTRY)


def test_import_loads_nothing_that_optax_does_not():
    program = (
        "import sys, optax; known = {*sys.modules}; import optzoo; "
        "print(*{name.partition('.')[0] for name in {*sys.modules} - known})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == ["optzoo"]
