"""The shipped model through the clients: it really answers, thinks and calls."""

import base64
import json
from pathlib import Path

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def test_a_stream_of_the_model_is_its_whole_answer(miniature):
    options = {"messages": [{"role": "user", "content": "What is 17 + 25?"}], "seed": 5, "temperature": 0.0}
    client = miniature.openai().chat.completions
    whole = client.create(model="miniature", **options).choices[0].message
    content, reasoning = "", ""
    for chunk in client.create(model="miniature", stream=True, **options):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        reasoning += getattr(delta, "reasoning_content", None) or ""
    assert (content, reasoning) == (whole.content, getattr(whole, "reasoning_content", ""))
    assert content


def test_logprobs_of_the_model(miniature):
    answer = miniature.openai().chat.completions.create(
        model="miniature",
        messages=[{"role": "user", "content": "Hello"}],
        reasoning_effort="none",
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    tokens = answer.choices[0].logprobs.content
    assert tokens
    assert all(token.top_logprobs[0].logprob == token.logprob <= 0 for token in tokens)  # greedy takes the best


def test_the_model_calls_a_tool_and_uses_its_result(miniature):
    client = miniature.openai().chat.completions
    options = {"tools": [WEATHER], "reasoning_effort": "none", "temperature": 0}
    asked = client.create(model="miniature", messages=QUESTION, tool_choice="required", **options).choices[0]
    (call, *_) = asked.message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"} for call in asked.message.tool_calls
    ]
    history = [*QUESTION, asked.message.model_dump(exclude_none=True), *results]
    told = client.create(model="miniature", messages=history, max_tokens=60, **options).choices[0]
    assert told.message.content or told.message.tool_calls


def test_anthropic_on_the_model(miniature):
    client = miniature.anthropic()
    answer = client.messages.create(
        model="miniature",
        max_tokens=300,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}],
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    assert answer.stop_reason == "tool_use"
    assert answer.content[-1].type == "tool_use"


def test_it_says_what_is_in_a_picture_on_every_surface(miniature):
    """The README's scene, by OpenAI's two surfaces and Anthropic's."""
    data = base64.b64encode((Path(__file__).parents[2] / "docs" / "scene.png").read_bytes()).decode()
    uri, question = f"data:image/png;base64,{data}", "What colour is the star?"
    openai = miniature.openai()
    chat = openai.chat.completions.create(
        model="miniature",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": uri}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        temperature=0,
    )
    assert chat.choices[0].message.content == "The star is blue."
    parts = [{"type": "input_image", "image_url": uri, "detail": "auto"}, {"type": "input_text", "text": question}]
    response = openai.responses.create(
        model="miniature", input=[{"role": "user", "content": parts}], temperature=0, reasoning={"effort": "none"}
    )
    assert response.output_text == "The star is blue."
    source = {"type": "base64", "media_type": "image/png", "data": data}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": question}]
    told = miniature.anthropic().messages.create(
        model="miniature", max_tokens=60, messages=[{"role": "user", "content": blocks}], extra_body={"temperature": 0}
    )
    assert told.content[0].text == "The star is blue."
