"""What a conversation is: turns in a tree, and the answer being written. No widget and no database in here."""
