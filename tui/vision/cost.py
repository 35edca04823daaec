"""What a picture or clip costs by the released model's rules, from its header alone.

The engine knows what its own model sees; until it is loaded, and for servers, this is used.
"""

from ..chat.media import Media, Sight


def price(media: Media) -> Sight:
    """Raises MediaError, or BackendUnavailable for a clip."""
    # NumPy comes with these; nobody who attaches no picture should wait for it.
    from qwen35_local.media import images, video
    from qwen35_local.media.rules import IMAGES, VIDEOS

    if media.kind == "image":
        return Sight.of(images.look(media.data, IMAGES, media.max_pixels))
    return Sight.of(video.look(media.data, VIDEOS, media.max_pixels))
