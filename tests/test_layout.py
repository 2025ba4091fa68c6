"""The layout: no function has its module's name, and the root holds only what users meet."""

import ast
from pathlib import Path

import llmlab

PACKAGE = Path(llmlab.__file__).parent


def test_no_function_shadows_its_module():
    found = [
        f"{file.relative_to(PACKAGE)}: {node.name}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == file.stem
    ]
    assert not found


def test_no_package_exports_a_function_under_the_name_of_a_module():
    found = []
    for init in PACKAGE.rglob("__init__.py"):
        folder = init.parent
        modules = {path.stem for path in folder.glob("*.py")} | {
            path.parent.name for path in folder.glob("*/__init__.py")
        }
        own = ".".join(folder.relative_to(PACKAGE.parent).parts)
        for node in ast.walk(ast.parse(init.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module != own:
                names = {alias.asname or alias.name for alias in node.names}
                found += [f"{own}: {name}" for name in names & modules]
    assert not found


def test_the_root_has_few_modules():
    found = {path.stem for path in PACKAGE.glob("[!_]*.py")}
    assert found == {"config", "doctor", "errors", "model", "options", "session"}
