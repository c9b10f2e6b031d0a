"""Tasks, their splits and their prompts."""

from prunelib.tasks.base import SPLITS, Pair, PromptFormat, Task
from prunelib.tasks.chat import CHAT, ChatFormat
from prunelib.tasks.choices import (
    CHOICE_SCORINGS,
    Choice,
    Choices,
    ChoiceScoring,
    own_scoring,
)
from prunelib.tasks.dataset_files import resolve_revision
from prunelib.tasks.dataset_presets import KNOWN
from prunelib.tasks.datasets import DatasetSpec
from prunelib.tasks.label_words import LABELS, draw_labelled, orders, relabelled
from prunelib.tasks.pairs import PairsSpec
from prunelib.tasks.prompts import (
    FORMATS,
    MAX_SHOTS,
    Example,
    FormatName,
    Written,
    draw,
    format_of,
    numbers,
)
from prunelib.tasks.registry import MIXED, SUITES, TASKS, get_task, task_names
from prunelib.tasks.right_answers import is_right
from prunelib.tasks.sources.base import count_vowels
from prunelib.tasks.sources.benchmark import ICL18
from prunelib.tasks.specs import (
    TaskSpec,
    build_task,
    notes_on,
    pinned,
    stored_task,
    with_folders,
)
from prunelib.tasks.texts import prose, text_file
from prunelib.vocabulary import Split

__all__ = [
    "CHAT", "CHOICE_SCORINGS", "FORMATS", "ICL18", "KNOWN", "LABELS", "MAX_SHOTS", "MIXED",
    "SPLITS", "SUITES", "TASKS", "ChatFormat", "Choice", "ChoiceScoring", "Choices", "DatasetSpec",
    "Example", "FormatName", "Pair", "PairsSpec", "PromptFormat", "Split", "Task", "TaskSpec",
    "Written", "build_task", "count_vowels", "draw", "draw_labelled", "format_of", "get_task",
    "is_right", "notes_on", "numbers", "orders", "own_scoring", "pinned", "prose", "relabelled",
    "resolve_revision", "stored_task", "task_names", "text_file", "with_folders",
]  # fmt: skip
