"""Names of containers: made up, checked, and found again by name, id or the beginning of an id."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Mapping

from pier.errors import Conflict, InvalidParameter, NotFound

NAME_CHARACTERS = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(rf"/?{NAME_CHARACTERS}+")
MAX_NAME = 255

MOODS = (
    "able agile amber apt avid bold brave breezy bright brisk calm candid careful cheery civil clear clever cosy crisp "
    "curious deft direct eager early easy fair famous fine firm fleet fluent fond frank free fresh gentle glad golden "
    "good grand green handy happy hardy honest humble jolly just keen kind lasting light lively lucid lucky mellow "
    "mild modest neat nimble noble open patient placid plain polite prompt proud quick quiet ready robust rosy round "
    "safe serene sharp silent simple sleek smart smooth snug sober solid spry square steady still strong sunny sure "
    "swift tidy trim true trusty upbeat vivid warm wise witty"
).split()
HARBOUR = (
    "anchor anemone avocet bay beacon bittern bosun bowline breaker brig buoy canoe capstan clam clipper cod compass "
    "coral cormorant cove crab current curlew cutter dinghy dock dolphin dory dune eider estuary ferry fjord galley "
    "gannet grebe gull haddock halyard harbour hawser heron herring inlet island jetty kayak keel kelp ketch "
    "lagoon lantern lighthouse limpet lobster lugger mackerel marlin mast mooring mussel narwhal oar osprey oyster "
    "paddle pebble pelican pennant petrel pier pilot plover porpoise puffin quay raft ray reef rigging rudder sail "
    "salmon sandbar schooner seal sextant shoal skiff skipper sloop sounder spray squid starling sturgeon tern tide "
    "tiller trawler tugboat turbot urchin wake walrus wharf whelk winch yawl"
).split()


class InvalidName(InvalidParameter):
    """Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"""


class NameInUse(Conflict):
    """Conflict. The container name "/{name}" is already in use by container "{holder}". \
You have to remove (or rename) that container to be able to reuse that name."""


class NoSuchContainer(NotFound):
    """No such container: {ref}"""


class AmbiguousPrefix(InvalidParameter):
    """multiple IDs found with provided prefix: {ref}"""


def make_id() -> str:
    """64 random hexadecimal digits, never twelve decimal ones in front: that would be a valid number as host name."""
    while True:
        new = secrets.token_hex(32)
        if not new[:12].isdigit():
            return new


def random_name(taken: Collection[str], choose: Callable[[list[str]], str] = secrets.choice) -> str:
    """A name such as `brisk_heron` that is not taken; after some tries with a digit behind it."""
    name = ""
    for _ in range(6):
        name = f"{choose(MOODS)}_{choose(HARBOUR)}"
        if name not in taken:
            return name
    number = 0
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"


def check_name(name: str) -> str:
    """The name without a leading slash. Raises InvalidName."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidName(name=name[:MAX_NAME])
    return name.removeprefix("/")


def find(ref: str, ids: Collection[str], by_name: Mapping[str, str]) -> str:
    """The id that `ref` means: a whole id first, then a name, then the beginning of one id, as Docker decides.

    Raises NoSuchContainer, AmbiguousPrefix.
    """
    if ref in ids:
        return ref
    named = by_name.get(ref.removeprefix("/"))
    if named is not None and named in ids:  # else it is only reserved, for a container in the making
        return named
    matches = [id for id in ids if id.startswith(ref)] if ref else []
    if len(matches) > 1:
        raise AmbiguousPrefix(ref=ref)
    if not matches:
        raise NoSuchContainer(ref=ref)
    return matches[0]
