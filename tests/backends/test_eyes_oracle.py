"""Whole prompts with pictures against the released processor: `pytest -m oracle` with the [oracle] extra installed."""

import io
import json

import numpy as np
import pytest
from pictures import clip, picture
from PIL import Image

import qwen35_local
from qwen35_local.backends.mlx import MlxEngine
from qwen35_local.engine import ChatRequest, ImagePart, Message, TextPart, VideoPart

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


def test_tokens_and_patches_are_those_of_the_released_processor(sighted, tmp_path):
    """Text, a picture, a clip of an odd number of frames, another picture: ids, grids and pixels."""
    pytest.importorskip("torchvision")
    from transformers import PreTrainedTokenizerFast  # pyright: ignore[reportMissingImports]
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (  # pyright: ignore[reportMissingImports]
        Qwen2VLImageProcessorPil,
    )
    from transformers.models.qwen3_vl.processing_qwen3_vl import (  # pyright: ignore[reportMissingImports]
        Qwen3VLProcessor,
    )
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import (  # pyright: ignore[reportMissingImports]
        Qwen3VLVideoProcessor,
    )
    from transformers.video_utils import read_video_pyav  # pyright: ignore[reportMissingImports]

    first, second, film = picture((200, 90), seed=1), picture((64, 500), seed=2), clip(25, 5, (96, 64))
    (tmp_path / "clip.mp4").write_bytes(film)
    parts = (TextPart("Look: "), ImagePart(first), VideoPart(film), TextPart(" and "), ImagePart(second), TextPart("?"))
    with qwen35_local.open(sighted) as engine:
        assert isinstance(engine, MlxEngine)
        prompt = engine.prompt(ChatRequest.of([Message("user", parts)], thinking=False))
        assert engine.eyes is not None
        seen = [engine.eyes.look(part) for part in parts if not isinstance(part, TextPart)]

    image, video = (json.loads((sighted / f"{name}preprocessor_config.json").read_text()) for name in ("", "video_"))
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessorPil(**image),
        PreTrainedTokenizerFast(tokenizer_file=str(sighted / "tokenizer.json")),
        Qwen3VLVideoProcessor(**video),
    )
    # Of a clip only the pad: transformers from 5.10 on leaves the template's marks around all of its frames, where the
    # processor that came with the model (and earlier ones) put the frames in their place.
    hole, film_hole = "<|vision_start|><|image_pad|><|vision_end|>", "<|video_pad|>"
    text = (
        f"<|im_start|>user\nLook: {hole}{film_hole} and {hole}?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    sample = processor.video_processor.sample_frames
    frames, metadata = read_video_pyav(str(tmp_path / "clip.mp4"), lambda metadata, **_: sample(metadata))
    theirs = processor(
        text=[text],
        images=[Image.open(io.BytesIO(data)) for data in (first, second)],
        videos=[frames],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="np",
    )
    assert list(prompt) == theirs["input_ids"][0].tolist()
    one, between, two = seen
    assert theirs["image_grid_thw"].tolist() == [list(one.grid), list(two.grid)]
    assert theirs["video_grid_thw"].tolist() == [list(between.grid)]
    assert np.array_equal(np.concatenate([one.patches(), two.patches()]), theirs["pixel_values"])
    assert np.abs(between.patches() - theirs["pixel_values_videos"]).max() * 127.5 <= 1.01
