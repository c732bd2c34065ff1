from __future__ import annotations

import os
from typing import Any

import pytest

from pier.errors import InvalidParameter, NotFound, PierError
from pier.model.container import ContainerCreateRequest
from pier.model.host_config import HostConfig, Mount
from pier.model.network import EndpointSettings, NetworkingConfig
from pier.oci.image_config import RunConfig
from pier.state import Delete


async def test_what_is_written_is_what_inspect_shows(house: Any) -> None:
    id = await house.create(memory=64 << 20)
    answer = await house.service.inspect(id[:12], size=True)
    host = answer.host_config
    assert (answer.path, answer.args, answer.config.hostname) == ("sh", [], id[:12])
    assert (host.network_mode, host.ipc_mode, host.shm_size, host.runtime) == ("bridge", "private", 64 << 20, "pier")
    assert (host.memory_swap, host.restart_policy.name, host.log_config.type) == (128 << 20, "no", "json-file")
    assert (answer.size_rw, answer.size_root_fs) == (11, 111)
    assert ("container", id) in house.store.records


async def test_the_folder_is_closed_to_others(house: Any) -> None:
    id = await house.create()
    assert os.stat(house.config.container_dir(id)).st_mode & 0o007 == 0


async def test_a_name_in_use(house: Any) -> None:
    id = await house.create("web")
    with pytest.raises(PierError) as caught:
        await house.create("web")
    assert caught.value.status == 409
    assert caught.value.message == (
        f'Conflict. The container name "/web" is already in use by container "{id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


async def test_a_failed_write_leaves_nothing(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*changes: object) -> None:
        if not isinstance(changes[0], Delete):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(house.store, "write", full)
    with pytest.raises(OSError, match="No space"):
        await house.create("web")
    assert house.snapshots.made == set()
    assert os.listdir(f"{house.config.data_root}/containers") == []
    monkeypatch.undo()
    await house.create("web")


async def test_no_image(house: Any) -> None:
    body = ContainerCreateRequest(image="nosuch")
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        await house.service.create(body, name="", platform="")


async def test_no_command(house: Any) -> None:
    house.images.known["empty"] = type(house.images.known["bb"])(RunConfig())
    body = ContainerCreateRequest(image="empty")
    with pytest.raises(InvalidParameter, match="no command specified"):
        await house.service.create(body, name="", platform="")


async def test_a_wrong_platform_is_refused_or_warned_of(house: Any) -> None:
    body = ContainerCreateRequest(image="bb")
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/s390x\)"):
        await house.service.create(body, name="", platform="linux/s390x")


async def test_a_missing_bind_source_is_made_for_v_and_refused_for_mount(house: Any, tmp_path: Any) -> None:
    await house.create("vv", binds=[f"{tmp_path}/new:/x"])
    assert (tmp_path / "new").is_dir()
    with pytest.raises(InvalidParameter, match="bind source path does not exist"):
        await house.create("mm", mounts=[Mount(type="bind", source=f"{tmp_path}/other", target="/x")])


@pytest.mark.parametrize("bad", ["../x", "a/b", "a b", "-x", "web" * 300, "a"])
async def test_attack_17_names_are_no_paths(house: Any, bad: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid container name"):
        await house.create(bad)


@pytest.mark.parametrize("user", ["4294967296", "-1", "2147483648", "0:99999999999999999999"])
async def test_attack_13_user_numbers_out_of_range(house: Any, user: str) -> None:
    body = ContainerCreateRequest(image="bb", user=user)
    with pytest.raises(InvalidParameter, match="uids and gids must be in range"):
        await house.service.create(body, name="", platform="")


async def test_joining_a_network_follows_a_rename(house: Any) -> None:
    first = await house.create("aa")
    second = await house.create("bb", network_mode="container:aa")
    answer = await house.service.inspect(second, size=False)
    assert answer.host_config.network_mode == f"container:{first}"
    assert answer.hosts_path == house.config.etc_file(first, "hosts")
    with pytest.raises(PierError, match="non running container"):
        await house.service.start_container("bb")


async def test_default_host_config_is_not_shared(house: Any) -> None:
    body = ContainerCreateRequest(image="bb", host_config=HostConfig())
    await house.service.create(body, name="one", platform="")
    assert body.host_config.network_mode == ""


async def test_an_endpoint_option_without_effect_is_warned_about(house: Any) -> None:
    endpoints = {"bridge": EndpointSettings(driver_opts={"com.docker.network.endpoint.colour": "red"})}
    body = ContainerCreateRequest(image="bb", networking_config=NetworkingConfig(endpoints_config=endpoints))
    (warning,) = (await house.service.create(body, name="web", platform="")).warnings
    assert "com.docker.network.endpoint.colour" in warning


async def test_the_daemons_ipc_mode_is_the_default(house: Any) -> None:
    object.__setattr__(house.config, "default_ipc_mode", "shareable")
    await house.create("web")
    await house.create("own", ipc_mode="private")
    modes = [(await house.service.inspect(name, size=False)).host_config.ipc_mode for name in ("web", "own")]
    assert modes == ["shareable", "private"]
