"""Engines are named in their own room, the catalogue and one Literal; everything else derives from these."""

import ast
from pathlib import Path

import pytest

import llmlab
from llmlab.engines import registry
from llmlab.files import tags
from llmlab.types import FORMATS

PACKAGE = Path(llmlab.__file__).parent
ALLOWED = ("engines/", "hub/catalogue", "zoo/", "types/params.py")
# Strings that are the name of a distribution, a package, a module or a server, which happens to be the engine's.
PACKAGES = {
    "machine/hardware.py": 1,
    "files/architectures.py": 1,
    "files/fit.py": 1,
    "deploy/exporting.py": 2,
    "deploy/proof.py": 1,
    "deploy/vllm_server.py": 2,
}


def _named(source):
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return sum(value in registry.ENGINES for value in constants)


def test_engine_names_appear_in_their_room_only():
    found = {}
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        if not name.startswith(ALLOWED) and (count := _named(file.read_text(encoding="utf-8"))):
            found[name] = count
    assert found == PACKAGES


@pytest.mark.parametrize("name", registry.ENGINES)
def test_a_declaration_agrees_with_the_tables(name):
    declared = registry.declared(name)
    assert declared.name == name
    assert declared.capabilities.formats == {FORMATS[name]}
    assert declared.capabilities.quants == tags.names(name)
    assert list(FORMATS) == list(registry.ENGINES) == list(registry.PACKAGES) == list(registry.INSTALL)
