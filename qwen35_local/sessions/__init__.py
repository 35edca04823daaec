"""Conversations on disk: what was said, and the model's state after it, so that nothing has to be read again."""
