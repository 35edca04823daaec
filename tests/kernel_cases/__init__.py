"""What the kernel tests share: oracles, inputs, mutants. Importable by the processes that tests start."""
