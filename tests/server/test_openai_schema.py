"""What the server says, held against OpenAI's description of its API (`pytest -m oracle --openai-api openapi.json`)."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from server_cases import CALL, HI, TOOL

pytestmark = pytest.mark.oracle

THOUGHT = "Let me see.\n</think>\n\n"
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": False}}
CHATS: list[tuple[str, dict[str, Any]]] = [
    (f"{THOUGHT}Hello.", {}),
    (f"{THOUGHT}Hello.", {"logprobs": True, "top_logprobs": 3}),
    (f"{THOUGHT}Hello.", {"logprobs": True, "stream_options": {"include_usage": True}}),
    (f"{THOUGHT}{CALL}\n{CALL}", {"tools": [TOOL]}),
    (f"{THOUGHT}Some text.\n\n{CALL}", {"tools": [TOOL], "parallel_tool_calls": False}),
    (f"{THOUGHT}Hello, and more.", {"max_tokens": 9}),
    (f'{THOUGHT}{{"a":1}}', {"response_format": SCHEMA}),
]
RESPONSES_TOOL: Any = {"type": "function", **TOOL["function"], "strict": False}
RESPONSES: list[tuple[str, dict[str, Any]]] = [
    (f"{THOUGHT}Hello.", {}),
    (f"{THOUGHT}Hello.", {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
    (f"{THOUGHT}{CALL}", {"tools": [RESPONSES_TOOL]}),
    (f"{THOUGHT}Hello, and more.", {"max_output_tokens": 9}),
]
BAD: list[tuple[str, Any]] = [
    ("/v1/chat/completions", {"messages": []}),
    ("/v1/chat/completions", {"messages": HI, "n": 2}),
    ("/v1/chat/completions", {"messages": HI, "model": "other"}),
    ("/v1/completions", {"prompt": ""}),
    ("/v1/responses", {"input": "Hi", "background": True}),
    ("/v1/chat/completions", b"{"),
    ("/nope", {}),
]


@pytest.fixture(scope="session")
def valid(request) -> Callable[[str, Any], None]:
    """`valid(name, value)`: the value is what the description's component of that name says."""
    if not (path := request.config.getoption("--openai-api")):
        pytest.skip("needs --openai-api FILE: openapi.json of github.com/openai/openai-openapi")
    jsonschema = pytest.importorskip("jsonschema")
    components = _with_nulls(json.loads(path.read_text())["components"])

    schemas = components["schemas"]

    def check(name: str, value: Any) -> None:
        for choice in schemas[name].get(
            "anyOf", []
        ):  # of events, the one of this type: its complaint is the useful one
            kind = choice["$ref"].rpartition("/")[2]
            if schemas[kind]["properties"]["type"].get("enum") == [value["type"]]:
                name = kind
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
        assert error is None, f"{name}: {error.message} at {error.json_path} of {json.dumps(value)[:2000]}"

    return check


def _with_nulls(node: Any) -> Any:
    """OpenAPI 3.0's `nullable`, which the description still has in places, as JSON Schema says it."""
    if isinstance(node, list):
        return [_with_nulls(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _with_nulls(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [found, {"type": "null"}]} if node.get("nullable") is True else found


def streamed(answer: Any) -> Iterator[dict[str, Any]]:
    """The JSON of each data line."""
    assert answer.status_code == 200, answer.text
    for line in answer.text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])


@pytest.mark.parametrize(("reply", "fields"), CHATS)
def test_chat_completions(serve, valid, reply, fields):
    server = serve([reply, reply])
    if "stream_options" not in fields:
        answer = server.chat(**fields)
        assert answer.status_code == 200, answer.text
        valid("CreateChatCompletionResponse", answer.json())
    chunks = list(streamed(server.chat(**fields, stream=True)))
    assert len(chunks) > 2
    for chunk in chunks:
        valid("CreateChatCompletionStreamResponse", chunk)


@pytest.mark.parametrize("fields", [{}, {"logprobs": 2}, {"logprobs": 2, "echo": True}])
def test_completions(serve, valid, fields):
    server = serve(["yes it is", "yes it is"])
    whole = server.post("/v1/completions", {"prompt": "a", **fields}).json()
    for answer in (whole, *streamed(server.post("/v1/completions", {"prompt": "a", "stream": True, **fields}))):
        for choice in answer["choices"]:  # the description has no null in these places, where OpenAI's server sends it
            choice["finish_reason"] = choice["finish_reason"] or "stop"
            if choice["logprobs"] and choice["logprobs"]["token_logprobs"][0] is None:
                choice["logprobs"]["token_logprobs"][0], choice["logprobs"]["top_logprobs"][0] = 0.0, {}
        valid("CreateCompletionResponse", answer)


@pytest.mark.parametrize(("reply", "fields"), RESPONSES)
def test_responses(serve, valid, reply, fields):
    server = serve([reply, reply])
    answer = server.post("/v1/responses", {"input": "Hi", **fields})
    assert answer.status_code == 200, answer.text
    valid("Response", answer.json())
    valid("Response", server_get(server, f"/v1/responses/{answer.json()['id']}"))
    for event in streamed(server.post("/v1/responses", {"input": "Hi", "stream": True, **fields})):
        valid("ResponseStreamEvent", event)


def server_get(server: Any, path: str) -> Any:
    import httpx

    return httpx.get(server.url + path).json()


def test_models(serve, valid):
    server = serve()
    listed = server_get(server, "/v1/models")
    valid("ListModelsResponse", listed)
    valid("Model", server_get(server, f"/v1/models/{listed['data'][0]['id']}"))


@pytest.mark.parametrize(("path", "body"), BAD)
def test_errors(serve, valid, path, body):
    answer = serve().post(path, body)
    assert answer.status_code in (400, 404)
    valid("ErrorResponse", answer.json())


def test_errors_in_a_stream(serve, valid):
    *_, last = streamed(serve([[f"{THOUGHT}Hel", RuntimeError("gone")]]).chat(stream=True))
    valid("ErrorResponse", last)
