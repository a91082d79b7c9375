"""Composition: the command line, the demo and its simulated plants."""

__version__ = "0.1.0"
