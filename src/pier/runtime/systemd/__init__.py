"""Cgroups that systemd keeps."""
