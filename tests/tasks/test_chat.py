"""Prompts of chat models: small templates in the shape of four families, on a byte tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prunelib.engines.limits import stop_token_ids
from prunelib.errors import UserError
from prunelib.tasks import ChatFormat, PromptFormat, draw, get_task
from prunelib.tasks.chat import template_digest, turn_end_ids
from prunelib.tasks.tokenization import answer_tokens, encode, token_ids

DEMONSTRATION = (("big", "large"),)

#: Turns in brackets; a system prompt inside the first; blanks around answers.
LLAMA2 = """\
{% if messages[0].role == 'system' %}\
{% set first = messages[0].content %}{% set turns = messages[1:] %}\
{% else %}{% set first = none %}{% set turns = messages %}{% endif %}\
{% for m in turns %}\
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles alternate') }}{% endif %}\
{% if m.role == 'user' %}{{ bos_token }}[INST] \
{% if loop.first and first is not none %}\
{{ '<<SYS>>\\n' + first + '\\n<</SYS>>\\n\\n' }}{% endif %}\
{{ m.content | trim }} [/INST]{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}\
{% endfor %}"""
#: A header for each turn, always a system turn, with the day in it.
LLAMA3 = """\
{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: \
{{ strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' }}\n\n\
{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}\
{% set turns = messages[1:] %}\
{% else %}{% set turns = messages %}{% endif %}<|eot_id|>\
{% for m in turns %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
{{ m.content | trim }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\
{% endif %}"""
#: No token at the beginning, and a system prompt of its own where none is given.
QWEN = """\
{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
#: One token at the beginning of all, and no place for a system prompt.
MISTRAL = """\
{{ bos_token }}{% for m in messages %}\
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles alternate') }}{% endif %}\
{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}\
{% endif %}{% endfor %}"""

#: Template, its special tokens, whether the tokenizer puts one before a text, and what it makes of
#: a demonstration and a query, after a system prompt and without one.
FAMILIES: dict[str, tuple[str, list[str], bool, str, str | None, str, str]] = {
    "llama2": (
        LLAMA2, ["<s>", "</s>"], True,
        "<s>[INST] big [/INST] large </s><s>[INST] old [/INST]",
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nbig [/INST] large </s><s>[INST] old [/INST]",
        " ", "</s>"),
    "llama3": (
        LLAMA3, ["<|begin|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        True,
        "<|begin|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nbig<|eot_id|><|start_header_id|>"
        "assistant<|end_header_id|>\n\nlarge<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "old<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"
        "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nbig<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nlarge<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nold<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "", "<|eot_id|>"),
    "qwen": (
        QWEN, ["<|none|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"], False,
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nbig<|im_end|>\n"
        "<|im_start|>assistant\nlarge<|im_end|>\n<|im_start|>user\nold<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nbig<|im_end|>\n"
        "<|im_start|>assistant\nlarge<|im_end|>\n<|im_start|>user\nold<|im_end|>\n"
        "<|im_start|>assistant\n",
        "", "<|im_end|>"),
    "mistral": (
        MISTRAL, ["<s>", "</s>"], True, "<s>[INST] big[/INST] large</s>[INST] old[/INST]", None,
        " ", "</s>"),
}


def chat_tokenizer(template: str | None, special: list[str], begins: bool) -> Any:
    """A token for every byte and special token; ``begins``: the first of these before a text."""
    names = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    if begins:
        core.post_processor = processors.TemplateProcessing(
            single=f"{special[0]} $A", special_tokens=[(special[0], 0)])
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=core, bos_token=special[0], eos_token=special[1])
    tokenizer.add_special_tokens({"additional_special_tokens": special[2:]})
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Any:
    template, special, begins, plain, system, lead, end = FAMILIES[request.param]
    return chat_tokenizer(template, special, begins), plain, system, lead, end


def test_a_prompt_is_what_the_familys_template_makes_of_its_turns(family: Any) -> None:
    tokenizer, plain, system, lead, end = family
    written = ChatFormat.of(tokenizer)
    assert written.render(DEMONSTRATION, "old") == plain
    assert written.lead == lead and written.turn_end.strip() == end
    if system is not None:
        assert ChatFormat.of(tokenizer, "Be brief.").render(DEMONSTRATION, "old") == system


def test_token_ids_are_those_of_the_tokenizers_own_rendering(family: Any) -> None:
    tokenizer = family[0]
    turns = [{"role": "user", "content": "big"}, {"role": "assistant", "content": "large"},
             {"role": "user", "content": "old"}]
    own = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False,
                                        strftime_now=lambda _: "26 Jul 2024")
    written = ChatFormat.of(tokenizer).render(DEMONSTRATION, "old")
    assert token_ids(written, tokenizer, templated=True) == own
    if tokenizer("x")["input_ids"][0] == 0:  # as it is, another token would begin the text
        assert token_ids(written, tokenizer) == [0, *own]


