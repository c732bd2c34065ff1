"""A container's parent process."""
