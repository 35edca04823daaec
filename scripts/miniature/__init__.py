"""Data, model and training of the shipped miniature; the generators and the scorer need no torch."""
