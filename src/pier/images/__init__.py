"""Images: names, listing, load and import, pull, removal."""

from pier.images.image import Image, NoSuchImage
from pier.images.service import ImageService

__all__ = ["Image", "ImageService", "NoSuchImage"]
