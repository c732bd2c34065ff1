"""What clients may ask of this builder: BuildKit's names of capabilities (apicaps), those of frontends and of LLB."""

from __future__ import annotations

from typing import Final

from pier.buildkit.pb.gateway_pb2 import APICap

__all__ = ["FRONTEND", "LLB", "enabled"]

FRONTEND: Final = (
    "frontend.inputs gateway.solve.evaluate gateway.solve.metadata gateway.warnings proto.refarray readdir "
    "readfile reference.output resolveimage resolveimage.resolvemode return returnmap solve.base "
    "source.metaresolver statfile"
).split()

LLB: Final = (
    "constraints diffop exec.cgroup exec.meta.base exec.meta.cgroup.parent exec.meta.network exec.meta.proxyenv "
    "exec.meta.removemountstubs.recursive exec.meta.security exec.meta.setsdefaultpath exec.meta.ulimit "
    "exec.mount.bind exec.mount.bind.readwrite-nooutput exec.mount.cache exec.mount.cache.sharing "
    "exec.mount.secret exec.mount.selector exec.mount.ssh exec.mount.tmpfs exec.mount.tmpfs.size exec.secretenv "
    "exec.validexitcode exporter.sourcedateepoch exporter.image.annotations exporter.multiple file.base "
    "file.copy.alwaysreplaceexistingdestpaths file.copy.includeexcludepatterns file.copy.modestring "
    "file.rm.nofollowsymlink file.rm.wildcard file.symlink.create mergeop meta.description meta.exportcache "
    "meta.ignorecache platform source.image source.image.resolvemode source.local source.local.differ "
    "source.local.excludepatterns source.local.followpaths source.local.includepatterns source.local.sessionid "
    "source.local.sharedkeyhint source.local.unique source.git source.git.fullurl source.git.keepgitdir "
    "source.git.subdir source.http source.http.checksum source.http.perm"
).split()


def enabled(names: list[str]) -> list[APICap]:
    return [APICap(id=name, enabled=True) for name in names]
