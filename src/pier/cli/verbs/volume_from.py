"""`pier volume from`: a new volume with what a container has in a directory, running or not (trap 28, wish 16)."""

from __future__ import annotations

from pier.cli.copying import GO_DIR, split_argument
from pier.cli.each import path
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Command
from pier.cli.out import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "CONTAINER:PATH VOLUME",
    arity=(2, 2),
    notes="Whether the files are in the container's own layer, in its image or in another volume.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    from pier.cli.verbs.cp import stat_of  # noqa: PLC0415 - it brings base64

    container, place = split_argument(args[0])
    name = args[1]
    if not container or not place:
        raise Failure(f"{args[0]}: say which container and which directory in it: CONTAINER:PATH")
    if _exists(cx, name):
        raise Failure(
            f"volume {name} exists already; files are added to one by `pier volume import` and `pier volume cp`"
        )
    found = cx.client.request("GET", path("containers", container, "archive"), query={"path": place.rstrip("/") + "/."})
    if not stat_of(found.headers)["mode"] & GO_DIR:
        raise Failure(f"{place} in container {container} is not a directory")
    client = cx.another_client()  # the other one is in the middle of its answer
    client.post("/volumes/create", {"Name": name})
    try:
        query = {"path": "/", "attributes": "true"}
        client.request("PUT", path("volumes", name, "archive"), query=query, stream=found.chunks()).read()
    except Failure:
        cx.another_client().delete(path("volumes", name))
        raise
    line(name)
    return 0


def _exists(cx: Context, name: str) -> bool:
    try:
        cx.client.get(path("volumes", name))
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True
