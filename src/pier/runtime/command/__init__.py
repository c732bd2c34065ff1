"""The command line `pier-runtime`."""
