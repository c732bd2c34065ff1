"""The name server of user-defined networks: 127.0.0.11 in every container on one, served by the daemon."""

from pier.networks.dns.answer import Settings
from pier.networks.dns.names import NameTable
from pier.networks.dns.server import DnsServer

__all__ = ["DnsServer", "NameTable", "Settings"]
