from .testing import compiler

__all__ = ["compiler"]
