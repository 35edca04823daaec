"""Chat completions, as the openai client sees them."""

import json
import threading
import time
from typing import Any

import openai
import pytest
from server_cases import CALL, HI, TOOL

from qwen35_local.errors import MemoryPlanError
from qwen35_local.server.app import Settings


def test_a_plain_answer(serve):
    server = serve(["hm\n</think>\n\nyes é🙂"])
    answer = server.openai().chat.completions.create(model="scripted", messages=HI)
    message = answer.choices[0].message
    assert (message.role, message.content, message.refusal) == ("assistant", "yes é🙂", None)
    assert message.reasoning_content == "hm"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0


def test_a_stream_says_role_then_deltas_then_finish_then_usage_then_done(serve):
    server = serve(["hm\n</think>\n\nyes"])
    body = server.chat(stream=True, stream_options={"include_usage": True}).text
    *chunks, done = [line[6:] for line in body.split("\n\n") if line]
    assert done == "[DONE]"
    chunks = [json.loads(chunk) for chunk in chunks]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (chunks[-2]["choices"][0]["delta"], chunks[-2]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-2])


def test_no_usage_unless_asked(serve):
    assert '"usage"' not in serve(["</think>yes"]).chat(stream=True).text


REPLIES = [
    "hm\n</think>\n\nyes",
    "</think>é🙂 ü",
    "let me see</think>Looking.\n\n" + CALL + "\n" + CALL,
    CALL,  # inside thinking
    "</think>" + CALL.removeprefix("<tool_call>\n"),  # no opener
    "</think>" + CALL.removesuffix("</tool_call>"),  # no closer
    "</think>" + CALL.replace("3", "a</parameter>b"),
    "</think>" + CALL.replace("3", "</think>"),
    "</think>" + CALL.replace("function=f", "function=unknown"),
    "</think><tool_call>\nnonsense\n</tool_call> and on",
    '</think><tool_call>\n{"name": "f", "arguments": {"n": {"deep": [1, {"x": "}"}]}}}\n</tool_call>',
    "never ends thinking",
    "",
]


@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("reply", REPLIES)
def test_streamed_and_whole_answers_say_the_same(serve, reply, limit):
    client = serve([reply, reply]).openai().chat.completions
    options: Any = {"model": "scripted", "messages": HI, "tools": [TOOL], "max_tokens": limit or openai.omit}
    whole = client.create(**options).choices[0]
    content, reasoning, finish, calls = "", "", None, {}
    for chunk in client.create(stream=True, **options):
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or ():
            if call.id:
                assert call.type == "function"
                calls[call.index] = [call.id, call.function.name, ""]
            calls[call.index][2] += call.function.arguments
        finish = choice.finish_reason or finish
    said = [[call.id, call.function.name, call.function.arguments] for call in whole.message.tool_calls or ()]
    assert (content, reasoning, finish) == (
        whole.message.content or "",
        getattr(whole.message, "reasoning_content", ""),
        whole.finish_reason,
    )
    assert list(calls.values()) == said
    for _, _, arguments in said:
        assert isinstance(json.loads(arguments), dict)


def test_a_tool_loop(serve):
    server = serve(["</think>" + CALL + "\n" + CALL.replace("3", "4"), "</think>done"])
    client = server.openai().chat.completions
    first = client.create(model="scripted", messages=HI, tools=[TOOL]).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    assert [json.loads(call.function.arguments) for call in first.message.tool_calls] == [{"n": 3}, {"n": 4}]
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": f"result of {call.id}"}
        for call in reversed(first.message.tool_calls)
    ]
    history = [*HI, first.message.model_dump(exclude_none=True), *results]
    assert client.create(model="scripted", messages=history, tools=[TOOL]).choices[0].message.content == "done"
    said = server.engine.requests[-1].messages
    assert [message.text for message in said[2:]] == ["result of call_1", "result of call_2"]  # in the calls' order


def test_system_and_developer_messages_are_one_in_order(serve):
    server = serve(["</think>yes"])
    messages = [
        {"role": "developer", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello", "reasoning_content": "greet"},
        {"role": "system", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "Bye"},
    ]
    assert server.chat(messages=messages).status_code == 200
    said = server.engine.requests[0].messages
    assert [(message.role, message.text) for message in said] == [
        ("system", "one\n\ntwo"),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Bye"),
    ]
    assert said[2].reasoning == "greet"


def test_the_answer_is_continued_from_a_last_assistant_message(serve):
    server = serve([" world"])
    answer = server.chat(messages=[*HI, {"role": "assistant", "content": "Hello"}]).json()
    assert answer["choices"][0]["message"]["content"] == " world"
    assert server.engine.requests[0].prefill == "Hello"


def test_special_tokens_in_messages_are_text(serve, tokenizer):
    server = serve(["</think>yes"])
    plain = server.chat(messages=[{"role": "user", "content": "abc"}]).json()["usage"]["prompt_tokens"]
    typed = "<|im_end|><think><tool_call>"
    marked = server.chat(messages=[{"role": "user", "content": typed}]).json()["usage"]["prompt_tokens"]
    assert marked - plain == len(tokenizer.encode(typed)) - len(tokenizer.encode("abc")) > 5


def test_logprobs(serve, tokenizer):
    server = serve(["</think>yes"])
    choice = server.openai().chat.completions.create(
        model="scripted", messages=HI, logprobs=True, top_logprobs=2, reasoning_effort="none"
    )
    (logprob, *_) = choice.choices[0].logprobs.content
    assert logprob.logprob == 0.0
    assert bytes(logprob.bytes).decode() == logprob.token


@pytest.mark.parametrize("stop", ["END", ["x", "END"]])
def test_stop_strings_do_not_leak(serve, stop):
    server = serve(["</think>yes EN", "</think>yes END no", "</think>yes END no"])
    assert server.chat(stop=stop).json()["choices"][0]["message"]["content"] == "yes EN"
    assert server.chat(stop=stop).json()["choices"][0]["message"]["content"] == "yes "
    assert "E" not in "".join(
        chunk.choices[0].delta.content or ""
        for chunk in server.openai().chat.completions.create(model="scripted", messages=HI, stop=stop, stream=True)
    )


def test_sampling_fields_reach_the_engine(serve):
    server = serve()
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "seed": 11,
    }
    assert server.chat(**fields, logit_bias={"5": -100}, max_completion_tokens=9).status_code == 200
    (request,) = server.engine.requests
    assert {name: getattr(request.sampling, name) for name in fields} == fields
    assert request.sampling.logit_bias == {5: -100}
    assert request.max_tokens == 9


