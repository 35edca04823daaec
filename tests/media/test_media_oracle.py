"""The released processors themselves, as transformers has them: `pytest -m oracle` with the [oracle] extra installed.

Pictures must be equal to the bit. Of clips the frames, grids and times; pixels too, where torchvision is installed.
"""

import io

import numpy as np
import pytest
from pictures import clip, encoded, noise
from PIL import Image, ImageOps

from qwen35_local.media import images, video
from qwen35_local.media.rules import IMAGES, VIDEOS, Rules

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

CLIP_COLORS = Rules(4096, 65536, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
PICTURES = [
    ("RGB", (1, 1), "PNG", {}), ("RGB", (2, 3), "PNG", {}), ("RGB", (199, 1), "PNG", {}), ("RGB", (31, 33), "BMP", {}),
    ("L", (640, 480), "JPEG", {}), ("RGB", (641, 479), "JPEG", {}), ("CMYK", (300, 200), "JPEG", {}),
    ("CMYK", (64, 64), "TIFF", {}), ("YCbCr", (50, 60), "JPEG", {}), ("P", (111, 222), "PNG", {}),
    ("P", (97, 103), "PNG", {"transparency": 3}), ("P", (97, 103), "GIF", {"transparency": 3}),
    ("P", (48, 48), "GIF", {}),
    ("RGBA", (255, 257), "PNG", {}), ("LA", (80, 16), "PNG", {}), ("RGBA", (123, 456), "WEBP", {}),
    ("1", (100, 1000), "PNG", {}), ("RGB", (1600, 8), "PNG", {}), ("RGB", (333, 222), "TIFF", {}),
    ("RGB", (777, 333), "AVIF", {}), ("RGB", (4097, 511), "PNG", {}), ("RGB", (48, 80), "PNG", {}),
    *(("RGB", (120 + turn, 80), "JPEG", {"turn": turn}) for turn in range(1, 9)),
    ("RGB", (100, 60), "TIFF", {"turn": 6}), ("RGB", (100, 60), "PNG", {"turn": 6}),
    ("RGB", (100, 60), "WEBP", {"turn": 8}),
    ("RGB", (100, 60), "AVIF", {"turn": 6}),
]  # fmt: skip
CLIPS = {
    "constant rate": {},
    "odd count": {"frames": 25, "fps": 5},
    "one frame": {"frames": 1},
    "two frames": {"frames": 2},
    "resized": {"frames": 40, "fps": 8, "size": (320, 180)},
    "b-frames": {"frames": 60, "fps": 24, "codec": "libx264", "b_frames": 2},
    "29.97": {"frames": 90, "fps": 30000 / 1001, "codec": "libx264", "b_frames": 3},
    "avi": {"frames": 30, "fps": 15, "format": "avi"},
    "tall": {"frames": 12, "fps": 3, "size": (30, 500)},
    "tiny": {"frames": 12, "fps": 3, "size": (16, 16)},
    "variable rate": {"frames": 9, "times": [0, 40, 400, 480, 2000, 2100, 2130, 3900, 4000]},
    "capped": {"frames": 800, "fps": 1 / 45, "size": (32, 32)},
}


def settings(rules: Rules) -> dict:
    return {
        "size": {"shortest_edge": rules.min_pixels, "longest_edge": rules.max_pixels},
        "patch_size": rules.patch_size,
        "temporal_patch_size": rules.temporal_patch_size,
        "merge_size": rules.merge_size,
        "image_mean": list(rules.mean),
        "image_std": list(rules.std),
    }


@pytest.mark.parametrize("rules", [IMAGES, CLIP_COLORS], ids=["released", "other"])
@pytest.mark.parametrize(("mode", "size", "format", "options"), PICTURES)
def test_pictures(mode, size, format, options, rules):
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (  # pyright: ignore[reportMissingImports]
        Qwen2VLImageProcessorPil,
    )

    data = encoded(noise(size, mode), format, **options)
    ours = images.look(data, rules)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))  # as transformers' load_image does
    theirs = Qwen2VLImageProcessorPil(**settings(rules))(images=[upright], return_tensors="np")
    assert theirs["image_grid_thw"][0].tolist() == list(ours.grid)
    assert np.array_equal(ours.patches(), theirs["pixel_values"])


@pytest.mark.parametrize("name", CLIPS)
def test_clips(name, tmp_path):
    pytest.importorskip("torchvision")
    from transformers.models.qwen3_vl.processing_qwen3_vl import (  # pyright: ignore[reportMissingImports]
        Qwen3VLProcessor,
    )
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import (  # pyright: ignore[reportMissingImports]
        Qwen3VLVideoProcessor,
    )
    from transformers.video_utils import read_video_pyav  # pyright: ignore[reportMissingImports]

    processor = Qwen3VLVideoProcessor(**settings(VIDEOS), cap_pixels_per_frame=False)
    (tmp_path / "clip").write_bytes(clip(**CLIPS[name]))
    ours = video.look((tmp_path / "clip").read_bytes(), VIDEOS)
    frames, seen = read_video_pyav(str(tmp_path / "clip"), lambda metadata, **_: processor.sample_frames(metadata))
    assert list(ours.indices) == list(seen.frames_indices)
    indices = [int(index) for index in seen.frames_indices]
    assert list(ours.seconds) == Qwen3VLProcessor._calculate_timestamps(None, indices, seen.fps, 2)
    if len(frames) == 1:  # which their resizing refuses
        frames = np.concatenate([frames, frames])
    theirs = processor(videos=[frames], do_sample_frames=False, return_tensors="np")
    assert theirs["video_grid_thw"][0].tolist() == list(ours.grid)
    assert np.abs(ours.patches() - theirs["pixel_values_videos"]).max() * 127.5 <= 1.01  # one step of a byte, if at all
