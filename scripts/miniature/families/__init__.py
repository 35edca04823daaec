"""One module per task family; each makes a `Task` from a seeded generator, on either side of the held-out split."""