def test_examples_carry_turns_and_answers_stand_in_the_assistants_turn(family: Any) -> None:
    tokenizer, *_ = family
    written = ChatFormat.of(tokenizer)
    task = get_task("antonyms")
    for example in draw(task, split="report", shots=2, seed=0, count=3, prompt_format=written):
        assert example.templated
        assert example.prompt == written.render(example.demonstrations, example.query)
        ids = encode(example, tokenizer)
        turns = [turn for x, y in example.demonstrations for turn in (
            {"role": "user", "content": x}, {"role": "assistant", "content": y})]
        whole = tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": example.query},
             {"role": "assistant", "content": example.gold}],
            return_dict=False, strftime_now=lambda _: "26 Jul 2024")
        assert whole[: len(ids.prompt) + len(ids.gold)] == [*ids.prompt, *ids.gold]


def test_the_token_that_ends_a_turn_stops_an_answer(family: Any) -> None:
    tokenizer, *_, end = family
    (stop,) = turn_end_ids(tokenizer)
    assert tokenizer.decode([stop]) == end
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert stop_token_ids(tokenizer, (7,)) == sorted(
        {stop, tokenizer.eos_token_id, *newline, 7})


def test_a_chat_replaces_the_format_of_a_task() -> None:
    tokenizer = chat_tokenizer(QWEN, ["<|none|>", "<|endoftext|>"], False)
    task = replace(get_task("antonyms"), format=PromptFormat("Q: ", "\nA:", " ", "\n\n"))
    shown = draw(task, split="report", shots=1, seed=0, count=1,
                 prompt_format=ChatFormat.of(tokenizer))[0]
    (x, y), = shown.demonstrations
    assert shown.prompt.endswith(
        f"<|im_start|>user\n{x}<|im_end|>\n<|im_start|>assistant\n{y}<|im_end|>\n"
        f"<|im_start|>user\n{shown.query}<|im_end|>\n<|im_start|>assistant\n")
    assert answer_tokens(shown, [shown.gold], tokenizer)[1][0] == tuple(
        tokenizer(shown.gold)["input_ids"])


def test_what_cannot_be_rendered_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="has no chat template: use another format"):
        ChatFormat.of(chat_tokenizer(None, ["<s>", "</s>"], True))
    with pytest.raises(UserError, match="refuses these turns: roles alternate"):
        ChatFormat.of(chat_tokenizer(MISTRAL, ["<s>", "</s>"], True), "Be brief.")
    deaf = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="no place for a system prompt: leave out system"):
        ChatFormat.of(chat_tokenizer(deaf, ["<s>", "</s>"], True), "Be brief.")


def test_the_digest_is_that_of_the_template() -> None:
    made = [chat_tokenizer(template, ["<s>", "</s>"], True)
            for template in (LLAMA2, LLAMA2, MISTRAL, None)]
    digests = [template_digest(tokenizer) for tokenizer in made]
    assert digests[0] == digests[1] != digests[2] and digests[3] is None
