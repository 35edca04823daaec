"""Errors -> HTTP: which status, and the bodies that OpenAI's and Anthropic's clients expect."""

import logging
from dataclasses import dataclass, field
from typing import Any

from ..bridge import Busy, Gone
from ..errors import ContextError, MediaError, Qwen35Error, UsageError

log = logging.getLogger("qwen35.server")
RETRY_AFTER = 2  # seconds; answers take seconds to minutes, and a refused try costs nothing

# Status -> `type` in Anthropic's vocabulary.
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}


@dataclass
class Refused(Exception):
    """A request that is answered with an error."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    kind: str = "invalid_request_error"
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def openai(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def anthropic(self) -> dict[str, Any]:
        kind = ANTHROPIC.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}


def bad(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """400: the request is at fault."""
    return Refused(400, message, param, code)


def refusal_of(error: BaseException) -> Refused:
    """Any error as a refusal. What nobody foresaw is logged and told as a 500 without its details."""
    match error:
        case Refused():
            return error
        case ContextError():
            return bad(str(error), error.param, "context_length_exceeded")
        case UsageError():
            return bad(str(error), error.param)
        case MediaError():
            return bad(str(error), "messages", "invalid_media")
        case Busy():
            return Refused(503, str(error), None, "server_busy", "server_busy", {"Retry-After": str(RETRY_AFTER)})
        case Gone():
            return Refused(503, f"{error}", None, "shutting_down", "server_error", {"Retry-After": str(RETRY_AFTER)})
        case Qwen35Error():
            log.error("an answer failed: %s", error)
            return Refused(500, str(error), None, None, "server_error")
    log.error("an answer failed", exc_info=error)
    return Refused(500, "the server failed on this request; its log says why", None, None, "server_error")
