"""Requests: validation, streaming, and conversations."""
