"""Run Qwen3.5-397B-A17B on a personal machine."""
