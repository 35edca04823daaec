"""Custom Metal kernels, each beside its reference in MLX operations."""
