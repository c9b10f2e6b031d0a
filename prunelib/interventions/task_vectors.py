"""Task vectors (Hendel et al. 2023, formulas.md §5.1): a task that is read here and written there.

The task vector of a prompt at layer l is its residual stream after that layer at the last
position, with the query replaced by other inputs and averaged over them. Written over the
output of layer l at the last position of the bare query, it stands in for the demonstrations.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from prunelib.errors import UnitError, UserError
from prunelib.identity import seed_of
from prunelib.interventions.ablation import BASELINE, Ablation, ActivationMasks
from prunelib.models import Loaded
from prunelib.tasks import ChatFormat, Example, PromptFormat, Split, Task, Written, draw, format_of
from prunelib.tasks.tokenization import PAD, token_ids

if TYPE_CHECKING:
    from torch import Tensor, nn

#: ``own``: the prompt's own demonstrations. ``other``: the mean over the vectors of those other
#: prompts in which the query does not occur (``multi_context`` in the authors' code).
Context = Literal["own", "other"]
#: Inputs that take the place of the query.
DUMMIES = 2
#: Rows of one forward pass. Fixed, so that results do not depend on the worker.
VECTOR_ROWS = 128


@dataclass(frozen=True)
class TaskVectorAnswers:
    """Greedy answers of one model to the same queries, three ways.

    Attributes:
        examples: the queries, with their demonstrations.
        too_long: those that were left out, as they do not fit the model's context.
        zero_shot: answers to the bare queries, ``[examples]``.
        icl: answers to the prompts with demonstrations, ``[examples]``.
        task_vector: layer → answers to the bare queries with the task vectors of that layer,
            ``[examples]``.
    """

    examples: tuple[Example, ...]
    too_long: tuple[Example, ...]
    zero_shot: tuple[str, ...]
    icl: tuple[str, ...]
    task_vector: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Reading:
    """How answers are read: greedily, up to a stop token or ``max_tokens``, ``rows`` at a time."""

    max_tokens: int
    stop: tuple[int, ...]
    rows: int = VECTOR_ROWS


def task_vector_answers(
    loaded: Loaded,
    task: Task,
    reading: Reading,
    *,
    split: Split,
    shots: int,
    seed: int,
    count: int,
    layers: Sequence[int] | None = None,
    ablation: Ablation = BASELINE,
    context: Context = "own",
    prompt_format: Written = "arrow",
) -> TaskVectorAnswers:
    """Answers of a model under an ablation: zero-shot, with demonstrations, with task vectors.

    Task vectors are read and written under the same ablation. ``layers`` are all of them unless
    given: all are tried on the search split, the best alone is used on the report split. The
    authors read one token; here answers may have several, and the vector stays where it is
    while they are written.

    Raises:
        UserError: the split is too small for the shots, for two other inputs, or for other
            prompts without the query; a layer or a component of the ablation is not in this
            model.
        UnitError: fewer than half of the prompts, with their answers, fit the model's context.
    """
    chosen = range(loaded.info.layers) if layers is None else layers
    if missing := sorted(set(chosen) - set(range(loaded.info.layers))):
        raise UserError(f"layer {missing[0]} is not in a model of {loaded.info.layers} layers")
    drawn = draw(task, split=split, shots=shots, seed=seed, count=count,
                 prompt_format=prompt_format)
    read, too_long = _encoded(loaded, task, reading.max_tokens, format_of(task, prompt_format),
                              drawn)
    examples = [one.example for one in read]
    sources = ([[i] for i in range(len(examples))] if context == "own"
               else _others(examples, [one.inputs for one in read]))
    bare = [one.bare for one in read]
    demonstrated = [ids for one in read for ids in one.demonstrated]
    with ActivationMasks(loaded) as masks:
        masks.set(ablation)
        vectors = _averaged(last_streams(loaded, demonstrated, reading.rows), sources)
        return TaskVectorAnswers(
            tuple(examples),
            tuple(too_long),
            zero_shot=_answers(loaded, bare, reading),
            icl=_answers(loaded, [one.icl for one in read], reading),
            task_vector={layer: _answers(loaded, bare, reading, {layer: vectors[:, layer]})
                         for layer in chosen},
        )


@dataclass(frozen=True)
class _Read:
    """Token ids of what is read for one example: its prompt, its query, other inputs instead."""

    example: Example
    inputs: tuple[str, ...]
    icl: list[int]
    bare: list[int]
    demonstrated: list[list[int]]


def _encoded(loaded: Loaded, task: Task, room: int, form: PromptFormat | ChatFormat,
             examples: Sequence[Example]) -> tuple[list[_Read], list[Example]]:
    """What is read for each example, and those that leave no ``room`` for an answer."""
    context = _context(loaded)
    read, too_long = [], []
    for example in examples:
        inputs = dummy_inputs(task, example)
        texts = [example.prompt, form.render((), example.query),
                 *(form.render(example.demonstrations, x) for x in inputs)]
        icl, bare, *others = (token_ids(text, loaded.tokenizer, example.templated)
                              for text in texts)
        if max(map(len, (icl, bare, *others))) + room > context:
            too_long.append(example)
        else:
            read.append(_Read(example, inputs, icl, bare, others))
    if len(read) < len(too_long):
        raise UnitError(f"of {len(examples)} prompts of task '{task.name}' {len(too_long)} are too "
                        f"long for a context of {context}")
    return read, too_long


def _context(loaded: Loaded) -> int:
    """Tokens that a prompt and its answer may have together."""
    return getattr(loaded.model.config, "max_position_embeddings", None) or sys.maxsize


def best_layer(correct: Mapping[int, Sequence[bool]]) -> int:
    """The layer with the most right answers to development prompts; of equals, the lowest."""
    return max(correct, key=lambda layer: (sum(correct[layer]), -layer))


def dummy_inputs(task: Task, example: Example) -> tuple[str, ...]:
    """Other inputs of the split for an example's query, depending on nothing but the example.

    Inputs of its own demonstrations are taken only where the split has no others.
    """
    demonstrated = {x for x, _ in example.demonstrations}
    inputs = [x for x, _ in task.split(example.split) if x != example.query]
    if len(inputs) < DUMMIES:
        raise UserError(f"task '{task.name}' has too few pairs in its {example.split} split for "
                        "task vectors")
    seed = seed_of("dummy queries", task.name, example.split, example.seed, example.example)
    random.Random(seed).shuffle(inputs)  # noqa: S311
    return tuple(sorted(inputs, key=lambda x: x in demonstrated)[:DUMMIES])


def _others(examples: Sequence[Example], dummies: Sequence[tuple[str, ...]]) -> list[list[int]]:
    """For every example the other ones in whose prompts its query does not occur."""
    inside = [{example.query, *(x for x, _ in example.demonstrations), *inputs}
              for example, inputs in zip(examples, dummies, strict=True)]
    found = [[j for j, inputs in enumerate(inside) if example.query not in inputs]
             for example in examples]
    for example, members in zip(examples, found, strict=True):
        if not members:
            raise UserError(f"every prompt of task '{example.task}' contains the query "
                            f"'{example.query}': ask for more examples or fewer shots")
    return found


def _averaged(streams: Tensor, sources: Sequence[Sequence[int]]) -> Tensor:
    """Task vectors ``[examples, layers, width]`` from streams ``[examples × dummies, …]``."""
    import torch

    own = streams.float().reshape(-1, DUMMIES, *streams.shape[1:]).mean(1)
    return torch.stack([own[list(members)].mean(0) for members in sources]).to(streams.dtype)


def last_streams(loaded: Loaded, prompts: Sequence[Sequence[int]], rows: int = VECTOR_ROWS
                 ) -> Tensor:
    """Residual stream after every layer at the prompts' ends, ``[prompts, layers, width]``."""
    import torch

    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Any) -> None:
        kept.append(_stream(loaded, output)[:, -1].to(loaded.device))

    with ExitStack() as stack:
        for layer in loaded.adapter.layers(loaded.model):
            stack.callback(layer.register_forward_hook(keep).remove)
        found = []
        for start in range(0, len(prompts), rows):
            _generate(loaded, prompts[start : start + rows], 1, ())
            found.append(torch.stack(kept, 1))
            kept.clear()
    return torch.cat(found)


