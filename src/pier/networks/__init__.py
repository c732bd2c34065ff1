"""Networks: bridges, host and none; addresses, names, published ports, the container's own files."""

from pier.networks.asks import ask_of, check_borrowed, check_settings, unknown_options
from pier.networks.endpoint import Ask, Endpoint, Publishing, Sandbox
from pier.networks.records import NetworkRecord
from pier.networks.resolv import hosts, resolv_conf, upstream_path
from pier.networks.service import NetworkConfig, NetworkService

__all__ = [
    "Ask",
    "Endpoint",
    "NetworkConfig",
    "NetworkRecord",
    "NetworkService",
    "Publishing",
    "Sandbox",
    "ask_of",
    "check_borrowed",
    "check_settings",
    "hosts",
    "resolv_conf",
    "unknown_options",
    "upstream_path",
]
