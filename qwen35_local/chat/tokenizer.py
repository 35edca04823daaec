"""Text <-> token ids, with control tokens kept out of reach of text.

The byte-level BPE runs in the `tokenizers` library (transformers would cost seconds of import). It is loaded without
its added tokens, so encoding text can yield none of them; the map of added tokens is ours.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from tokenizers import Tokenizer as Bpe

from ..errors import TokenizerError, UsageError
from .template import Segment

END_TOKENS = ("<|im_end|>", "<|endoftext|>")
REQUIRED = (
    *END_TOKENS,
    *("<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
# Embedding tables are padded above the last token: by 243 rows in the released model, a few hundred in its relatives.
MAX_PADDING = 1024


def _byte_of_char() -> dict[str, int]:
    """Byte-level BPE spells each byte as one printable character: itself where it is printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


BYTE_OF_CHAR = _byte_of_char()


class Tokenizer:
    """The tokenizer of a model directory. `special` maps each control token to its id; `eos_ids` end an answer."""

    special: Mapping[str, int]
    eos_ids: frozenset[int]

    def __init__(self, spec: str, eos_ids: Iterable[int] = (), name: str = "tokenizer.json"):
        """`spec` is the text of a tokenizer.json; `eos_ids` come on top of `<|im_end|>` and `<|endoftext|>`."""
        try:
            entries, rest = _without_added_tokens(spec)
            added = {entry["content"]: int(entry["id"]) for entry in entries}
            hidden = {int(entry["id"]) for entry in entries if entry["special"]}
            self._bpe = Bpe.from_str(rest)
        except Exception as error:  # the library raises plain Exception for whatever it cannot read
            raise TokenizerError(f"{name} is damaged or of an unknown layout ({error}): fetch it again") from error
        if missing := [token for token in REQUIRED if token not in added]:
            raise TokenizerError(f"{name} lacks the control tokens {', '.join(missing)}: it is not a Qwen3.5 tokenizer")
        self.special = MappingProxyType(added)
        self.eos_ids = frozenset(added[token] for token in END_TOKENS) | frozenset(eos_ids)
        self.size = max(self._bpe.get_vocab_size(), max(added.values()) + 1)
        self._hidden = frozenset(hidden)
        self._added_bytes = {token: text.encode() for text, token in added.items()}
        longest_first = sorted(added, key=len, reverse=True)
        self._control = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @classmethod
    def from_dir(cls, path: str | Path) -> Self:
        """Read tokenizer.json, and generation_config.json for more end tokens where there is one."""
        directory = Path(path)
        spec = _read(directory / "tokenizer.json")
        if spec is None:
            raise TokenizerError(f"{directory} has no tokenizer.json: it is not a whole model directory")
        ends = _generation_config(directory / "generation_config.json").get("eos_token_id") or []
        ends = [ends] if isinstance(ends, int) else ends
        if not isinstance(ends, list) or not all(isinstance(end, int) for end in ends):
            raise TokenizerError(
                f"{directory}/generation_config.json has an eos_token_id that is no token id: {ends!r}"
            )
        return cls(spec, ends, name=str(directory / "tokenizer.json"))

    def check(self, vocab_size: int) -> None:
        """Raise TokenizerError unless this tokenizer fits a model with `vocab_size` logits."""
        if not vocab_size - MAX_PADDING < self.size <= vocab_size:
            raise TokenizerError(
                f"the tokenizer has {self.size} tokens and the model {vocab_size}: use the tokenizer.json of this model"
            )

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text`. Control tokens stay plain text unless `special`."""
        return self.encode_segments([Segment(text, markup=special)])

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """Token ids of a prompt. Text is joined between control tokens, so segment borders do not change its tokens."""
        ids: list[int] = []
        run: list[str] = []
        for segment in segments:
            # Splitting by one group yields text, control token, text, ...: control tokens have the odd places.
            pieces = self._control.split(segment.text) if segment.markup else [segment.text]
            for place, piece in enumerate(pieces):
                if place % 2:
                    ids += self._encode_text("".join(run))
                    ids.append(self.special[piece])
                    run.clear()
                else:
                    run.append(piece)
        return ids + self._encode_text("".join(run))

    def _encode_text(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"text holds half a character (a lone surrogate) at position {error.start}") from error
        return self._bpe.encode(text, add_special_tokens=False).ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; empty for padding above the last token and for pictures (below 0)."""
        if (added := self._added_bytes.get(token)) is not None:
            return added
        piece = self._bpe.id_to_token(token) if token >= 0 else None
        return bytes(BYTE_OF_CHAR[char] for char in piece) if piece else b""

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Text of `ids`, invalid bytes as U+FFFD; `skip_special` drops what the file marks special (not `<think>`)."""
        kept = (token for token in ids if not (skip_special and token in self._hidden))
        return b"".join(map(self.token_bytes, kept)).decode(errors="replace")


class Detokenizer:
    """Token bytes -> whole characters. An invalid byte becomes U+FFFD, and so does a character cut at the end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def finish(self) -> str:
        """The rest; the detokenizer is as new afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _without_added_tokens(spec: str) -> tuple[Any, str]:
    """(the added tokens of a tokenizer.json, its text without them).

    Cut out of the text: parsing and writing the whole vocabulary again would take a second.
    """
    key = re.search(r'"added_tokens"\s*:\s*', spec)
    if key is None:
        raise ValueError("no added_tokens")
    entries, end = json.JSONDecoder().raw_decode(spec, key.end())
    return entries, spec[: key.end()] + "[]" + spec[end:]


def _generation_config(path: Path) -> Mapping[str, Any]:
    text = _read(path)
    try:
        config = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is damaged ({error}): fetch it again") from error
    if not isinstance(config, dict):
        raise TokenizerError(f"{path} is not a JSON object: fetch it again")
    return config


def _read(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} cannot be read ({error}): fetch it again") from error
