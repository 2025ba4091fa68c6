"""Which models there are, where their files lie, what their headers say, and whether they fit."""
