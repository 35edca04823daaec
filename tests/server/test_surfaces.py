"""The other surfaces: completions, responses, messages, and what tells of text."""

from typing import Any

import anthropic
import httpx
import openai
import pytest
from server_cases import CALL, HI, TOOL

MESSAGES_TOOL: Any = {"name": "f", "input_schema": TOOL["function"]["parameters"]}
RESPONSES_TOOL: Any = {"type": "function", **TOOL["function"], "strict": False}


# Completions


def test_a_completion_is_exact(serve):
    server = serve(["\n\n one\n\n", "\n\n one\n\n"])
    client = server.openai().completions
    whole = client.create(model="scripted", prompt="a\n")
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("\n\n one\n\n", "stop")
    pieces = [chunk.choices[0].text for chunk in client.create(model="scripted", prompt="a\n", stream=True)]
    assert "".join(pieces) == "\n\n one\n\n"
    assert server.engine.requests[0].max_tokens == 16


@pytest.mark.parametrize("logprobs", [None, 2])
def test_echo(serve, tokenizer, logprobs):
    server = serve(["yes", "yes"])
    options: Any = {"model": "scripted", "prompt": "Hello é", "echo": True, "logprobs": logprobs}
    (choice,) = server.openai().completions.create(**options).choices
    assert choice.text == "Hello éyes"
    streamed = server.openai().completions.create(**options, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text
    if logprobs:
        size = len(tokenizer.encode("Hello é")) + len(tokenizer.encode("yes"))
        assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == size
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.logprobs.text_offset[1] == len(choice.logprobs.tokens[0])


def test_scoring_generates_nothing(serve):
    body = {"prompt": [1, 2, 3], "max_tokens": 0, "echo": True, "logprobs": 0}
    answer = serve().post("/v1/completions", body).json()
    assert answer["usage"]["completion_tokens"] == 0
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 3


@pytest.mark.parametrize(
    "fields", [{"prompt": ["a", "b"]}, {"prompt": ""}, {"prompt": [10**6]}, {"best_of": 2}, {"suffix": "x"}]
)
def test_completions_refuse(serve, fields):
    answer = serve().post("/v1/completions", {"prompt": "a", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(fields)))


def test_text_and_tokens(serve, tokenizer):
    server = serve()
    ids = server.post("/tokenize", {"content": "Hi <think>"}).json()["tokens"]
    assert ids == tokenizer.encode("Hi <think>", special=True)
    assert server.post("/tokenize", {"content": "<think>", "parse_special": False}).json()[
        "tokens"
    ] == tokenizer.encode("<think>")
    assert server.post("/detokenize", {"tokens": ids}).json() == {"content": "Hi <think>"}
    prompt = server.post("/apply-template", {"messages": HI}).json()["prompt"]
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert server.post("/detokenize", {"tokens": [-1]}).status_code == 400


def test_metrics(serve):
    server = serve(["</think>yes"])
    server.chat()
    text = httpx.get(server.url + "/metrics").text
    assert 'qwen35_requests_total{path="/v1/chat/completions",status="200"} 1' in text
    assert 'qwen35_answers_total{reason="stop"} 1' in text
    assert "qwen35_model_loaded 1" in text
    assert all(line.startswith("#") or len(line.split(" ")) == 2 for line in text.splitlines())


# Messages


def test_a_message(serve):
    server = serve(["hm\n</think>\n\nyes"])
    answer = server.anthropic().messages.create(
        model="scripted",
        max_tokens=100,
        system="Be short.",
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[{"role": "user", "content": "Hi"}],
    )
    assert [(block.type, getattr(block, block.type)) for block in answer.content] == [
        ("thinking", "hm"),
        ("text", "yes"),
    ]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    (request,) = server.engine.requests
    assert (request.thinking_budget, request.messages[0].text) == (1024, "Be short.")


def test_messages_do_not_think_unless_asked(serve):
    server = serve(["yes"])
    answer = server.anthropic().messages.create(model="scripted", max_tokens=9, messages=HI)
    assert [block.type for block in answer.content] == ["text"]


def test_a_streamed_message_is_the_same(serve):
    reply = "hm\n</think>\n\nLooking.\n\n" + CALL + "\n" + CALL
    server = serve([reply, reply])
    options: Any = {
        "model": "scripted",
        "max_tokens": 200,
        "thinking": {"type": "adaptive"},
        "messages": HI,
        "tools": [MESSAGES_TOOL],
    }
    whole = server.anthropic().messages.create(**options)
    with server.anthropic().messages.stream(**options) as stream:
        streamed = stream.get_final_message()
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
    assert (whole.stop_reason, streamed.stop_reason) == ("tool_use", "tool_use")
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_a_message_tool_loop(serve):
    server = serve([CALL, "done"])
    client = server.anthropic().messages
    first = client.create(model="scripted", max_tokens=99, messages=HI, tools=[MESSAGES_TOOL])
    (call,) = first.content
    assert (call.name, call.input) == ("f", {"n": 3})
    history: Any = [
        *HI,
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "4", "is_error": True}],
        },
    ]
    again = client.create(model="scripted", max_tokens=99, messages=history, tools=[MESSAGES_TOOL])
    assert again.content[0].text == "done"
    assert server.engine.requests[-1].messages[-1].text == "Error: 4"


