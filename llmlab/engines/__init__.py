"""The engines: one interface (`base.py`), its two implementations, and their lookup by name (`registry.py`)."""
