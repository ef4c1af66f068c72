"""The rooms of the package: imports go one way, from the front of the list to its back."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pymc_isomix

PACKAGE = Path(pymc_isomix.__file__).parent
# a room may import from itself and from those before it
ROOMS = [
    "backend",
    "family",
    "model",
    "sites",
    "step",
    "fitting",
    "sampling",
    "results",
    "plots",
    "interface",
    "ensembles",
]
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported_modules(path):
    """Modules of the package that one of its files imports, anywhere in it, as dotted names."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pymc_isomix"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pymc_isomix"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                below = PACKAGE.parent.joinpath(*name.split("."))
                yield name if below.with_suffix(".py").exists() else node.module


def dotted(path):
    return ".".join(["pymc_isomix", *path.with_suffix("").parts])


def arrows():
    return {(path, name) for path in MODULES for name in imported_modules(path)}


def test_every_module_has_a_room():
    assert {path.parts[0] for path in MODULES if len(path.parts) > 1} == set(ROOMS)
    assert {path.name for path in MODULES if len(path.parts) == 1} == {"__init__.py", "_version.py"}


def test_no_arrow_runs_back_up():
    back = [
        f"{path} imports {name}"
        for path, name in arrows()
        if len(path.parts) > 1
        and (name == "pymc_isomix" or name.split(".")[1] in ROOMS)
        and (name == "pymc_isomix" or ROOMS.index(name.split(".")[1]) > ROOMS.index(path.parts[0]))
    ]
    assert not back


def test_no_circle():
    graph: dict = {}
    for path, name in arrows():
        graph.setdefault(dotted(path), set()).add(name)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_the_interface_knows_pymc_variational():
    minibatches = "pymc.variational.minibatch_rv"  # a part of models, for all that its place says
    names = {p: imports_of_others(p).replace(minibatches, "") for p in MODULES}
    knows = {p.parts[0] for p in MODULES if "pymc.variational" in names[p]}
    assert knows == {"interface"}


def imports_of_others(path):
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    return " ".join(names)


def test_the_family_knows_nothing_of_pymc():
    for path in MODULES:
        if path.parts[0] == "family":
            assert not any(n.split(".")[0] == "pymc" for n in imports_of_others(path).split())


def public_functions(body, prefix=""):
    """Functions and methods without an underscore, and constructors, with their qualified names."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name in ("__init__", "__call__")
        ):
            yield f"{prefix}{node.name}", node


def test_public_functions_are_annotated():
    missing = []
    for path in MODULES:
        tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
        for name, node in public_functions(tree.body):
            given = node.args
            parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            parameters += [one for one in (given.vararg, given.kwarg) if one is not None]
            is_bound = "." in name and "staticmethod" not in map(ast.unparse, node.decorator_list)
            if node.returns is None or any(p.annotation is None for p in parameters[is_bound:]):
                missing.append(f"{path}: {name}")
    assert not missing
