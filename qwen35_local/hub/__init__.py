"""Models on this machine: choosing, fetching, converting and checking them. Nothing here computes with a model."""
