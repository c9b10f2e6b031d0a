"""Prompts for chat models, as the tokenizer's own chat template writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prunelib.errors import UserError, one_line
from prunelib.identity import digest
from prunelib.tasks.base import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The name of this format in a recipe and in the tables.
CHAT = "chat"
#: Templates may write the day; a prompt does not depend on the day on which it is written.
_DAY = datetime(2024, 7, 26)  # noqa: DTZ001
#: Stands for an answer, to see what a template writes around it.
_ANSWER = "answer"

Message = dict[str, str]


@dataclass(frozen=True)
class ChatFormat:
    """A chat template, and the system prompt that is rendered with it.

    Every demonstration is a turn of the user (its input) and a turn of the assistant (its answer);
    the query is the user's last turn, and the prompt ends where the assistant begins.

    Attributes:
        template: the Jinja template.
        special: the tokenizer's special tokens by name, which templates use.
        system: the system prompt, if there is one.
        lead: what stands between the prompt's end and an answer.
        turn_end: what the template writes after an answer.
    """

    template: str = field(repr=False)
    special: tuple[tuple[str, str], ...]
    system: str | None
    lead: str = ""
    turn_end: str = field(default="", compare=False)

    #: An answer is one line.
    separator = "\n"

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> ChatFormat:
        """How a tokenizer writes chats.

        Raises:
            UserError: it has no chat template, or one that cannot be rendered or has no place for
                a system prompt.
        """
        template = _template(tokenizer)
        if template is None:
            raise UserError("its tokenizer has no chat template: use another format, or the "
                            "model's chat version")
        plain = cls(template, tuple(sorted(tokenizer.special_tokens_map.items())), system)
        asked = plain.render((), "question")
        if system is not None and system.strip() not in asked:
            raise UserError("its chat template has no place for a system prompt: leave out system")
        whole = plain._rendered([*plain._messages((), "question"),
                                 {"role": "assistant", "content": _ANSWER}], begin=False)
        place = whole.rindex(_ANSWER)
        lead = whole[len(asked) : place] if whole.startswith(asked) else ""
        return cls(plain.template, plain.special, system, lead, whole[place + len(_ANSWER) :])

    def __str__(self) -> str:
        return CHAT

    def render(self, demonstrations: tuple[Pair, ...], query: str) -> str:
        """The prompt text, ending where the answer begins, with all special tokens written out."""
        return self._rendered(self._messages(demonstrations, query), begin=True)

    def _messages(self, demonstrations: tuple[Pair, ...], query: str) -> list[Message]:
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        turns = [turn for x, y in demonstrations for turn in (
            {"role": "user", "content": x}, {"role": "assistant", "content": y})]
        return [*first, *turns, {"role": "user", "content": query}]

    def _rendered(self, messages: list[Message], *, begin: bool) -> str:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        settings: dict[str, Any] = {
            **dict(self.special), "enable_thinking": False,
            "strftime_now": _DAY.strftime}
        try:
            return str(render_jinja_template(
                conversations=[messages], chat_template=self.template,
                add_generation_prompt=begin, **settings)[0][0])
        except TemplateError as error:
            raise UserError(f"its chat template refuses these turns: {one_line(error)}"
                            ) from error


def _template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:  # none, or several without one that is the default
        return None


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Digest of the text of a tokenizer's chat template, ``None`` without one."""
    template = _template(tokenizer)
    return None if template is None else digest("chat template", template)


def turn_end_ids(tokenizer: Any) -> list[int]:
    """The token with which a chat template ends the assistant's turn, if there is one."""
    try:
        ends = ChatFormat.of(tokenizer).turn_end
    except UserError:
        return []
    ids = tokenizer(ends, add_special_tokens=False)["input_ids"]
    return [int(token) for token in ids if token in tokenizer.added_tokens_decoder][:1]
