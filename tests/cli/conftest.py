"""Small notebooks, as in the tests of the notebook runner."""

from tests.notebooks.conftest import notebook, out

__all__ = ["notebook", "out"]