def test_message_details(serve):
    server = serve(["a STOP b", " world"])
    client = server.anthropic().messages
    answer = client.create(model="scripted", max_tokens=9, messages=HI, stop_sequences=["STOP"])
    assert (answer.content[0].text, answer.stop_reason, answer.stop_sequence) == ("a ", "stop_sequence", "STOP")
    begun: Any = [*HI, {"role": "assistant", "content": "Hello"}]
    assert client.create(model="scripted", max_tokens=9, messages=begun).content[0].text == " world"
    counted = client.count_tokens(model="scripted", messages=HI)
    assert counted.input_tokens == answer.usage.input_tokens


def test_message_errors(serve):
    client = serve(context=64).anthropic().messages
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.create(model="scripted", max_tokens=0, messages=HI)
    with pytest.raises(anthropic.NotFoundError):
        client.create(model="claude", max_tokens=9, messages=HI)
    with pytest.raises(anthropic.BadRequestError, match="context is 64"):
        client.create(model="scripted", max_tokens=9, messages=[{"role": "user", "content": "word " * 99}])


# Responses


def test_a_response(serve):
    server = serve(["hm\n</think>\n\nyes"])
    answer = server.openai().responses.create(model="scripted", input="Hi", instructions="Be short.")
    assert answer.output_text == "yes"
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].content[0].text == "hm"
    assert (answer.status, answer.error, answer.instructions) == ("completed", None, "Be short.")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_a_streamed_response_is_the_same(serve):
    reply = "hm\n</think>\n\nLooking.\n\n" + CALL + "\n" + CALL
    server = serve([reply, reply])
    options: Any = {"model": "scripted", "input": "Hi", "tools": [RESPONSES_TOOL]}
    whole = server.openai().responses.create(**options)
    events = list(server.openai().responses.create(**options, stream=True))
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")

    def shown(response: Any) -> Any:
        return [{key: value for key, value in item.to_dict().items() if key != "id"} for item in response.output]

    assert shown(events[-1].response) == shown(whole)
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Looking."


def test_a_response_goes_on_from_an_earlier_one(serve):
    server = serve(["</think>" + CALL, "</think>done", "</think>x"])
    client = server.openai().responses
    first = client.create(model="scripted", input="Hi", instructions="One.", tools=[RESPONSES_TOOL])
    (call,) = first.output
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "4"}]
    second = client.create(
        model="scripted", previous_response_id=first.id, instructions="Two.", input=result, tools=[RESPONSES_TOOL]
    )
    assert second.output_text == "done"
    said = server.engine.requests[-1].messages
    assert [(message.role, message.text) for message in said] == [
        ("system", "Two."),
        ("user", "Hi"),
        ("assistant", ""),
        ("tool", "4"),
    ]
    assert client.retrieve(first.id).id == first.id
    client.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.create(model="scripted", previous_response_id=first.id, input="Hi")
    # The same, with the items sent back by the client.
    items: Any = [{"role": "user", "content": "Hi"}, *[item.to_dict() for item in first.output], *result]
    assert client.create(model="scripted", input=items, store=False).output_text == "x"
    assert [message.role for message in server.engine.requests[-1].messages] == ["user", "assistant", "tool"]


def test_a_cut_response_is_incomplete(serve):
    server = serve(["</think>one two three"])
    answer = server.openai().responses.create(model="scripted", input="Hi", max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"unknown": 1}, "unknown"),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
    ],
)
def test_responses_refuse(serve, fields, param):
    answer = serve().post("/v1/responses", {"input": "Hi", **fields})
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_a_failed_stream_says_so(serve):
    server = serve([["</think>some ", RuntimeError("secret")]] * 2)
    with pytest.raises(openai.APIError):
        list(server.openai().responses.create(model="scripted", input="Hi", stream=True))
    body = server.post("/v1/messages", {"max_tokens": 9, "messages": HI, "stream": True}).text
    assert "event: error" in body
    assert "secret" not in body
