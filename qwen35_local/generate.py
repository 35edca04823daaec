"""The only token loop: a session, a sampler and a splitter make the events of one answer."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from time import perf_counter

from .chat.grammar import Mask, mask_of
from .chat.plain import PlainText
from .chat.stream import Splitter
from .chat.tokenizer import Detokenizer, Tokenizer
from .chat.tools import new_ids
from .engine import ChatRequest, Prompt, Reuse, Session
from .errors import ContextError
from .events import Done, Event, FinishReason, Held, Progress, Stats, Text, TokenLogprob, ToolCall, Usage
from .sampling import Floats, Sampler, logprobs

# How thinking is cut short. The family was trained to answer after this sentence, so its wording is not ours to
# improve.
END_OF_THINKING = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now.\n"
    "</think>\n\n"
)


def generate(
    session: Session,
    prompt_ids: Sequence[int],
    request: ChatRequest,
    tokenizer: Tokenizer,
    context: int,
    on_said: Callable[[Sequence[int]], None] | None = None,
) -> Iterator[Event]:
    """Answer `prompt_ids`, which are `request.messages` rendered; closing the iterator cancels within one token.

    Raises, before any work, ContextError if the prompt leaves no room for a token and SamplingError for a bias on an
    unknown one; on the way NumericError if the logits are damaged. `on_said` hears, before `Done`, the tokens that the
    events amount to, unless a stop string or the limit cut through them. `Stats.extra` holds the seed, where the prompt
    parted from what was known and why, `notices` of what pictures and clips were cut short, and what `session.stats()`
    says, if the session has that method.
    """
    if len(prompt_ids) >= context:
        raise ContextError(
            f"the prompt has {len(prompt_ids)} tokens and the context is {context}: "
            "shorten the conversation or load the model with a longer context",
            "messages",
        )
    # The model has more logits than there are tokens (its table is padded); those above are never looked at.
    sampler = Sampler(request.effective_sampling, prompt_ids, tokenizer.size)
    if request.raw:
        splitter = PlainText(tokenizer, request.stop)
        return _answer(session, prompt_ids, request, tokenizer, context, sampler, splitter, None, on_said)
    thinking = ends_in_thinking(prompt_ids, tokenizer)
    ids = new_ids(call.id for message in request.messages for call in message.tool_calls)
    splitter = Splitter(tokenizer, thinking, request.tools, request.stop, ids)
    mask = mask_of(request, tokenizer, thinking)
    return _answer(session, prompt_ids, request, tokenizer, context, sampler, splitter, mask, on_said)


def _answer(
    session: Session,
    prompt_ids: Sequence[int],
    request: ChatRequest,
    tokenizer: Tokenizer,
    context: int,
    sampler: Sampler,
    splitter: Splitter | PlainText,
    mask: Mask | None,
    on_said: Callable[[Sequence[int]], None] | None,
) -> Iterator[Event]:
    started = first = perf_counter()
    room = context - len(prompt_ids)
    limit = room if request.max_tokens is None else min(room, request.max_tokens)
    reuse = yield from (_echo if request.echo else _prefill)(session, prompt_ids, request, tokenizer)
    budget = limit if request.thinking_budget is None else request.thinking_budget
    ending: list[int] = []  # tokens that end thinking, still to be said
    tokens, cut = 0, True
    said: list[int] = []
    while cut and tokens < limit:
        logits = session.logits()[: tokenizer.size]
        thinking = splitter.thinking
        if thinking and not ending and splitter.reasoning_tokens >= budget:
            ending = tokenizer.encode(END_OF_THINKING, special=True)
        if ending:
            token = ending.pop(0)
        elif mask is None:
            token = sampler(logits)
        else:
            token = sampler(mask.while_thinking(logits) if thinking else mask.apply(logits))
        if mask is not None and not thinking:
            mask.accept(token)
        tokens += 1
        first = perf_counter() if tokens == 1 else first
        if token in tokenizer.eos_ids:
            cut = False
            break
        said.append(token)
        # `logits` are gone after `advance`, which comes first so that the model works while the caller shows the text.
        events = splitter.feed(token, _logprob(logits, token, request.top_logprobs, tokenizer))
        if not request.parallel_tool_calls and splitter.tool_calls:
            calls = [event for event in events if isinstance(event, ToolCall)]
            events = [event for event in events if event not in calls[1:]]
            yield from events
            cut = False
            break
        cut = splitter.stopped is None and not splitter.ended
        if cut and tokens < limit:
            session.advance(token)
        yield from events or (Held(tokens),)
    yield from splitter.finish(cut)
    if on_said is not None and splitter.stopped is None and not (cut and splitter.thinking):
        on_said(said[:-1] if splitter.ended else said)  # the token that ended the answer is no part of it

    finished = perf_counter()
    reason: FinishReason = "length" if cut else "tool_calls" if splitter.tool_calls else "stop"
    notices = list(dict.fromkeys(span.seen.notice for span in Prompt.of(prompt_ids).spans if span.seen.notice))
    extra = {"seed": sampler.seed, "reuse": reuse.reason, "differs": reuse.differs, **getattr(session, "stats", dict)()}
    if notices:
        extra["notices"] = notices
    stats = Stats(
        prompt_tps=_rate(len(prompt_ids) - reuse.reused, first - started),
        generation_tps=_rate(tokens - 1, finished - first),
        time_to_first_token=first - started,
        total_time=finished - started,
        peak_memory=extra.pop("peak_memory", 0),
        extra=extra,
    )
    usage = Usage(len(prompt_ids), tokens, splitter.reasoning_tokens, reuse.reused)
    yield Done(reason, usage, stats, splitter.stopped)


def ends_in_thinking(prompt_ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether the prompt's last turn has opened thinking and not closed it.

    Read from the prompt itself: the request's flag would be wrong for a prompt that was continued or edited.
    """
    opened, closed, turn = (tokenizer.special[name] for name in ("<think>", "</think>", "<|im_start|>"))
    last = next((token for token in reversed(prompt_ids) if token in (opened, closed, turn)), turn)
    return last == opened


