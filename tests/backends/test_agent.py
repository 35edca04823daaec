"""A conversation of 20 requests with tools and thinking: nothing is read twice that did not change."""

import json

import pytest

import qwen35_local
from qwen35_local.server.asked import Served
from qwen35_local.server.openai import parse_chat
from scripts.context.agent import Body, Reply, converse, tools


@pytest.fixture
def engine():
    with qwen35_local.open("miniature") as engine:
        yield engine


def served(engine) -> Served:
    return Served("miniature", engine.info.context, engine.info.vocab_size, fetch=lambda url: b"")


def asker(engine, prompts: list[list[int]], preserve: bool):
    """The way of a request through our server, without the sockets."""

    def ask(messages: Body) -> Reply:
        body = {"messages": messages, "tools": tools(), "temperature": 0, "max_tokens": 120}
        body["chat_template_kwargs"] = {"preserve_thinking": preserve}
        request = parse_chat(json.loads(json.dumps(body)), served(engine)).request
        prompts.append(engine.prompt(request))
        answer = qwen35_local.engine.gather(engine.stream(request))
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in answer.tool_calls
        ]
        usage = answer.done.usage
        message = {"role": "assistant", "content": answer.text, "tool_calls": calls}
        return Reply(message, usage.prompt_tokens, usage.cached_tokens, answer.done.stats.extra["reuse"])

    return ask


@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("requests", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_requests_read_what_is_new_and_no_more(engine, requests, preserve):
    prompts: list[list[int]] = []
    ask = asker(engine, prompts, preserve)
    known: list[int] = []
    kinds = []

    def asking(messages: Body) -> Reply:
        known[:] = engine._sessions[-1].ids
        return ask(messages)

    for asked, reply in converse(asking, requests):
        prompt = prompts[-1]
        common = next((at for at, (a, b) in enumerate(zip(known, prompt, strict=False)) if a != b), len(known))
        assert reply.read <= len(prompt) - common + 64
        # The model's own tokens are put back, so the prompt goes on from them.
        if asked == "result" or (preserve and len(prompts) > 1):
            assert list(prompt[: len(known)]) == known
            assert reply.cached_tokens == len(known)
        elif len(prompts) > 1:
            assert "is given without its thinking" in reply.reason
        kinds.append(asked)
    assert kinds.count("result") >= requests * 2 // 5
