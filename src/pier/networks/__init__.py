"""Networks: the default bridge, host, none and container:, addresses, published ports, the container's own files."""

from pier.networks.endpoint import Endpoint
from pier.networks.resolv import hosts, resolv_conf, upstream_path
from pier.networks.service import NetworkConfig, NetworkService

__all__ = ["Endpoint", "NetworkConfig", "NetworkService", "hosts", "resolv_conf", "upstream_path"]
