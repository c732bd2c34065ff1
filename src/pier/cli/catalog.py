"""Every command path and the verb module that does it: what `main` dispatches on and what `pier --help` lists."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "build": ("build", "Make an image of a Dockerfile and the files beside it"),
    "run": ("run", "Make a container from an image and start it"),
    "exec": ("exec", "Run a command in a running container"),
    "ps": ("ps", "List containers"),
    "pull": ("pull", "Fetch an image from a registry"),
    "images": ("images", "List images"),
    "version": ("version", "Show the versions of client and daemon"),
    "info": ("info", "Show what the daemon knows about itself and its host"),
    "attach": ("attach", "Connect this terminal to a running container"),
    "commit": ("commit", "Make an image of what a container changed"),
    "cp": ("cp", "Copy files between a container and this machine"),
    "create": ("create", "Make a container without starting it"),
    "daemon": ("daemon", "Run the daemon, pierd, in the foreground"),
    "diff": ("diff", "Show what changed in a container's file system"),
    "events": ("events", "Follow what happens in the daemon"),
    "export": ("export", "Write a container's file system to an archive"),
    "history": ("history", "Show how an image was made"),
    "import": ("import_", "Make an image from a root file system archive"),
    "inspect": ("inspect", "Show everything about containers, images, networks or volumes"),
    "kill": ("kill", "Send a signal to running containers"),
    "load": ("load", "Load images from an archive made by save"),
    "login": ("login", "Try an account at a registry and keep it; --list shows where you are logged in"),
    "logout": ("logout", "Forget the account at a registry"),
    "logs": ("logs", "Show what a container has written"),
    "pause": ("pause", "Freeze all processes of containers"),
    "port": ("port", "Show a container's published ports"),
    "push": ("push", "Send an image to its registry"),
    "rename": ("rename", "Give a container another name"),
    "restart": ("restart", "Stop containers and start them again"),
    "rm": ("rm", "Remove containers"),
    "rmi": ("rmi", "Remove images"),
    "save": ("save", "Write images to an archive that load takes"),
    "search": ("search", "Look for images in a registry's index"),
    "start": ("start", "Start stopped containers"),
    "stats": ("stats", "Show what running containers use"),
    "stop": ("stop", "Stop running containers"),
    "tag": ("tag", "Give an image a further name"),
    "top": ("top", "Show a container's processes"),
    "unpause": ("unpause", "Let the processes of paused containers go on"),
    "update": ("update", "Change the limits and the restart policy of containers"),
    "wait": ("wait", "Wait until containers stop and print their exit codes"),
    "builder cache": ("builder_cache", "Write the build cache to an archive, or take one in"),
    "builder du": ("builder_du", "Show what the build cache has"),
    "builder prune": ("builder_prune", "Remove what of the build cache nothing uses"),
    "container inspect": ("inspect", "Show everything about containers"),
    "container ls": ("ps", "List containers"),
    "container prune": ("prune", "Remove all stopped containers"),
    "image dockerfile": ("dockerfile", "Rebuild a Dockerfile from an image, and say what is guessed"),
    "image inspect": ("inspect", "Show everything about images"),
    "image ls": ("images", "List images"),
    "image prune": ("prune", "Remove images that nothing uses"),
    "image rm": ("rmi", "Remove images"),
    "image tags": ("tags", "List the tags that a repository has in its registry"),
    "manifest annotate": ("manifest_annotate", "Say which platform an entry of a manifest list is for"),
    "manifest create": ("manifest_create", "Make a manifest list of images in a registry, to push later"),
    "manifest inspect": ("manifest_inspect", "Show a manifest or manifest list, in a registry or made here"),
    "manifest push": ("manifest_push", "Push a manifest list"),
    "network connect": ("network_connect", "Give a container one more network"),
    "network create": ("network_create", "Make a network"),
    "network disconnect": ("network_disconnect", "Take a network away from a container"),
    "network inspect": ("network_inspect", "Show everything about networks"),
    "network ls": ("network_ls", "List networks"),
    "network prune": ("network_prune", "Remove all networks that no container uses"),
    "network rm": ("network_rm", "Remove networks"),
    "system df": ("system_df", "Show what images, containers, caches and logs take on the disk"),
    "system prune": ("system_prune", "Remove everything that nothing uses"),
    "manifest rm": ("manifest_rm", "Forget manifest lists that were made here"),
    "volume clone": ("volume_clone", "Make a volume with the files of another"),
    "volume cp": ("volume_cp", "Copy files between a volume and this machine"),
    "volume create": ("volume_create", "Make a volume"),
    "volume export": ("volume_export", "Write everything in a volume to an archive"),
    "volume from": ("volume_from", "Make a volume of a directory of a container"),
    "volume import": ("volume_import", "Unpack an archive into a volume"),
    "volume inspect": ("volume_inspect", "Show everything about volumes"),
    "volume ls": ("volume_ls", "List volumes"),
    "volume ls-files": ("volume_ls_files", "List the files in a volume"),
    "volume prune": ("prune", "Remove volumes that no container has"),
    "volume rm": ("volume_rm", "Remove volumes"),
    "volume snapshot": ("volume_snapshot", "Copy a volume as it is now, to go back to"),
}
"""Command path -> (module in `pier.cli.verbs`, one line for the list of commands)."""

_CONTAINER = (
    "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top unpause "
    "update "
    "wait"
).split()
_IMAGE = "build history import load pull push save tag".split()
VERBS.update({f"container {verb}": VERBS[verb] for verb in _CONTAINER})
VERBS.update({f"image {verb}": VERBS[verb] for verb in _IMAGE})
VERBS.update({f"system {verb}": VERBS[verb] for verb in ("events", "info")})

SYNONYMS = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}
"""Further names of a path; usage texts show the one on the right."""

SAME = (
    ("ps", "container ls", "container list", "container ps"),
    ("images", "image ls", "image list"),
    ("rmi", "image rm", "image remove"),
    ("rm", "container rm", "container remove"),
    ("network ls", "network list"),
    ("network rm", "network remove"),
    *((verb, f"container {verb}") for verb in _CONTAINER if verb != "rm"),
    *((verb, f"image {verb}") for verb in _IMAGE),
    ("events", "system events"),
    ("info", "system info"),
    ("volume ls", "volume list"),
    ("volume rm", "volume remove"),
)
"""Paths that are one command, for the "Aliases" of `--help`."""

GROUPS = {
    "builder": "Look after the build cache",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Make and look at manifest lists",
    "network": "Manage networks",
    "system": "Look at the daemon as a whole",
    "volume": "Manage volumes",
}

COMMON = ("run", "exec", "ps", "pull", "images", "version", "info")

ABSENT = frozenset(
    [
        *"buildx checkpoint compose config context node plugin secret".split(),
        *"service stack swarm trust".split(),
        *("system dial-stdio",),
    ]
)
"""Commands Docker has and Pier has not yet. Each leaves this set with the issue that brings it."""
