"""The two engines behind one contract (`base.py`), found by name (`registry.py`)."""
