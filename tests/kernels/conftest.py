from metal_cpu.testing import compiler

__all__ = ["compiler"]
