"""FileOp: changes of trees without a process. A result that only the next action uses is changed further in place."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pier.builder import layers, wildcard
from pier.builder.choosing import chooser
from pier.builder.graph import (
    EMPTY,
    Copy,
    Deed,
    File,
    FileAction,
    MakeDir,
    MakeFile,
    Remove,
    Symlink,
    deed_words,
    owner_inputs,
)
from pier.builder.ground import Ground
from pier.builder.keys import Selection, selection_of
from pier.builder.progress import Warned
from pier.builder.solver import Work
from pier.builder.steps import owners, unpacking
from pier.builder.steps.copying import DIRECTORY, NEW, Attributes, Copier, make_dirs
from pier.builder.tree import SCRATCH, Result, Tree
from pier.errors import NotFound, PierError
from pier.kernel.paths import closing, open_in_root
from pier.runtime.request import OverlayRoot
from pier.storage.snapshots import Root
from pier.storage.trees import remove_tree


class NothingThere(NotFound):
    """failed to compute cache key: "{path}": not found"""

    remedy = "the path counts from the context's root; .dockerignore may leave it out"


class FileFailed(PierError):
    """failed to {deed}: {reason}"""


@dataclass(slots=True)
class _Draft:
    """A tree that is being changed."""

    name: str
    root: Root
    base: Tree


class FileSteps:
    """The executor of File operations."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def __call__(self, work: Work) -> Sequence[Tree]:
        run = _Run(self._ground, work)
        try:
            return await self._ground.in_thread(run.run)
        finally:
            for text in run.warnings:
                work.broadcast.say(Warned(work.vertex.digest, text, location=work.vertex.note.location))


class _Run:
    def __init__(self, ground: Ground, work: Work) -> None:
        assert isinstance(work.vertex.op, File)
        self._ground = ground
        self._inputs = list(work.inputs)
        self._actions = work.vertex.op.actions
        self._results: list[_Draft | Tree] = []
        self.warnings: list[str] = []
        self._outputs: dict[int, int] = {}
        """Output -> number of the result."""

    def run(self) -> list[Tree]:
        """Do the actions in order; one tree for each output. Raises PierError, OSError."""
        try:
            for number, action in enumerate(self._actions):
                draft = self._draft(action.input, number)
                self._results.append(draft)
                try:
                    self._act(draft, action)
                except OSError as error:
                    raise _told(action.deed, error) from error
                if action.output != EMPTY:
                    self._outputs[action.output] = number
            count = len(self._inputs)
            return [self._sealed(count + self._outputs[output]) for output in range(len(self._outputs))]
        finally:
            for result in self._results:
                if isinstance(result, _Draft):
                    layers.drop(self._ground, result.name)

    def _draft(self, number: int, user: int) -> _Draft:
        """A writable tree of an input or result; the result itself where nothing else needs it as it is."""
        first = len(self._inputs)
        if number >= first:
            result = self._results[number - first]
            if isinstance(result, _Draft) and self._is_last_use(number, user):
                self._results[number - first] = SCRATCH
                return result
        base = SCRATCH if number == EMPTY else self._tree(number)
        name, root = layers.begin(self._ground, base)
        return _Draft(name, root, base)

    def _is_last_use(self, number: int, user: int) -> bool:
        made = self._actions[number - len(self._inputs)]
        others = [action for index, action in enumerate(self._actions) if index != user]
        return made.output == EMPTY and not any(number in _needs(action) for action in others)

    def _tree(self, number: int) -> Tree:
        if number < len(self._inputs):
            tree = layers.as_tree(self._ground, self._inputs[number])
            self._inputs[number] = tree
            return tree
        return self._sealed(number)

    def _sealed(self, number: int) -> Tree:
        index = number - len(self._inputs)
        result = self._results[index]
        if isinstance(result, _Draft):
            self._results[index] = result = layers.seal(self._ground, result.name, result.base)
        return result

    def _result(self, number: int) -> Result:
        if number == EMPTY:
            return SCRATCH
        return self._inputs[number] if number < len(self._inputs) else self._sealed(number)

    # --- deeds

    def _act(self, draft: _Draft, action: FileAction) -> None:
        deed = action.deed
        if isinstance(deed, Remove):
            with layers.opened(draft.root) as root:
                remove(root, deed)
            return
        owner = self._owner(draft, action)
        if isinstance(deed, Copy):
            with layers.shown(self._ground, self._result(action.secondary_input)) as source:
                copy_onto(draft.root, source, deed, owner)
            return
        with layers.opened(draft.root) as root:
            match deed:
                case MakeFile():
                    make_file(root, deed, owner)
                case MakeDir():
                    make_dir(root, deed, owner)
                case Symlink():
                    make_link(root, deed, owner)

    def _owner(self, draft: _Draft, action: FileAction) -> tuple[int, int] | None:
        """Names are looked up in inputs; what the action works on is there as its draft by now."""
        assert not isinstance(action.deed, Remove)
        with contextlib.ExitStack() as stack:
            trees: dict[int, int] = {}
            for index in {*owner_inputs(action.deed)} - {EMPTY}:
                is_own = index == action.input
                tree = layers.opened(draft.root) if is_own else layers.shown(self._ground, self._result(index))
                trees[index] = stack.enter_context(tree)
            return owners.resolve(action.deed.owner, trees, self.warnings.append)


def _needs(action: FileAction) -> set[int]:
    return {action.input, action.secondary_input} | set(owner_inputs(action.deed))


