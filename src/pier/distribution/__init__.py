"""The registry client: names resolved, manifests and blobs fetched, from mirrors and through proxies, verified."""

from pier.distribution.credentials import ANONYMOUS, Credentials
from pier.distribution.download import Backoff, Watcher
from pier.distribution.endpoints import ProxyConfig, RegistryConfig
from pier.distribution.errors import RegistryError
from pier.distribution.registries import Registries
from pier.distribution.repository import Repository

__all__ = [
    "ANONYMOUS",
    "Backoff",
    "Credentials",
    "ProxyConfig",
    "Registries",
    "RegistryConfig",
    "RegistryError",
    "Repository",
    "Watcher",
]
