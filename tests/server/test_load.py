"""Many requests, long runs and nonsense; run by name (`-m slow`)."""

import asyncio
import itertools
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from server_cases import CALL, HI, TOOL

pytestmark = pytest.mark.slow


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_at_once(serve):
    server = serve(itertools.repeat("</think>one two three"), parallel=4)

    async def ask(client: httpx.AsyncClient, at: int) -> int:
        body = {"messages": HI, "stream": at % 2 == 0}
        return (await client.post(server.url + "/v1/chat/completions", json=body)).status_code

    async def ask_all() -> list[int]:
        limits = httpx.Limits(max_connections=1000)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            return await asyncio.gather(*(ask(client, at) for at in range(1000)))

    statuses = asyncio.run(ask_all())
    assert len(statuses) == 1000
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 12
    assert (server.worker.active, server.worker.waiting) == (0, 0)


def test_ten_thousand_in_a_row_keep_memory_flat(serve):
    server = serve(itertools.repeat("</think>one"))
    server.engine.requests = _Forgetful()
    with httpx.Client(timeout=30) as client:

        def ask(count: int) -> None:
            for at in range(count):
                body = {"messages": HI, "stream": at % 2 == 0}
                assert client.post(server.url + "/v1/chat/completions", json=body).status_code == 200

        ask(1000)
        before = resident()
        ask(9000)
    assert resident() < 1.05 * before


class _Forgetful(list):
    """The scripted engine remembers its requests; here that would be the leak."""

    def append(self, item: Any) -> None: ...


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
# Fields that the surfaces know, so that what is inside them gets looked at.
NAMES = (
    *("model", "messages", "input", "prompt", "max_tokens", "max_output_tokens", "temperature", "top_p", "top_k", "n"),
    *("stop", "stop_sequences", "stream", "stream_options", "tools", "tool_choice", "response_format", "text", "seed"),
    *("logit_bias", "logprobs", "top_logprobs", "thinking", "reasoning", "reasoning_effort", "chat_template_kwargs"),
    *("system", "instructions", "echo", "tokens", "content", "output_config", "metadata", "thinking_budget"),
)
PARTS = st.sampled_from(
    [
        "Hi",
        HI,
        [TOOL],
        [{"type": "text", "text": "Hi"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}],
        [{"role": "assistant", "content": CALL}, *HI],
        [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}],
        [{"type": "function_call_output", "call_id": "x", "output": "y"}],
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": ["integer", "null"]}}},
        {"type": "enabled", "budget_tokens": 5},
        {"type": "any"},
        "required",
        [1, 2, 3],
        {"5": 1},
    ]
)
BODY = st.dictionaries(st.sampled_from(NAMES), JSON | PARTS, max_size=6)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens")
TEXTS = ("/tokenize", "/detokenize", "/apply-template")


@pytest.mark.timeout(900)
def test_no_body_makes_a_500(serve):
    server = serve(itertools.repeat("</think>yes"))
    server.engine.requests = _Forgetful()
    ends = time.monotonic() + float(os.environ.get("QWEN35_FUZZ_SECONDS", "60"))
    asked: dict[int, int] = {}
    asked_of: dict[str, int] = {}
    with httpx.Client(timeout=30) as client:

        @settings(
            max_examples=200,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
            database=None,
        )
        @given(path=st.sampled_from(PATHS + TEXTS), body=BODY, good=st.booleans())
        def ask(path: str, body: dict[str, Any], good: bool) -> None:
            if good:  # most random bodies fail for want of these
                body = {"messages": HI, **body} if "chat" in path or "messages" in path else {"prompt": "a", **body}
            answer = client.post(server.url + path, json=body)
            asked[answer.status_code] = asked.get(answer.status_code, 0) + 1
            asked_of[path] = asked_of.get(path, 0) + (answer.status_code == 200)
            assert answer.status_code in (200, 400, 404), (path, body, answer.text)
            if answer.status_code != 200:
                assert "error" in answer.json()

        while time.monotonic() < ends:
            ask()
    assert asked.get(200)
    assert asked.get(400)
    print(f"{sum(asked.values())} requests: {asked}, of which answered {asked_of}")
