"""The terminal chat app. It speaks to `Engine` alone; `commands/chat.py` hands it a function that opens one.

Importing this package loads neither Textual nor a backend, so that a pure part can be used by itself.
"""
