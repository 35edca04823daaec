"""Parts of scripts/bench_streaming.py."""
