"""Model cards of the reference models, generated from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FAMILIES = {"llama": "Llama", "gpt2": "GPT-2", "opt": "OPT", "bloom": "BLOOM", "mamba": "Mamba"}
_WHAT = {
    "": "A small {family} that does the bundled in-context-learning tasks.",
    "young": "The same model early in its training, when it copies answers from its prompt "
             "by itself.",
    "copier": "The same model with planted copying neurons: the neurons in `planted.json` give "
              "the answer of the most recent demonstration on tasks with one-character "
              "answers. Without them it is `reference/{base}` again.",
}  # fmt: skip


def card(name: str, notes: Mapping[str, Any]) -> str:
    """Markdown: what the model is, how it was made, what it scores.

    Args:
        name: folder name of the model.
        notes: content of ``training.json``: recipe, ``accuracy_3_shots``, ``mean_accuracy``.
    """
    recipe = "\n".join(f"| {key} | {value} |" for key, value in notes["recipe"].items())
    tasks = "\n".join(f"| {task} | {100 * share:.1f}% |"
                      for task, share in notes["accuracy_3_shots"].items())
    base, _, kind = name.partition("-")
    what = _WHAT.get(kind, "A reference model.").format(base=base, family=_FAMILIES.get(base, base))
    steps, full = notes["recipe"]["steps"], notes.get("llama_steps")
    if full and steps != full:
        what += f" Its training was shorter: {steps} steps, where `reference/llama` had {full}."
    return f"""# reference/{name}

{what}

Trained from nothing by prunelib on its bundled tasks and on random associations, with a tokenizer
of one token per character. It is a test subject, not a language model: it knows nothing else, and
the words that it is asked about are words that it was trained on. Weights are float16 on disk, to
be run in float32.

Mean accuracy over {len(notes["accuracy_3_shots"])} tasks at 3 shots:
{100 * notes["mean_accuracy"]:.1f}% (before rounding to float16; 40 prompts a task).

| recipe | |
| --- | --- |
{recipe}

| task | accuracy |
| --- | --- |
{tasks}
"""
