"""Write chat_template.json: conversations rendered by the released Qwen3.5 chat template, run by transformers.

    python tests/golden/make_chat_template.py MODEL_DIR/chat_template.jinja

Needs the [oracle] extra. The template itself is not kept here: it comes with the model.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError  # pyright: ignore[reportMissingImports]
from transformers.utils.chat_template_utils import render_jinja_template  # pyright: ignore[reportMissingImports]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Say the weather, "as it is" <now> & then: naïve 東京',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": None, "minimum": 1.0}},
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {}}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def tool(content: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content}


def assistant(content: Any = "", reasoning: str | None = None, *calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls
        ]
    return message


TEXT, IMAGE, VIDEO = {"type": "text", "text": " a "}, {"type": "image"}, {"type": "video"}
VALUES = {"yes": True, "no": False, "nothing": None, "int": 7, "float": 1.5, "big": 1e300, "text": " kept \n"} | {
    "list": [1, "ü", None, True],
    "map": {"a": {"b": "<think>"}},
    "empty": "",
    "lines": "one\ntwo",
}

CASES: dict[str, dict[str, Any]] = {
    "one user": {"messages": [user("Hi")]},
    "trimmed": {"messages": [system("\n be brief\t "), user(" \u00a0 Hi \n\n")]},
    "empty texts": {"messages": [system(""), user(""), assistant(""), user("  ")]},
    "null content": {"messages": [user("Hi"), assistant(None, None, ("clock", {})), tool(None)]},
    "tools": {"messages": [user("Weather?")], "tools": [WEATHER, CLOCK]},
    "tools and system": {"messages": [system(" Be brief. "), user("Weather?")], "tools": [WEATHER]},
    "tools and blank system": {"messages": [system("  "), user("Weather?")], "tools": [CLOCK]},
    "history drops thinking": {"messages": [user("1"), assistant("one", "hm"), user("2"), assistant("two", " hm \n")]},
    "thinking in content": {"messages": [user("1"), assistant("<think>\nhm\n</think>\n\none\n")]},
    "thinking without opener": {"messages": [user("1"), assistant("hm </think> one")]},
    "thinking closed twice": {"messages": [user("1"), assistant("a<think>b</think>c</think>\n\n  d")]},
    "old thinking in content": {"messages": [user("1"), assistant("<think>hm</think>\none"), user("2")]},
    "empty reasoning keeps content": {"messages": [user("1"), assistant("a</think>b", "")]},
    "answer without thinking": {"messages": [user("1"), assistant("one")]},
    "one call": {"messages": [user("?"), assistant("", "hm", ("get_weather", {"city": "Paris"})), tool("sunny")]},
    "call after text": {"messages": [user("?"), assistant("Let me look. ", None, ("clock", {})), tool(" 12:00 \n")]},
    "two calls, two results": {
        "messages": [
            user("?"),
            assistant("", "both", ("get_weather", {"city": "Paris", "days": 2}), ("clock", {})),
            *(tool("sunny"), tool("12:00"), assistant("Sunny at noon.", "done")),
        ],
        "tools": [WEATHER, CLOCK],
    },
    "argument values": {"messages": [user("?"), assistant("", None, ("f", VALUES))]},
    "tool loop before a new question": {
        "messages": [user("?"), assistant("", "hm", ("clock", {})), tool("12"), assistant("noon", "so"), user("!")]
    },
    "tool result as user text": {
        "messages": [user("?"), assistant("", "hm"), user("<tool_response>\nx\n</tool_response>")]
    },
    "tool result first": {"messages": [tool("stray"), user("Hi")]},
    "tool result after system": {"messages": [system("s"), tool("stray"), user("Hi")]},
    "picture": {"messages": [user([TEXT, IMAGE, TEXT])]},
    "picture first": {"messages": [user([IMAGE, TEXT])]},
    "blank parts around a picture": {"messages": [user([{"type": "text", "text": " \n"}, TEXT, IMAGE, IMAGE])]},
    "video": {"messages": [user([VIDEO, TEXT])]},
    "picture from a tool": {"messages": [user("?"), assistant("", None, ("f", {})), tool([IMAGE, TEXT])]},
    "picture in thinking": {
        "messages": [user("?"), assistant([TEXT, IMAGE, {"type": "text", "text": "b</think>\nc"}])]
    },
    "system in parts": {"messages": [system([TEXT, TEXT]), user("Hi")]},
    "prefill": {"messages": [user("Hi"), assistant("Dear", "polite")], "generation_prompt": False},
    "no thinking": {"messages": [user("Hi")], "thinking": False},
    "special text": {"messages": [system("<|im_end|>"), user("<|im_start|>system\n<think>"), assistant("<tool_call>")]},
    "no messages": {"messages": []},
    "no user": {"messages": [system("s")]},
    "only a tool result": {"messages": [user("<tool_response></tool_response>")]},
    "system second": {"messages": [user("Hi"), system("s")]},
    "picture in system": {"messages": [system([IMAGE]), user("Hi")]},
    "video in system": {"messages": [system([VIDEO]), user("Hi")]},
}


def released(template: str, case: dict[str, Any]) -> str:
    """The released template's text; raises jinja2's TemplateError where it refuses."""
    rendered, _ = render_jinja_template(
        conversations=[case["messages"]],
        chat_template=template,
        tools=case.get("tools") or None,
        add_generation_prompt=case.get("generation_prompt", True),
        enable_thinking=case.get("thinking", True),
    )
    return rendered[0]


def main(path: str) -> None:
    template = Path(path).read_text(encoding="utf-8")
    cases = []
    for name, case in CASES.items():
        try:
            outcome = {"text": released(template, case)}
        except TemplateError as error:
            outcome = {"error": str(error)}
        cases.append({"name": name, **case, **outcome})
    document = {
        "made_by": "tests/golden/make_chat_template.py with transformers",
        "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "cases": cases,
    }
    out = Path(__file__).with_name("chat_template.json")
    out.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
