"""Pictures and clips over HTTP to a tiny random model that sees, by every surface and in the users' clients."""

import base64
from typing import Any

import pytest
from pictures import bomb, clip, encoded, noise, picture, sound
from PIL import Image

import qwen35_local

CAT, DOG = picture((96, 64), seed=1), picture((96, 64), seed=2)
OPTIONS = {"max_tokens": 4, "temperature": 0, "reasoning_effort": "none"}


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(data: bytes, **options: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(data), **options}}


def video(data: bytes) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": uri(data, "video/mp4")}}


def asking(*parts: dict[str, Any], text: str = "what?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask(server: Any, *parts: dict[str, Any]) -> dict[str, Any]:
    got = server.chat(messages=asking(*parts), logprobs=True, **OPTIONS)
    assert got.status_code == 200, got.text
    return got.json()


def test_chat_completions(seeing, sighted):
    """What the client is told is what the Python API answers, and the picture matters."""
    found = ask(seeing, image(CAT), video(clip(12, 3)))
    with qwen35_local.open(sighted) as engine:
        messages = asking(image(CAT), video(clip(12, 3)))
        wanted = engine.complete(messages, thinking=False, max_tokens=4, temperature=0)
    assert found["choices"][0]["message"]["content"] == wanted.text
    assert found["usage"]["prompt_tokens"] == wanted.done.usage.prompt_tokens
    one, other = (ask(seeing, image(data))["choices"][0]["logprobs"]["content"] for data in (CAT, DOG))
    assert [token["logprob"] for token in one] != [token["logprob"] for token in other]


def test_a_stream_says_the_same(seeing):
    client = seeing.openai().chat.completions
    whole = client.create(model="sighted", messages=asking(image(CAT)), **OPTIONS).choices[0].message.content
    chunks = client.create(model="sighted", messages=asking(image(CAT)), stream=True, **OPTIONS)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole


def test_detail_limits_what_is_shown(serve):
    server = serve(["</think>yes"] * 3)
    for detail, most in (("auto", None), ("high", None), ("low", 512 * 512)):
        assert server.chat(messages=asking(image(CAT, detail=detail))).status_code == 200
        assert server.engine.requests[-1].messages[-1].content[0].max_pixels == most


def test_the_cost_is_told_before(seeing):
    """Without computing anything, by either way of asking for it."""
    counted = seeing.post("/apply-template", {"messages": asking(image(CAT)), "reasoning_effort": "none"}).json()
    assert len(counted["tokens"]) == ask(seeing, image(CAT))["usage"]["prompt_tokens"]
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(CAT)}}
    told = seeing.anthropic().messages.count_tokens(
        model="sighted", messages=[{"role": "user", "content": [block, {"type": "text", "text": "what?"}]}]
    )
    assert told.input_tokens == len(counted["tokens"])


def test_anthropic(seeing):
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(CAT)}}
    answer = seeing.anthropic().messages.create(
        model="sighted", max_tokens=4, extra_body={"temperature": 0},
        messages=[{"role": "user", "content": [block, {"type": "text", "text": "what?"}]}],
    )  # fmt: skip
    assert answer.content[0].text == ask(seeing, image(CAT))["choices"][0]["message"]["content"]


def test_responses(seeing):
    content = [{"type": "input_image", "image_url": uri(CAT)}, {"type": "input_text", "text": "what?"}]
    answer = seeing.openai().responses.create(
        model="sighted", input=[{"role": "user", "content": content}], max_output_tokens=4, temperature=0,
        reasoning={"effort": "none"},
    )  # fmt: skip
    assert answer.output_text == ask(seeing, image(CAT))["choices"][0]["message"]["content"]


def test_a_second_turn_reads_only_what_is_new(seeing):
    first = seeing.chat(messages=asking(image(DOG), text="first"), **OPTIONS).json()
    turns = [
        *asking(image(DOG), text="first"),
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": "and then?"},
    ]
    again = seeing.chat(messages=turns, **OPTIONS).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 8


def test_what_is_left_out_is_said(seeing):
    frames = [Image.new("RGB", (64, 64), color) for color in ("white", "black")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert ask(seeing, image(data))["timings"]["notices"] == ["an animation of 2 frames: the first is shown"]


BAD = {
    "bomb": (image(bomb()), "400,000,000 pixels is too large"),
    "long": (image(encoded(Image.new("1", (100_000, 1)))), "too long"),
    "no pixels": (image(b"GIF89a\0\0\0\0\0\0\0;"), "picture"),
    "cut": (image(encoded(noise((400, 300)), "JPEG", quality=95)[:9000]), "damaged"),
    "text": (image(b"text"), "text is not a picture"),
    "svg": (image(b"<svg/>"), "an SVG drawing"),
    "clip for a picture": (image(clip()), "an MP4 clip"),
    "no video track": (video(sound()), "no video track"),
    "no clip": (video(b"text"), "cannot be read"),
    "cut clip": (video(clip()[:300]), "clip|frames|track"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_media_are_refused_and_the_next_is_answered(seeing, name):
    part, word = BAD[name]
    got = seeing.chat(messages=asking(part), **OPTIONS)
    assert got.status_code == 400, got.text
    error = got.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_media", "messages")
    assert any(each in error["message"] for each in word.split("|"))
    assert ask(seeing, image(CAT))["usage"]["completion_tokens"] > 0


def test_a_hundred_pictures_are_counted_first(seeing, monkeypatch):
    monkeypatch.setattr("qwen35_local.media.images.rgb", lambda image: pytest.fail("decoded"))
    got = seeing.chat(messages=asking(*(image(picture((96, 64), seed=n)) for n in range(100))), **OPTIONS)
    assert got.status_code == 400
    error = got.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "and the context is 512" in error["message"]


def test_a_text_only_model_says_so(blind):
    assert blind.openai().models.retrieve("tiny").model_extra["vision"] is False
    got = blind.chat(messages=asking(image(CAT)), **OPTIONS)
    assert (got.status_code, got.json()["error"]["code"]) == (400, "invalid_media")
    assert "tiny cannot see: it has no vision tower" in got.json()["error"]["message"]
    assert blind.chat(**OPTIONS).status_code == 200


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
