"""POST /images/create?fromImage=…, with its progress on a descriptor: for `pull`, and for `run` of a missing image."""

from __future__ import annotations

from pier.cli.auth import registry_auth_header
from pier.cli.errors import Failure
from pier.cli.jsontext import loads
from pier.cli.out import write
from pier.cli.progress import show
from pier.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.main import Context


def pull(cx: Context, image: str, *, platform: str, fd: int | None, all_tags: bool = False) -> None:
    """Pull one image (or all tags of a repository). Progress goes to `fd`, nowhere when None."""
    name, tag, digest = split(image)
    wanted = digest or tag or ("" if all_tags else "latest")
    response = cx.client.request(
        "POST",
        "/images/create",
        query={"fromImage": name, "tag": wanted, "platform": platform},
        headers=registry_auth_header(cx.options, name),
    )
    if fd is not None:
        show(response.lines(), fd, lambda aux: _tell(fd, aux))
        return
    for line in response.lines():
        message = loads(line)
        if error := message.get("error"):
            raise Failure(str(error))


def _tell(fd: int, aux: dict[str, str]) -> None:
    """That nothing has changed (wish 7); what has, the daemon says in a line of its own."""
    if aux.get("Previous") and aux["Previous"] == aux.get("Digest"):
        write(fd, b"up to date\n")
