"""The same server over llama.cpp: two clients in turns, a call, a format, and a picture."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server_cases import TOOL

SUM = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False}


def test_two_clients_take_turns_and_hear_what_each_would_alone(gguf_miniature):
    def ask(question: str) -> str:
        body = {"messages": [{"role": "user", "content": question}], "reasoning_effort": "none", "temperature": 0}
        return gguf_miniature.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]

    questions = ("What is 17 + 25?", "What is the capital of France?")
    with ThreadPoolExecutor(2) as clients:
        together = list(clients.map(ask, questions))
    assert together == [ask(question) for question in questions]
    assert "42" in together[0]
    assert "Paris" in together[1]


def test_a_call_and_a_format(gguf_miniature):
    body = {"tools": [TOOL], "tool_choice": "required", "reasoning_effort": "none", "temperature": 0}
    (call,) = gguf_miniature.chat(**body, parallel_tool_calls=False).json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == TOOL["function"]["name"]
    assert isinstance(json.loads(call["function"]["arguments"]), dict)
    shape = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SUM, "strict": True}}
    answer = gguf_miniature.chat(response_format=shape, reasoning_effort="none").json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["sum"], int)


def test_it_says_what_is_in_a_picture(gguf_miniature):
    """The README's scene; asked again about it, it is not read again."""
    data = base64.b64encode((Path(__file__).parents[2] / "docs" / "scene.png").read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": "What colour is the star?"}]}
    options = {"reasoning_effort": "none", "temperature": 0}
    answer = gguf_miniature.chat(messages=[asked], **options).json()["choices"][0]["message"]
    assert answer["content"] == "The star is blue."
    turns = [asked, answer, {"role": "user", "content": "What is 17 + 25?"}]
    again = gguf_miniature.chat(messages=turns, **options).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 11, "of which the picture has 9"
    assert "42" in again["choices"][0]["message"]["content"]
