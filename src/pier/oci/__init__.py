"""The OCI specifications as data: digests, names, descriptors, manifests, image configurations, platforms."""

from pier.oci.descriptor import Descriptor
from pier.oci.digest import Digest, InvalidDigest
from pier.oci.document import MalformedDocument, encode
from pier.oci.image_config import ImageConfig, RunConfig, chain_ids, decode_image_config
from pier.oci.manifest import Index, Manifest, decode_manifest
from pier.oci.platform import Platform, host_platform
from pier.oci.reference import InvalidReference, Reference

__all__ = [
    "Descriptor",
    "Digest",
    "ImageConfig",
    "Index",
    "InvalidDigest",
    "InvalidReference",
    "MalformedDocument",
    "Manifest",
    "Platform",
    "Reference",
    "RunConfig",
    "chain_ids",
    "decode_image_config",
    "decode_manifest",
    "encode",
    "host_platform",
]
