"""The same server over llama.cpp: two clients in turns, a call, and a format."""

import json
from concurrent.futures import ThreadPoolExecutor

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
