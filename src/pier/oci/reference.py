"""Image names: `[domain/]path[:tag][@digest]`, read and shown as Docker does.

The grammar is the one of the distribution project's reference package; a name without a domain belongs to Docker Hub
(`docker.io`), and a single component there to its `library/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from pier.errors import InvalidParameter
from pier.oci.digest import Digest, InvalidDigest

DEFAULT_DOMAIN: Final = "docker.io"
LEGACY_DEFAULT_DOMAIN: Final = "index.docker.io"
OFFICIAL_PREFIX: Final = "library/"
DEFAULT_TAG: Final = "latest"

MAX_PATH_LENGTH: Final = 255
MAX_REFERENCE_LENGTH: Final = 4096
"""Longer texts are refused before any pattern looks at them."""

_LABEL = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_IPV6 = r"\[[a-fA-F0-9:]+\]"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|{_IPV6})(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE: Final = re.compile(rf"({_DOMAIN})/({_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?")
_TAG_ALONE: Final = re.compile(_TAG)
_IDENTIFIER: Final = re.compile(r"[a-f0-9]{64}")


class InvalidReference(InvalidParameter):
    """invalid reference format"""


class UppercaseName(InvalidReference):
    """invalid reference format: repository name ({name}) must be lowercase"""


class EmptyName(InvalidReference):
    """repository name must have at least one component"""


class NameTooLong(InvalidReference):
    """repository name must not be more than 255 characters"""


class NameIsIdentifier(InvalidReference):
    """invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"""


class InvalidReferenceDigest(InvalidReference):
    """invalid reference format: {reason}"""


class InvalidTag(InvalidParameter):
    """invalid tag format"""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A normalised image name; made by `Reference.parse`."""

    domain: str
    """Host of the registry with its port, e.g. `docker.io`, `localhost:5000`."""
    path: str
    """The repository on it, e.g. `library/busybox`."""
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: str | None = DEFAULT_TAG) -> Self:
        """Read what a user wrote; `default_tag` is put where neither tag nor digest was given.

        >>> Reference.parse("busybox")
        Reference(domain='docker.io', path='library/busybox', tag='latest', digest=None)

        Raises InvalidReference or one of its subclasses, worded as Docker words them.
        """
        if len(text) > MAX_REFERENCE_LENGTH:
            raise InvalidReference
        if _IDENTIFIER.fullmatch(text):
            raise NameIsIdentifier(name=text)
        domain, remainder = split_domain(text)
        if not remainder:
            raise EmptyName if not text else InvalidReference
        name = remainder.partition("@")[0].partition(":")[0]
        if name.lower() != name:
            raise UppercaseName(name=name)
        match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
        if match is None:
            raise InvalidReference
        path, tag, digest = match.group(2), match.group(3), match.group(4)
        if len(path) > MAX_PATH_LENGTH:
            raise NameTooLong
        if tag is None and digest is None:
            tag = default_tag
        return cls(domain, path, tag, _parse_digest(digest) if digest else None)

    @property
    def name(self) -> str:
        """`docker.io/library/busybox`"""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The shortest text that parses to the same name: `busybox`, `user/app`, `localhost:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        # `library/user/app` and `a.b/app` stay whole: shortened they would name something else.
        shorter = (self.path.removeprefix(OFFICIAL_PREFIX), self.path)
        return next((text for text in shorter if split_domain(text) == (self.domain, self.path)), self.name)

    @property
    def familiar(self) -> str:
        """The familiar name with tag and digest, as Docker prints it: `busybox:latest`."""
        return self.familiar_name + self.suffix

    @property
    def suffix(self) -> str:
        """`:tag`, `@digest`, both in that order, or nothing."""
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return tag + digest

    @property
    def identifier(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_tag(self, tag: str) -> Self:
        """The same name under another tag, without a digest."""
        return replace(self, tag=check_tag(tag), digest=None)

    def with_digest(self, digest: Digest) -> Self:
        """The same name pinned to content, without a tag."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        return self.name + self.suffix


def split_domain(text: str) -> tuple[str, str]:
    """Separate registry and remainder and fill in Docker Hub's defaults; nothing is validated here.

    The first component is a registry when it has a dot, a colon or an upper-case letter, or is `localhost`.
    """
    first, slash, rest = text.partition("/")
    if not slash or not (any(c in ".:" for c in first) or first == "localhost" or first.lower() != first):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == LEGACY_DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and remainder and "/" not in remainder:
        remainder = OFFICIAL_PREFIX + remainder
    return domain, remainder


def check_tag(tag: str) -> str:
    """Return `tag`, or raise InvalidTag."""
    if not _TAG_ALONE.fullmatch(tag):
        raise InvalidTag
    return tag


def _parse_digest(text: str) -> Digest:
    try:
        return Digest(text)
    except InvalidDigest as error:
        raise InvalidReferenceDigest(reason=error.fields["reason"]) from None
