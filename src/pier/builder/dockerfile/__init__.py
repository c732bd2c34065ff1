"""The language: a Dockerfile's text, its variables, and the build graph that it means."""
