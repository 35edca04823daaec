"""Chats on disk: one SQLite file, shared by all windows of the app."""
