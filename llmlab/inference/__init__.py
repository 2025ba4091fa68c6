"""One request: checked and prepared, streamed, and kept in a conversation."""
