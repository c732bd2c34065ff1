"""Pier: a container platform that speaks Docker's own protocols."""

__version__ = "0.1.0"