@pytest.mark.parametrize(
    ("fields", "thinking", "budget"),
    [
        ({}, True, None),
        ({"reasoning_effort": "none"}, False, None),
        ({"reasoning_effort": "low"}, True, 2048),
        ({"reasoning_effort": "high"}, True, None),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False, None),
        ({"thinking_budget": 5}, True, 5),
        ({"thinking_budget": 0}, False, None),
    ],
)
def test_thinking_fields(serve, fields, thinking, budget):
    server = serve()
    assert server.chat(**fields).status_code == 200
    (request,) = server.engine.requests
    assert (request.thinking, request.thinking_budget) == (thinking, budget)
    assert not request.preserve_thinking


def test_thinking_is_preserved_if_the_request_or_the_server_says_so(serve):
    server, preserving = serve(), serve(settings=Settings(preserve_thinking=True))
    assert server.chat(chat_template_kwargs={"preserve_thinking": True}).status_code == 200
    assert preserving.chat().status_code == 200
    assert preserving.chat(chat_template_kwargs={"preserve_thinking": False}).status_code == 200
    assert server.chat(chat_template_kwargs={"preserve_thinking": 1}).status_code == 400
    found = [request.preserve_thinking for each in (server, preserving) for request in each.engine.requests]
    assert found == [True, True, False]


def test_a_failure_after_the_headers_is_an_error_event(serve):
    server = serve([["</think>some ", MemoryPlanError("no more memory")], "</think>fine"])
    body = server.chat(stream=True).text
    assert "[DONE]" not in body
    assert json.loads(body.split("data: ")[-1])["error"]["message"] == "no more memory"
    assert server.chat().json()["choices"][0]["message"]["content"] == "fine"


def test_the_client_raises_on_it(serve):
    server = serve([["</think>some ", MemoryPlanError("no more memory")]])
    with pytest.raises(openai.APIError, match="no more memory"):
        list(server.openai().chat.completions.create(model="scripted", messages=HI, stream=True))


def test_a_failure_of_a_plain_request_is_a_500(serve):
    server = serve([["</think>some ", MemoryPlanError("no more memory")], ["</think>x", RuntimeError("secret")]])
    answer = server.chat()
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "no more memory")
    answer = server.chat()
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_long_prompt_is_refused_before_any_event(serve, stream):
    answer = serve(context=100).chat(messages=[{"role": "user", "content": "word " * 200}], stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "100" in error["message"]


BAD_FIELDS: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "system", "content": "only"}]}, "messages"),
    ({"messages": [*HI, {"role": "tool", "content": "4", "tool_call_id": "x"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 2}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 2}, "n"),
    ({"stop": ""}, "stop"),
    ({"stop": ["x"] * 129}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"unknown": 1}, "unknown"),
    ({"store": True}, "store"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, None),
    ({"chat_template_kwargs": {"other": 1}}, "chat_template_kwargs.other"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"$ref": "http://evil.test"}},
            }
        },
        "response_format.json_schema.schema",
    ),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x.test/a.png"}}]}
            ]
        },
        None,
    ),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=lambda value: json.dumps(value)[:60])
def test_what_cannot_be_honoured_is_refused_by_name(serve, fields, param):
    answer = serve().chat(**fields)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or error["param"] == param


def test_only_the_served_model_answers(serve):
    server = serve()
    with pytest.raises(openai.NotFoundError, match="scripted"):
        server.openai().chat.completions.create(model="gpt-4", messages=HI)
    assert [model.id for model in server.openai().models.list()] == ["scripted"]
    assert server.openai().models.retrieve("scripted").owned_by == "qwen35-local"


def test_two_answers_take_turns(serve):
    server = serve(["</think>" + "long " * 40, "</think>short"], parallel=2, delay=0.005)
    long_one: list[float] = []

    def ask_long() -> None:
        server.chat()
        long_one.append(time.monotonic())

    thread = threading.Thread(target=ask_long)
    thread.start()
    while not server.engine.requests:
        time.sleep(0.01)
    assert server.chat().json()["choices"][0]["message"]["content"] == "short"
    assert not long_one
    thread.join()
