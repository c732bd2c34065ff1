"""Image configurations, however they were written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.oci.digest import Digest
from pier.oci.document import MalformedDocument, encode
from pier.oci.image_config import HealthConfig, ImageConfig, RootFS, RunConfig, chain_ids, decode_image_config

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
FULL: dict[str, Any] = {
    "created": "2024-05-01T10:00:00.123456789Z",
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "os.version": "1.2",
    "config": {
        "Hostname": "left out",
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin"],
        "Entrypoint": ["/entry"],
        "Cmd": ["-v"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000, "Retries": 3},
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "OnBuild": ["RUN true"],
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "Shell": ["/bin/bash", "-c"],
    },
    "rootfs": {"type": "layers", "diff_ids": [A, B]},
    "history": [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "RUN"}],
}
LEAST = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def read(document: object) -> ImageConfig:
    return decode_image_config(json.dumps(document).encode(), what="config of app:1")


def test_docker_extensions_are_kept() -> None:
    config = read(FULL)
    assert config.config.healthcheck == HealthConfig(["CMD-SHELL", "true"], interval=30_000_000_000, retries=3)
    assert config.config.shell == ["/bin/bash", "-c"]
    assert config.config.on_build == ["RUN true"]
    assert config.config.stop_signal == "SIGINT"
    assert config.config.exposed_ports == {"80/tcp": {}}
    assert str(config.platform.normalised()) == "linux/arm64"
    assert [step.empty_layer for step in config.history] == [False, True, False]
    assert decode_image_config(encode(config), what="again") == config


@pytest.mark.parametrize(
    "document",
    [
        LEAST,
        {**LEAST, "config": None, "history": None},
        {**LEAST, "config": {}},
        {**LEAST, "config": dict.fromkeys(FULL["config"])},
        {**LEAST, "rootfs": {"type": "layers", "diff_ids": None}},
    ],
)
def test_attack_11_nil_config_is_an_empty_one(document: object) -> None:
    config = read(document)
    assert config.config == RunConfig()
    assert config.history == []
    assert config.rootfs.diff_ids == []


def test_null_entries_keep_their_keys() -> None:
    config = read({**LEAST, "config": {"Volumes": {"/v": None}, "Labels": {"a": None}, "Env": [None]}})
    assert list(config.config.volumes) == ["/v"]
    assert config.config.labels == {"a": ""}
    assert config.config.env == [""]


def test_empty_and_missing_command_differ() -> None:
    assert read({**LEAST, "config": {"Cmd": []}}).config.cmd == []
    assert read({**LEAST, "config": {}}).config.cmd is None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (None, "got `null`"),
        ({}, "missing required field"),
        ({**LEAST, "rootfs": None}, "null"),
        ({**LEAST, "rootfs": {"type": "wim"}}, "rootfs.type is 'wim'"),
        ({**LEAST, "rootfs": {"diff_ids": ["sha256:../../../x"]}}, "invalid digest"),
        ({**LEAST, "rootfs": {"diff_ids": [None]}}, "digest"),
        ({**LEAST, "rootfs": {"diff_ids": [A] * 1001}}, "1001 layers"),
        ({**LEAST, "history": [{}] * 10_001}, "10001 history entries"),
        ({**LEAST, "config": {"Env": "PATH=/"}}, "config.Env"),
        ({**LEAST, "config": {"Labels": {"a": 1}}}, "config.Labels"),
    ],
)
def test_attack_11_malformed_config_names_the_object(document: object, reason: str) -> None:
    with pytest.raises(MalformedDocument) as caught:
        read(document)
    assert caught.value.message.startswith("config of app:1: ")
    assert reason in caught.value.message


def test_chain_ids() -> None:
    ab = Digest.of(f"{A} {B}".encode())
    assert chain_ids([]) == []
    assert chain_ids([A, B, C]) == [A, ab, Digest.of(f"{ab} {C}".encode())]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x) | st.dictionaries(st.sampled_from(["config", "rootfs", "history", "Env", "diff_ids", "os"]), x)
        ),
    )
)
def test_attack_11_no_document_crashes_the_reader(document: object) -> None:
    try:
        read(document)
    except MalformedDocument:
        return


def test_written_config_keeps_what_readers_require() -> None:
    config = ImageConfig(architecture="amd64", os="linux", rootfs=RootFS(diff_ids=[]))
    assert json.loads(encode(config)) == {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
