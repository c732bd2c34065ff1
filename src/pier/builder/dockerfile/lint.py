"""Build checks: BuildKit's rules by name, and what they have found (`docker build --check`).

Names, descriptions and addresses are BuildKit's, so that reports compare and `# check=skip=…` lines go on working.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pier.builder.dockerfile.source import DockerfileError, SourceRange, meant

_URL: Final = "https://docs.docker.com/go/dockerfile/rule/"


class Rule(msgspec.Struct, frozen=True):
    name: str
    description: str
    url: str = ""
    experimental: bool = False
    """Only where `# check=experimental=…` asks for it."""


def _rule(name: str, path: str, description: str, *, experimental: bool = False) -> Rule:
    return Rule(name, description, f"{_URL}{path}/" if path else "", experimental)


STAGE_NAME_CASING: Final = _rule("StageNameCasing", "stage-name-casing", "Stage names should be lowercase")
FROM_AS_CASING: Final = _rule(
    "FromAsCasing", "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword"
)
NO_EMPTY_CONTINUATION: Final = _rule(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
)
CONSISTENT_INSTRUCTION_CASING: Final = _rule(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
)
DUPLICATE_STAGE_NAME: Final = _rule("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique")
RESERVED_STAGE_NAME: Final = _rule(
    "ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names"
)
JSON_ARGS_RECOMMENDED: Final = _rule(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
)
MAINTAINER_DEPRECATED: Final = _rule(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
)
UNDEFINED_ARG_IN_FROM: Final = _rule(
    "UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs"
)
WORKDIR_RELATIVE_PATH: Final = _rule(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
    "image changes",
)
UNDEFINED_VAR: Final = _rule("UndefinedVar", "undefined-var", "Variables should be defined before their use")
MULTIPLE_INSTRUCTIONS_DISALLOWED: Final = _rule(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
)
LEGACY_KEY_VALUE_FORMAT: Final = _rule(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
)
INVALID_BASE_IMAGE_PLATFORM: Final = _rule(
    "InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform"
)
REDUNDANT_TARGET_PLATFORM: Final = _rule(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
)
SECRETS_USED_IN_ARG_OR_ENV: Final = _rule(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
)
INVALID_DEFAULT_ARG_IN_FROM: Final = _rule(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED: Final = _rule(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
)
COPY_IGNORED_FILE: Final = _rule(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
    experimental=True,
)
INVALID_DEFINITION_DESCRIPTION: Final = _rule(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not "
    "intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    experimental=True,
)
EXPOSE_PROTO_CASING: Final = _rule(
    "ExposeProtoCasing", "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase"
)
EXPOSE_INVALID_FORMAT: Final = _rule(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future "
    "release",
)


class Warning(msgspec.Struct, frozen=True):
    """One finding."""

    rule: Rule
    detail: str
    at: SourceRange


class CheckOptions(msgspec.Struct, frozen=True):
    """`# check=skip=A,B;error=true;experimental=C`."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    error: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False

    @classmethod
    def parse(cls, text: str) -> CheckOptions:
        """Raises DockerfileError."""
        found = cls()
        for part in text.split(";") if text.strip() else ():
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise DockerfileError(f'failed to parse check options: invalid check option "{part}"')
            names = frozenset(name.strip() for name in value.split(","))
            match key:
                case "skip":
                    found = msgspec.structs.replace(found, skip=names, skip_all=value == "all")
                case "experimental":
                    found = msgspec.structs.replace(found, experimental=names, experimental_all=value == "all")
                case "error" if value.lower() in ("1", "t", "true", "0", "f", "false"):
                    found = msgspec.structs.replace(found, error=value.lower() in ("1", "t", "true"))
                case "error":
                    reason = f'failed to parse check option "{part}": invalid boolean value "{value}"'
                    raise DockerfileError(f"failed to parse check options: {reason}")
                case _:
                    reason = meant(f'invalid check option "{key}"', key, ("skip", "error", "experimental"))
                    raise DockerfileError(f"failed to parse check options: {reason}")
        return found


class Linter:
    """Gathers findings in the order in which they are made."""

    def __init__(self, options: CheckOptions) -> None:
        self.options = options
        self.warnings: list[Warning] = []

    def report(self, rule: Rule, detail: str, at: SourceRange) -> None:
        options = self.options
        if options.skip_all or rule.name in options.skip:
            return
        if rule.experimental and not (options.experimental_all or rule.name in options.experimental):
            return
        self.warnings.append(Warning(rule, detail, at))

    def verdict(self) -> None:
        """Raises DockerfileError where the file wants findings to be errors and there are some."""
        if self.options.error and self.warnings:
            names = dict.fromkeys(warning.rule.name for warning in self.warnings)
            raise DockerfileError(f"lint violation found for rules: {', '.join(names)}")