def copy_onto(root: Root, source: int, deed: Copy, owner: tuple[int, int] | None) -> None:
    """Copy from one tree into a writable one: whole new directories of an overlay's straight into its upper directory.

    Raises what `copy` raises.
    """
    is_overlay = isinstance(root, OverlayRoot)
    with contextlib.ExitStack() as stack:
        with layers.opened(root) as root_fd:
            copier = copy(root_fd, source, deed, owner, leaves=is_overlay)
            stack.callback(copier.close)
        if copier.left:
            assert isinstance(root, OverlayRoot)
            copier.fill(stack.enter_context(closing(os.open(root.upper, DIRECTORY))))


def copy(root: int, source: int, deed: Copy, owner: tuple[int, int] | None, *, leaves: bool = False) -> Copier:
    """Copy from one tree into another; `leaves`: see `Copier`. Raises NothingThere, what `Copier.copy` and unpacking
    raise."""
    attributes = Attributes(owner, deed.mode, deed.mode_str, deed.timestamp_ns)
    dest = wildcard.clean(deed.dest)
    if not deed.create_dest_path:
        os.close(open_in_root(root, dest.rstrip("/").rpartition("/")[0] or "/", DIRECTORY))
    found = wildcard.matches(source, selection_of(deed))
    if not found and not deed.allow_empty_wildcard:
        raise NothingThere(path=deed.src)
    wanted = chooser(deed.include_patterns, deed.exclude_patterns)
    leaves = leaves and len(found) == 1  # what comes next may have to go where it was left
    replace, parts = deed.always_replace_existing_dest_paths, bool(deed.include_patterns)
    copier = Copier(root, attributes, replace, wanted, leaves=leaves, parts=parts)
    try:
        for path in found:
            if deed.attempt_unpack and unpacking.unpack_into(source, path, root, dest, attributes):
                continue
            try:
                copier.copy(source, path, dest, contents=deed.dir_copy_contents, follow=deed.follow_symlink)
            except FileNotFoundError as error:
                if _is_there(source, path):
                    raise
                raise NothingThere(path=path) from error
        for path in deed.required_paths:
            if not wildcard.matches(source, Selection(path, wildcards=deed.allow_wildcard)):
                raise NothingThere(path=path)
    except BaseException:
        copier.close()
        raise
    return copier


def _is_there(root: int, path: str) -> bool:
    try:
        os.close(open_in_root(root, path, os.O_PATH))
    except OSError:
        return False
    return True


def make_file(root: int, deed: MakeFile, owner: tuple[int, int] | None) -> None:
    """A file in a directory that is there; one that stands at the name is written anew, a link is not followed."""
    parent, _, name = wildcard.clean(deed.path).rstrip("/").rpartition("/")
    with closing(open_in_root(root, parent or "/", DIRECTORY)) as above:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above)
        with closing(os.open(name, NEW, 0o600, dir_fd=above)) as fd:
            view = memoryview(deed.data)
            while view:
                view = view[os.write(fd, view) :]
            _finish(fd, deed.mode, owner, deed.timestamp_ns)


def make_dir(root: int, deed: MakeDir, owner: tuple[int, int] | None) -> None:
    """A directory; one that is there stays as it is. Parents that are made have its mode and owner."""
    path = wildcard.clean(deed.path).rstrip("/")
    attributes = Attributes(owner, mtime_ns=deed.timestamp_ns)
    if not deed.make_parents:
        os.close(open_in_root(root, path.rpartition("/")[0] or "/", DIRECTORY))
    os.close(make_dirs(root, path or "/", attributes, deed.mode))


def make_link(root: int, deed: Symlink, owner: tuple[int, int] | None) -> None:
    parent, _, name = wildcard.clean(deed.newpath).rstrip("/").rpartition("/")
    with closing(open_in_root(root, parent or "/", DIRECTORY)) as above:
        os.symlink(deed.oldpath, name, dir_fd=above)
        os.chown(name, *(owner or (0, 0)), dir_fd=above, follow_symlinks=False)
        if deed.timestamp_ns >= 0:
            os.utime(name, ns=(deed.timestamp_ns,) * 2, dir_fd=above, follow_symlinks=False)


def remove(root: int, deed: Remove) -> None:
    """Remove a file or tree; links on the way are followed below the root, the last is removed (attack 19).

    Raises NothingThere.
    """
    found = wildcard.matches(root, Selection(deed.path, wildcards=deed.allow_wildcard))
    for path in found:
        parent, _, name = path.rstrip("/").rpartition("/")
        if not name:
            raise FileFailed(deed=deed_words(deed), reason="that is the root")
        try:
            with closing(open_in_root(root, parent or "/", DIRECTORY)) as above:
                os.stat(name, dir_fd=above, follow_symlinks=False)
                remove_tree(above, os.fsencode(name))
        except (FileNotFoundError, NotADirectoryError):
            if not deed.allow_not_found:
                raise NothingThere(path=deed.path) from None


def _finish(fd: int, mode: int, owner: tuple[int, int] | None, mtime_ns: int) -> None:
    if owner is not None:
        os.fchown(fd, *owner)
    os.fchmod(fd, mode & 0o7777)
    stamp = mtime_ns if mtime_ns >= 0 else time.time_ns()
    os.utime(fd, ns=(stamp, stamp))


def _told(deed: Deed, error: OSError) -> PierError:
    """A failure of the file system's in words."""
    reason = "too many links" if error.errno == errno.ELOOP else (error.strerror or str(error)).lower()
    return FileFailed(deed=deed_words(deed), reason=reason)
