"""The arrows between the package's parts, read from the import statements."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
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
    "evidence": 1,
    "combine": 1,
    "axes": 2,
    "blocks": 3,
    "kronecker": 3,
    "leafwise": 3,
    "norms": 3,
    "evaluation": 3,
    "obstacles": 3,
    "polynomials": 3,
    "stacks": 3,
    "decay": 4,
    "directions": 4,
    "fitting": 4,
    "labels": 4,
    "moments": 4,
    "orthogonal": 4,
    "powers": 4,
    "roots": 4,
}
# The rooms of the comparison, in the order in which its data passes through them.
ROOMS = ("plan", "work", "keep", "read", "show")
COMPARE = PACKAGE / "compare"


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
    return LEVELS.get(primitive.removeprefix("optzoo.primitives."), 5)


@pytest.mark.parametrize("module", leaves("primitives"))
def test_primitives_do_not_import_one_another_sideways(module):
    lower = {other for other in leaves("primitives") if level(other) < level(module)}
    assert imports(module) <= {"optzoo.registry", *lower}


@pytest.mark.parametrize("module", leaves("optimizers"))
def test_an_optimizer_knows_primitives_wrappers_schedules_and_the_registry(module):
    others = imports(module) - {"optzoo.registry", *leaves("primitives")}
    assert others <= set(leaves("optimizers"))
    names = {
        alias.name
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in others
        for alias in node.names
    }
    assert names <= {*optzoo.REGISTRY.wrappers, *optzoo.REGISTRY.schedules}


@pytest.mark.parametrize("module", sorted({*part("optimizers")} - {*leaves("optimizers")}))
def test_a_family_only_explains_and_re_exports(module):
    docstring, *body = ast.parse(MODULES[module].read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in body)
    assert imports(module) <= {other for other in part("optimizers") if other.startswith(module)}


def test_the_catalogue_derives_from_the_registry_alone():
    assert imports("optzoo.catalog") == {"optzoo.describe", "optzoo.plugins", "optzoo.registry"}
    assert imports("optzoo.plugins") == set()
    assert imports("optzoo.describe") <= set(leaves("primitives"))


def test_names_compose_without_the_comparison():
    assert imports("optzoo.baselines") == {"optzoo.registry"}
    assert imports("optzoo.compose") == {"optzoo.baselines", "optzoo.plugins", "optzoo.registry"}


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
    ours = ("optzoo", "optzoo.baselines", "optzoo.compose", "optzoo.plugins", "optzoo.registry")
    allowed = {*ours, *part("problems"), *part("compare")}
    assert imports(module) <= allowed
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not names & {*optzoo.REGISTRY.optimizers, *optzoo.REGISTRY.wrappers}


def room(module):
    """A module's place on the way of the data; what serves all rooms is before the first one."""
    if module in ("optzoo.compare", "optzoo.compare.runner"):
        return len(ROOMS)
    name = module.split(".")[2]
    return ROOMS.index(name) if name in ROOMS else -1


@pytest.mark.parametrize("module", part("compare"))
def test_the_rooms_of_compare_import_only_what_comes_before(module):
    for other in imports(module) & set(part("compare")):
        assert room(other) <= room(module), f"{module} imports {other}"


def test_nothing_in_compare_imports_itself_on_a_way_round():
    sorter = TopologicalSorter({module: imports(module) for module in part("compare")})
    assert set(sorter.static_order()) >= set(part("compare"))


@pytest.mark.parametrize("folder", [COMPARE, *COMPARE.glob("**/[a-z]*/")], ids=lambda one: one.name)
def test_a_room_of_compare_is_seen_at_a_glance(folder):
    files = [path for path in folder.iterdir() if path.is_file()]
    assert 0 < len(files) <= 8, [path.name for path in files]


def test_import_loads_nothing_that_optax_does_not():
    program = (
        "import sys, optax; known = {*sys.modules}; import optzoo; "
        "print(*{name.partition('.')[0] for name in {*sys.modules} - known})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == ["optzoo"]
