"""The llama.cpp backend: GGUF files through llama-cpp-python's C API, under the same chat stack as MLX.

library   the binding, its version and its log          machine   cores, memory and GPUs
plan      what goes where, refused when it cannot fit   handle    a loaded model and a context, freed in order
session   one timeline with checkpoints                 engine    all of it as an `Engine`
probe     opens a file in a child process, where a crash does no harm
"""
