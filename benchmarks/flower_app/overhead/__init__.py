"""A Flower app with trivial training."""
