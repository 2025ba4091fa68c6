"""The local hub of tests/hub."""

from tests.hub.conftest import serve

__all__ = ["serve"]
