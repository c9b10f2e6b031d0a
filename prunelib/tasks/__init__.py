"""Tasks, their splits and their prompts."""

from prunelib.tasks.base import SPLITS, Pair, PromptFormat, Split, Task
from prunelib.tasks.dataset_files import resolve_revision
from prunelib.tasks.dataset_presets import KNOWN
from prunelib.tasks.datasets import DatasetSpec, build_task, pinned
from prunelib.tasks.label_words import LABELS, draw_labelled, orders, relabelled
from prunelib.tasks.prompts import FORMATS, MAX_SHOTS, Example, FormatName, draw
from prunelib.tasks.registry import SUITES, TASKS, get_task, task_names
from prunelib.tasks.sources.base import count_vowels
from prunelib.tasks.sources.benchmark import ICL18
from prunelib.tasks.texts import prose, text_file

__all__ = [
    "FORMATS", "ICL18", "KNOWN", "LABELS", "MAX_SHOTS", "SPLITS", "SUITES", "TASKS",
    "DatasetSpec", "Example", "FormatName", "Pair", "PromptFormat", "Split", "Task", "build_task",
    "count_vowels", "draw", "draw_labelled", "get_task", "orders", "pinned", "prose",
    "relabelled", "resolve_revision", "task_names", "text_file",
]  # fmt: skip
