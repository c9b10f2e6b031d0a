"""Tasks of lm-evaluation-harness: loaded by the harness itself, and named by their content."""

from __future__ import annotations

import functools
import io
import itertools
import json
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunelib.errors import UserError, one_line
from prunelib.identity import digest
from prunelib.tasks.lm_eval_catalogue import catalogue, leaves, version

#: Keys of a task's configuration that say where it and its data are, whose content is digested
#: instead, or what is asked for with it.
_PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata", "num_fewshot")
#: Documents that are looked at to see how long requests are.
_LOOKED = 20
#: Seeds of the harness's own command line, for tasks that draw their documents.
_SEEDS = (0, 1234)


@dataclass(frozen=True)
class AskingOptions:
    """How a task is asked, beyond its own configuration.

    Attributes:
        shots: demonstrations.
        seed: by which they are drawn.
        examples: the first so many documents; ``None`` for all.
        chat: whether the model's chat template writes the prompts.
        multiturn: with ``chat``, whether each demonstration is a turn of its own.
        system: the system prompt.
    """

    shots: int
    seed: int
    examples: int | None
    chat: bool
    multiturn: bool
    system: str | None


@functools.lru_cache(maxsize=4)
def load_task(name: str, folders: tuple[str, ...] = ()) -> Any:
    """A task of the harness with its data, of a name that stands for one task.

    Raises :class:`UserError` if it cannot be had: its data is not on this machine and cannot be
    downloaded, its package is missing, or it asks for what is not done here.
    """
    if leaves(name, folders) != [name]:
        raise UserError(f"'{name}' of lm-evaluation-harness stands for several tasks")
    from lm_eval.tasks import TaskManager

    before = random.getstate(), np.random.get_state()
    random.seed(_SEEDS[0])
    np.random.seed(_SEEDS[1])
    try:
        with quiet():
            manager = TaskManager(include_defaults=False)
            task: Any = manager.load(str(catalogue(folders)[name].path))["tasks"][name]
            task.eval_docs  # noqa: B018 - it may be made when it is first asked for
    except Exception as error:  # of any kind: files, downloads and Python code of the task
        raise UserError(f"task '{name}' of lm-evaluation-harness cannot be loaded: "
                        f"{type(error).__name__}: {one_line(error)}") from error
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    for flag, what in (("UNSAFE_CODE", "runs code that models write"),
                       ("MULTIMODAL", "asks about pictures or sound")):
        if getattr(task, flag, False):
            raise UserError(f"task '{name}' of lm-evaluation-harness {what}, which is not done "
                            "here")
    return task


@dataclass(frozen=True)
class TaskFacts:
    """What must be known of a task before it is asked.

    Attributes:
        digest: of what it asks: its configuration, the Python files beside it, the documents that
            are asked about and, with shots, those that demonstrations come from, and the versions
            of task and harness.
        requests: ``multiple_choice``, ``loglikelihood``, ``loglikelihood_rolling`` or
            ``generate_until``.
        shots: demonstrations, by the harness's rule: a task that says 0 has none, whatever is
            asked for.
        examples: documents that are asked about.
    """

    digest: str
    requests: str
    shots: int
    examples: int


@functools.cache
def facts(name: str, folders: tuple[str, ...], shots: int | None, examples: int | None
          ) -> TaskFacts:
    """Facts of a task that is asked with ``shots`` (or its own), about the first ``examples``.

    Raises :class:`UserError` as :func:`load_task`.
    """
    task = load_task(name, folders)
    own: int | None = task.config.num_fewshot
    shown = own or 0 if shots is None or own == 0 else shots
    config = {key: value for key, value in task.dump_config().items()
              if key not in _PLACES}
    path = catalogue(folders)[name].path
    code = [file.read_text("utf-8") for file in sorted(path.parent.glob("*.py"))] if path else []
    docs = list(itertools.islice(task.eval_docs, examples))
    content = json.dumps([config, code, docs, list(task.fewshot_docs()) if shown else []],
                         sort_keys=True, default=_plain)
    return TaskFacts(digest("lm_eval task", [version(), task.VERSION, content]),
                     str(task.OUTPUT_TYPE), shown, len(docs))


def build_requests(task: Any, options: AskingOptions,
                   chat_template: Callable[..., str] | None = None) -> list[Any]:
    """What a task asks of a model, in the order of its documents: the harness's instances.

    ``chat_template`` writes the prompts where the options ask for a chat.
    """
    own = task.config.num_fewshot
    task.set_config("num_fewshot", options.shots)
    task.set_fewshot_seed(options.seed)
    with quiet():
        task.build_all_requests(
            limit=options.examples, system_instruction=options.system,
            apply_chat_template=options.chat, fewshot_as_multiturn=options.multiturn,
            chat_template=chat_template if options.chat else None)
    task.set_config("num_fewshot", own)  # the same task may be asked in other ways
    return list(task.instances)


@functools.cache
def first_requests(name: str, folders: tuple[str, ...], shots: int) -> list[list[str]]:
    """Texts of the requests of a task's first documents, document by document."""
    options = AskingOptions(shots, 0, _LOOKED, chat=False, multiturn=False, system=None)
    found: dict[int, list[str]] = {}
    for request in build_requests(load_task(name, folders), options):
        texts = [part for part in request.args if isinstance(part, str)]
        found.setdefault(request.doc_id, []).append("".join(texts))
    return list(found.values())


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and lines that the harness writes while it prepares tasks."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stderr(io.StringIO()):
        yield


def _plain(value: Any) -> Any:
    """What JSON has no form for: numbers of numpy and the like by their value, others by type."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    text = str(value)
    return [type(value).__name__, "" if " at 0x" in text else text]
