"""The `pier` command: a lean client of the Engine API (standard library only, verbs imported when they are named)."""
