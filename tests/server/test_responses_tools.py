"""Tools of responses beyond functions: namespaces, and custom tools that take free text."""

from typing import Any

import pytest

from qwen35_local.engine import Constraint
from qwen35_local.server.fields import Fields
from qwen35_local.server.responses_tools import toolbox_of

SHUT: Any = {
    "type": "namespace",
    "name": "agents",
    "description": "Other agents.",
    "tools": [
        {
            "type": "function",
            "name": "close",
            "description": "Close one.",
            "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
            "strict": False,
        }
    ],
}
NOTE: Any = {"type": "custom", "name": "note", "description": "Write down."}


def call(name: str, argument: str, value: str) -> str:
    return f"<tool_call>\n<function={name}>\n<parameter={argument}>\n{value}\n</parameter>\n</function>\n</tool_call>"


def test_a_function_of_a_namespace_is_called_by_both_its_names(serve):
    server = serve(["</think>" + call("agents__close", "id", "7"), "</think>done"])
    client = server.openai().responses
    first = client.create(model="scripted", input="Hi", tools=[SHUT], store=False)
    (item,) = first.output
    assert (item.type, item.name, item.namespace, item.arguments) == ("function_call", "close", "agents", '{"id": "7"}')
    (declared,) = server.engine.requests[0].tools
    assert declared["function"]["name"] == "agents__close"
    assert declared["function"]["description"] == "Other agents.\nClose one."
    history: Any = [{"role": "user", "content": "Hi"}, item.to_dict()]
    history.append({"type": "function_call_output", "call_id": item.call_id, "output": "closed"})
    client.create(model="scripted", input=history, tools=[SHUT], store=False)
    assert server.engine.requests[1].messages[1].tool_calls[0].name == "agents__close"


@pytest.mark.parametrize("stream", [False, True])
def test_a_custom_tool_takes_free_text(serve, stream):
    text = "*** Begin\n+é\n*** End"
    server = serve(["</think>" + call("note", "input", text), "</think>done"])
    client = server.openai().responses
    if stream:
        events = list(client.create(model="scripted", input="Hi", tools=[NOTE], stream=True))
        assert [event.input for event in events if event.type == "response.custom_tool_call_input.done"] == [text]
        (item,) = events[-1].response.output
    else:
        (item,) = client.create(model="scripted", input="Hi", tools=[NOTE]).output
    assert (item.type, item.name, item.input) == ("custom_tool_call", "note", text)
    history: Any = [{"role": "user", "content": "Hi"}, item.to_dict()]
    history.append({"type": "custom_tool_call_output", "call_id": item.call_id, "output": "ok"})
    assert client.create(model="scripted", input=history, tools=[NOTE]).output_text == "done"
    (again,) = server.engine.requests[1].messages[1].tool_calls
    assert (again.name, again.arguments) == ("note", {"input": text})


def test_a_tool_of_a_namespace_can_be_required():
    choice = {"type": "function", "name": "close", "namespace": "agents"}
    box = toolbox_of(Fields({"tools": [SHUT, NOTE], "tool_choice": choice}))
    assert box.constraint == Constraint(calls=("agents__close",), must_call=True)


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({**NOTE, "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}}, "tools[0].format.type"),
        ({**SHUT, "tools": [SHUT]}, "tools[0].tools[0].type"),
        ({**SHUT["tools"][0], "defer_loading": True}, "tools[0].defer_loading"),
        ({"type": "web_search", "external_web_access": False}, "tools[0].type"),
        ({"type": "namespace", "name": "a b", "tools": SHUT["tools"]}, "tools[0].function.name"),
    ],
)
def test_other_tools_are_refused(serve, tool, param):
    answer = serve().post("/v1/responses", {"input": "Hi", "tools": [tool]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
