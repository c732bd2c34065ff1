"""COPY and ADD: one file operation each (Dockerfile reference, "COPY", "ADD")."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import msgspec

from pier.builder import graph
from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile import lint
from pier.builder.dockerfile.git_reference import BadGitReference, GitReference, parse_git_reference
from pier.builder.dockerfile.ownership import has_names, owner_of, parse_mode
from pier.builder.dockerfile.state import StageState
from pier.builder.graph import EMPTY, File, FileAction, MakeFile, Merge, Note, Output, ProgressGroup, Source, Vertex
from pier.builder.patterns import PatternMatcher
from pier.oci.digest import Digest, InvalidDigest

_WILDCARD: Final = re.compile(r"\\.|([*?\[])", re.DOTALL)
_URL: Final = ("http://", "https://")
USUAL_FOLDERS: Final = frozenset(
    "/bin /etc /home /lib /media /mnt /opt /root /run /sbin /srv /tmp /usr /usr/bin /usr/include /usr/lib /usr/local "
    "/usr/local/bin /usr/local/etc /usr/local/lib /usr/local/sbin /usr/local/share /usr/sbin /usr/share /usr/src /var "
    "/var/cache /var/lib /var/log /var/run /var/spool /var/tmp".split()
)
"""What an image has as folders (Filesystem Hierarchy Standard)."""


def transfer(state: StageState, instruction: i.Copy | i.Add, source: Output | None, *, from_context: bool) -> None:
    """Add the files to the stage. `source`: where COPY takes them from, None being an empty tree.

    Raises DockerfileError.
    """
    _Transfer(state, instruction, source, from_context).run()


class _Transfer:
    def __init__(
        self, state: StageState, instruction: i.Copy | i.Add, source: Output | None, from_context: bool
    ) -> None:
        self._state = state
        self._it = instruction
        self._source = source
        self._from_context = from_context
        self._dest = state.absolute(instruction.dest)
        self._copies: list[tuple[Output | None, graph.Copy]] = []
        try:
            self._mode, self._mode_str = parse_mode(instruction.chmod)
        except ValueError as fault:
            raise state.fail(str(fault), instruction) from None

    def run(self) -> None:
        state, it = self._state, self._it
        if isinstance(it, i.Add):
            self._check_checksum(it)
        refuse_lost_files(state, it, self._dest)
        shown = state.shown(it.code, state.env, state.shared.lexer)
        name = state.step_name(shown)
        for path in it.sources:
            self._one(path, name)
        for heredoc in it.contents:
            self._inline(heredoc.name, heredoc.text)
        self._add(name, shown)
        self._remember()
        if self._dest.endswith("/") or len(self._copies) > 1:
            state.known_folders.add(self._dest.rstrip("/") or "/")

    # --- sources

    def _one(self, path: str, name: str) -> None:
        git = self._git(path)
        if git is not None:
            self._from_git(git, name)
        elif path.startswith(_URL):
            self._from_web(path, name)
        else:
            self._from_tree(path)

    def _git(self, path: str) -> GitReference | None:
        try:
            return parse_git_reference(path)
        except BadGitReference as error:
            raise self._state.fail(error.message, self._it) from None

    def _from_git(self, git: GitReference, name: str) -> None:
        it, state = self._it, self._state
        if not isinstance(it, i.Add):
            raise state.fail("source can't be a git ref for COPY", it)
        if it.keep_git_dir is not None and git.keep_git_dir is not None and it.keep_git_dir != git.keep_git_dir:
            raise state.fail("inconsistent keep-git-dir configuration", it)
        if it.checksum and git.checksum and it.checksum != git.checksum:
            raise state.fail(f'checksum mismatch "{it.checksum}" != "{git.checksum}"', it)
        keep = git.keep_git_dir if git.keep_git_dir is not None else bool(it.keep_git_dir)
        source = git.source(keep_git_dir=keep, checksum=git.checksum or it.checksum)
        self._copy(self._vertex(source, name), graph.Copy("/", self._dest, create_dest_path=True))

    def _from_web(self, url: str, name: str) -> None:
        it = self._it
        if not isinstance(it, i.Add):
            raise self._state.fail("source can't be a URL for COPY", it)
        file = posixpath.basename(posixpath.normpath(urlsplit(url).path or "/"))
        file = file if file not in ("", ".", "/") else "__unnamed__"
        attrs = {"http.filename": file}
        if it.checksum:
            attrs["http.checksum"] = it.checksum
        copy = graph.Copy(f"/{file}", self._dest, create_dest_path=True, attempt_unpack=bool(it.unpack))
        self._copy(self._vertex(Source(url, attrs), name), copy)

    def _from_tree(self, path: str) -> None:
        it = self._it
        patterns: tuple[str, ...] = ()
        required: tuple[str, ...] = ()
        self._warn_if_ignored(path)
        if isinstance(it, i.Copy) and it.parents:
            pivot, found, pattern = path.partition("/./")
            path, pattern = (pivot or "/", pattern) if found else ("/", path)
            pattern = _from_root(pattern)
            patterns = (pattern.removeprefix("/"),)
            if not has_wildcards(path) and not has_wildcards(pattern):
                required = (_from_root(posixpath.join(path, pattern.removeprefix("/"))),)
        unpack = isinstance(it, i.Add) and it.unpack is not False
        copy = graph.Copy(
            _from_root(path),
            self._dest,
            follow_symlink=True,
            dir_copy_contents=True,
            attempt_unpack=unpack,
            create_dest_path=True,
            allow_wildcard=True,
            allow_empty_wildcard=True,
            include_patterns=patterns,
            required_paths=required,
        )
        self._copy(self._source, copy)
        if self._from_context:
            self._state.context_paths |= set(required) or {_from_root(path)}

    def _inline(self, name: str, content: str) -> None:
        deed = MakeFile(f"/{name}", content.encode("utf-8", "surrogateescape"), timestamp_ns=self._state.timestamp_ns)
        vertex = inline_document(deed, self._state)
        self._copy(vertex.output(), graph.Copy(f"/{name}", self._dest, create_dest_path=True))

    def _vertex(self, source: Source, name: str) -> Output:
        return Vertex(source, platform=self._state.platform, note=Note(name=name)).output()

    def _copy(self, source: Output | None, copy: graph.Copy) -> None:
        exclude = self._it.exclude
        full = msgspec.structs.replace(
            copy,
            mode=self._mode,
            mode_str=self._mode_str,
            timestamp_ns=self._state.timestamp_ns,
            exclude_patterns=exclude,
        )
        self._copies.append((source, full))

    # --- the step

    def _add(self, name: str, shown: str) -> None:
        state, it = self._state, self._it
        state.steps_done -= 1  # the note counts it
        note = state.note(it, shown)
        linked = it.link and not it.chmod and not has_names(it.chown) and state.output is not None
        if linked:
            group = ProgressGroup(
                f"{it.source} {state.node.label} {state.platform} {state.steps_done}", note.name, weak=True
            )
            note = replace(note, group=group)
        inputs, actions = _actions(None if linked else state.output, self._copies, it.chown)
        vertex = Vertex(File(actions), inputs, platform=state.platform, note=note)
        if state.output is None or note.group is None:
            state.output = vertex.output()
            return
        merge_note = replace(note, name=name.replace(shown, f"LINK {shown}"), group=replace(note.group, weak=False))
        merge = Vertex(Merge((0, 1)), (state.output, vertex.output()), platform=state.platform, note=merge_note)
        state.output = merge.output()

    def _remember(self) -> None:
        it = self._it
        words = [it.name]
        if isinstance(it, i.Copy) and it.parents:
            words.append("--parents")
        if it.chown:
            words.append(f"--chown={it.chown}")
        if it.chmod:
            words.append(f"--chmod={it.chmod}")
        words += [*it.sources, *(f"<<{heredoc.name}" for heredoc in it.contents), it.dest]
        self._state.remember(" ".join(words), layer=True, step=True)

    # --- checks

    def _check_checksum(self, it: i.Add) -> None:
        if not it.checksum:
            return
        if len(it.sources) != 1:
            raise self._state.fail("checksum can't be specified for multiple sources", it)
        if self._git(it.sources[0]) is not None:
            return
        if not it.sources[0].startswith(_URL):
            raise self._state.fail("checksum requires HTTP(S) or Git sources", it)
        try:
            Digest.parse(it.checksum)
        except InvalidDigest as error:
            raise self._state.fail(error.message, it) from None

    def _warn_if_ignored(self, path: str) -> None:
        patterns = self._state.shared.options.ignore_patterns
        if not patterns or not self._from_context:
            return
        matcher = PatternMatcher(patterns)
        cleaned = posixpath.normpath(path).lstrip("/") or "."
        if matcher.takes_back:
            return
        if cleaned == "." and not any(pattern.text in ("*", "**", "**/*") for pattern in matcher.patterns):
            return
        if matcher.matches(cleaned):
            verb = "Add" if isinstance(self._it, i.Add) else "Copy"
            detail = f'Attempting to {verb} file "{cleaned}" that is excluded by .dockerignore'
            self._state.shared.linter.report(lint.COPY_IGNORED_FILE, detail, self._it.source)


def refuse_lost_files(state: StageState, it: i.Transfer, dest: str) -> None:
    """Trap 5: of several sources for a destination that is not written as a folder all but the last would be lost.

    Raises DockerfileError with the corrected line, unless something speaks for a folder: an instruction before that has
    made or named it, the base image's configuration, or that every image has it.
    """
    if len(it.sources) + len(it.contents) < 2 or _is_folder(state, it.dest, dest):
        return
    line = it.code
    corrected = re.sub(r'"\s*\]$', '/"]', line) if line.endswith("]") else f"{line}/"
    message = (
        f"When using {it.name} with more than one source file, the destination must be a directory and end with a /: "
        f"line {it.source.first_line} should read: {corrected}"
    )
    raise state.fail(message, it)


def _is_folder(state: StageState, written: str, dest: str) -> bool:
    """Whether a destination is written as a folder, or something speaks for its being one."""
    if dest.endswith(("/", "/.")) or written.endswith(".."):
        return True
    if any(folder == dest or folder.startswith(dest + "/") for folder in state.known_folders):
        return True
    named = re.compile("|".join(rf"(?<![\w./-]){re.escape(name)}(?![\w.-])" for name in {written, dest}))
    return any(named.search(command) for command in state.commands)


def inline_document(deed: MakeFile, state: StageState) -> Vertex:
    """A file that is written down in the Dockerfile."""
    note = Note(name="[internal] preparing inline document")
    return Vertex(File((FileAction(deed, output=0),)), platform=state.platform, note=note)


def has_wildcards(path: str) -> bool:
    return any(match[1] for match in _WILDCARD.finditer(path))


def _from_root(path: str) -> str:
    made = posixpath.normpath(posixpath.join("/", path))
    return "/" + made.lstrip("/")


def _actions(
    base: Output | None, copies: Sequence[tuple[Output | None, graph.Copy]], chown: str
) -> tuple[tuple[Output, ...], tuple[FileAction, ...]]:
    """(inputs, actions): each copy goes on with what the one before has made."""
    inputs: list[Output] = [] if base is None else [base]
    places = {each.key: number for number, each in enumerate(inputs)}
    for source, _ in copies:
        if source is not None and source.key not in places:
            places[source.key] = len(inputs)
            inputs.append(source)
    actions = []
    for number, (source, copy) in enumerate(copies):
        before = (EMPTY if base is None else 0) if number == 0 else len(inputs) + number - 1
        owner = owner_of(chown, before) if chown else None
        actions.append(
            FileAction(
                msgspec.structs.replace(copy, owner=owner),
                input=before,
                secondary_input=EMPTY if source is None else places[source.key],
                output=0 if number == len(copies) - 1 else EMPTY,
            )
        )
    return tuple(inputs), tuple(actions)
