"""GGUF, the file format of llama.cpp: reading and checking headers, writing it from a checkpoint. No backend."""