@contextmanager
def written(loaded: Loaded, vectors: Mapping[int, Tensor]) -> Iterator[None]:
    """In the first forward pass within the context, overwrite what layers give the last position.

    ``vectors``: layer → ``[rows, width]``, the rows of that pass.
    """
    waiting = dict(vectors)

    def write(layer: int) -> Any:
        def hook(_: nn.Module, __: object, output: Any) -> Any:
            if layer not in waiting:
                return None
            stream = _stream(loaded, output).clone()
            stream[:, -1] = waiting.pop(layer)
            return (stream, *output[1:]) if loaded.adapter.tuples else stream

        return hook

    blocks = loaded.adapter.layers(loaded.model)
    with ExitStack() as stack:
        for layer in vectors:
            stack.callback(blocks[layer].register_forward_hook(write(layer)).remove)
        yield


def _stream(loaded: Loaded, output: Any) -> Tensor:
    stream: Tensor = output[0] if loaded.adapter.tuples else output
    return stream


def _answers(loaded: Loaded, prompts: Sequence[Sequence[int]], reading: Reading,
             vectors: Mapping[int, Tensor] | None = None) -> tuple[str, ...]:
    """Greedy answers, with ``vectors`` (layer → ``[prompts, width]``) at the prompts' ends."""
    answers: list[list[int]] = []
    for start in range(0, len(prompts), reading.rows):
        some = slice(start, start + reading.rows)
        with written(loaded, {layer: all_[some] for layer, all_ in (vectors or {}).items()}):
            answers += _generate(loaded, prompts[some], reading.max_tokens, reading.stop)
    cut = [list(takewhile(lambda token: token not in reading.stop, ids)) for ids in answers]
    return tuple(loaded.tokenizer.batch_decode(cut, skip_special_tokens=True))


def _generate(loaded: Loaded, prompts: Sequence[Sequence[int]], max_tokens: int,
              stop: Sequence[int]) -> list[list[int]]:
    """Greedy tokens of one batch, padded on the left, so that all prompts end in one column."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import GenerationConfig

    rows = [torch.tensor(prompt) for prompt in prompts]
    ids, mask = (pad_sequence(each, batch_first=True, padding_value=fill, padding_side="left")
                 for each, fill in ((rows, PAD),
                                    ([torch.ones_like(row) for row in rows], 0)))
    context = _context(loaded)
    if ids.shape[1] + max_tokens > context:
        raise UnitError(f"a prompt is too long: {ids.shape[1]} tokens and {max_tokens} to come, "
                        f"in a context of {context}")
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=max_tokens, eos_token_id=list(stop) or None,
        pad_token_id=PAD,
    )
    with torch.inference_mode():
        output: Any = loaded.model.generate(  # type: ignore[operator]
            input_ids=ids.to(loaded.device), attention_mask=mask.to(loaded.device),
            generation_config=config,
        )
    answers: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return answers
