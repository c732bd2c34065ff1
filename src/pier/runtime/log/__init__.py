"""A container's log as the monitor writes it."""
