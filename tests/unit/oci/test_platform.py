"""Which image runs where."""

import pytest

from pier.oci.platform import InvalidPlatform, Platform, host_platform, rank, runnable_on


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("riscv64", "linux/riscv64"),
        ("i686", "linux/386"),
    ],
)
def test_parse(text: str, expected: str) -> None:
    assert str(Platform.parse(text)) == expected


def test_an_os_alone_is_completed_by_the_host() -> None:
    assert Platform.parse("linux") == host_platform()


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/amd64/v1/x", "linux/../x", "linux/am d"])
def test_refused(text: str) -> None:
    with pytest.raises(InvalidPlatform):
        Platform.parse(text)


def test_best_first() -> None:
    def names(text: str) -> list[str]:
        return [str(platform) for platform in runnable_on(Platform.parse(text))]

    assert names("linux/amd64") == ["linux/amd64", "linux/386"]
    assert names("linux/amd64/v3") == ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]
    assert names("linux/arm/v6") == ["linux/arm/v6", "linux/arm/v5"]
    assert names("linux/arm64")[:2] == ["linux/arm64", "linux/arm/v8"]
    assert names("linux/s390x") == ["linux/s390x"]


def test_rank() -> None:
    amd64 = Platform.parse("linux/amd64")
    assert rank(Platform(os="linux", architecture="amd64", variant="v1"), amd64) == 0
    assert rank(Platform(os="linux", architecture="386"), amd64) == 1
    assert rank(Platform(os="linux", architecture="amd64", variant="v2"), amd64) is None
    assert rank(Platform(os="unknown", architecture="unknown"), amd64) is None
    assert rank(Platform(), amd64) is None
