"""Operations of the contract that Pier does not have yet: each answers 501 and names itself. One list, to become empty.

Below it, the operations that answer as Docker does on a node outside any swarm, and those on plugins that do not
exist: `docker inspect NAME` asks for each kind in turn.
"""

from __future__ import annotations

from aiohttp import web

from pier.errors import NotFound, NotImplementedYet, Unavailable

from .call import Call
from .router import Route


class NoSuchPlugin(NotFound):
    """plugin "{name}" not found"""


class NotInASwarm(Unavailable):
    """This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again."""  # noqa: E501


UNIMPLEMENTED: tuple[tuple[str, str, str], ...] = (
    # containers
    ("GET", "/containers/{id}/checkpoints", "CheckpointList"),
    ("POST", "/containers/{id}/checkpoints", "CheckpointCreate"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "CheckpointDelete"),
    # images and builds
    ("GET", "/images/{name...}/attestations", "ImageAttestations"),
    # plugins
    ("GET", "/plugins/privileges", "GetPluginPrivileges"),
    ("POST", "/plugins/pull", "PluginPull"),
    ("POST", "/plugins/create", "PluginCreate"),
)

SWARM: tuple[tuple[str, str, str], ...] = (
    ("GET", "/swarm", "SwarmInspect"),
    ("POST", "/swarm/init", "SwarmInit"),
    ("POST", "/swarm/join", "SwarmJoin"),
    ("POST", "/swarm/leave", "SwarmLeave"),
    ("POST", "/swarm/update", "SwarmUpdate"),
    ("GET", "/swarm/unlockkey", "SwarmUnlockkey"),
    ("POST", "/swarm/unlock", "SwarmUnlock"),
    ("GET", "/nodes", "NodeList"),
    ("GET", "/nodes/{id}", "NodeInspect"),
    ("DELETE", "/nodes/{id}", "NodeDelete"),
    ("POST", "/nodes/{id}/update", "NodeUpdate"),
    ("GET", "/services", "ServiceList"),
    ("POST", "/services/create", "ServiceCreate"),
    ("GET", "/services/{id}", "ServiceInspect"),
    ("DELETE", "/services/{id}", "ServiceDelete"),
    ("POST", "/services/{id}/update", "ServiceUpdate"),
    ("GET", "/services/{id}/logs", "ServiceLogs"),
    ("GET", "/tasks", "TaskList"),
    ("GET", "/tasks/{id}", "TaskInspect"),
    ("GET", "/tasks/{id}/logs", "TaskLogs"),
    ("GET", "/secrets", "SecretList"),
    ("POST", "/secrets/create", "SecretCreate"),
    ("GET", "/secrets/{id}", "SecretInspect"),
    ("DELETE", "/secrets/{id}", "SecretDelete"),
    ("POST", "/secrets/{id}/update", "SecretUpdate"),
    ("GET", "/configs", "ConfigList"),
    ("POST", "/configs/create", "ConfigCreate"),
    ("GET", "/configs/{id}", "ConfigInspect"),
    ("DELETE", "/configs/{id}", "ConfigDelete"),
    ("POST", "/configs/{id}/update", "ConfigUpdate"),
)

ONE_PLUGIN: tuple[tuple[str, str, str], ...] = (
    ("GET", "/plugins/{name...}/json", "PluginInspect"),
    ("DELETE", "/plugins/{name...}", "PluginDelete"),
    ("POST", "/plugins/{name...}/enable", "PluginEnable"),
    ("POST", "/plugins/{name...}/disable", "PluginDisable"),
    ("POST", "/plugins/{name...}/upgrade", "PluginUpgrade"),
    ("POST", "/plugins/{name...}/push", "PluginPush"),
    ("POST", "/plugins/{name...}/set", "PluginSet"),
)


async def not_implemented(call: Call) -> web.StreamResponse:
    raise NotImplementedYet(what=f"{call.operation} ({call.request.method} {call.template})")


async def not_in_a_swarm(call: Call) -> web.StreamResponse:
    raise NotInASwarm


async def no_such_plugin(call: Call) -> web.StreamResponse:
    raise NoSuchPlugin(name=call.id)


ROUTES = (
    *(Route(method, path, operation, not_implemented) for method, path, operation in UNIMPLEMENTED),
    *(Route(method, path, operation, not_in_a_swarm) for method, path, operation in SWARM),
    *(Route(method, path, operation, no_such_plugin) for method, path, operation in ONE_PLUGIN),
)
