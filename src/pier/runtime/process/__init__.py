"""What runs on the way to a container's program: first process, exec, and what they need."""
