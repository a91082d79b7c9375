"""Simulated and recorded plants: pure generators of what a plant publishes, for the demo and for replays."""
