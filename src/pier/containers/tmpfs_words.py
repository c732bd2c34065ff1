"""The words of `--tmpfs PATH:words` and of a tmpfs in `--mount` (tmpfs(5)). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pier.errors import InvalidParameter


class InvalidTmpfs(InvalidParameter):
    """invalid tmpfs option "{option}\""""


FLAGS = {
    "exec": "noexec",
    "noexec": "exec",
    "suid": "nosuid",
    "nosuid": "suid",
    "dev": "nodev",
    "nodev": "dev",
    "ro": "rw",
    "rw": "ro",
    "sync": "async",
    "async": "sync",
    "dirsync": "",
    "remount": "",
    "mand": "nomand",
    "nomand": "mand",
    "atime": "noatime",
    "noatime": "atime",
    "diratime": "nodiratime",
    "nodiratime": "diratime",
    "bind": "",
    "rbind": "",
    "relatime": "norelatime",
    "norelatime": "relatime",
    "strictatime": "nostrictatime",
    "nostrictatime": "strictatime",
    "private": "",
    "rprivate": "",
    "shared": "",
    "rshared": "",
    "slave": "",
    "rslave": "",
    "unbindable": "",
    "runbindable": "",
}
"""Words that `--tmpfs` takes, with the word each of them takes the place of."""
VALUES = frozenset({"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol"})
REFUSED = frozenset({"remount", "bind", "rbind"})


def put_over(base: Sequence[str], text: str) -> list[str]:
    """`base` with the comma-separated words of `--tmpfs PATH:words` put over it. Raises InvalidTmpfs."""
    words = list(base)
    for word in filter(None, text.split(",")):
        key, equals, _ = word.partition("=")
        if equals:
            if key not in VALUES:
                raise InvalidTmpfs(option=word)
            words = [kept for kept in words if not kept.startswith(key + "=")]
        elif word not in FLAGS or word in REFUSED:
            raise InvalidTmpfs(option=word)
        opposite = FLAGS.get(word, "")
        words = [kept for kept in words if kept not in (opposite, word)] + [word]
    return words