def _prefill(
    session: Session, prompt_ids: Sequence[int], request: ChatRequest, tokenizer: Tokenizer
) -> Generator[Event, None, Reuse]:
    with closing(session.sync(prompt_ids)) as steps:
        while True:
            try:
                done, total = next(steps)
            except StopIteration as finished:
                return finished.value
            yield Progress("prefill", done, total)


def _echo(
    session: Session, prompt_ids: Sequence[int], request: ChatRequest, tokenizer: Tokenizer
) -> Generator[Event, None, Reuse]:
    """Read the prompt token by token and say each with its logprob, as scoring needs them; NaN for the first."""
    characters = Detokenizer()
    yield from _prefill(session, prompt_ids[:1], request, tokenizer)
    told = TokenLogprob(prompt_ids[0], tokenizer.token_bytes(prompt_ids[0]), math.nan)
    yield Text(characters.feed(told.data), (told,))
    for token in prompt_ids[1:]:
        logprob = _logprob(session.logits()[: tokenizer.size], token, request.top_logprobs or 0, tokenizer)
        assert logprob is not None
        session.advance(token)
        yield Text(characters.feed(logprob.data), (logprob,))
    if rest := characters.finish():
        yield Text(rest)
    return Reuse(0, len(prompt_ids), "the prompt was scored")


def _logprob(logits: Floats, token: int, top: int | None, tokenizer: Tokenizer) -> TokenLogprob | None:
    if top is None:
        return None
    chosen, likeliest = logprobs(logits, token, top)
    alternatives = tuple((other, tokenizer.token_bytes(other), value) for other, value in likeliest)
    return TokenLogprob(token, tokenizer.token_bytes(token), chosen, alternatives)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0
