"""Tasks, their splits and their prompts."""

from prunelib.tasks.base import SPLITS, Pair, Split, Task
from prunelib.tasks.bundled import ICL18, SUITES, TASKS, count_vowels, get_task, task_names
from prunelib.tasks.prompts import FORMATS, MAX_SHOTS, Example, FormatName, PromptFormat, draw

__all__ = [
    "FORMATS", "ICL18", "MAX_SHOTS", "SPLITS", "SUITES", "TASKS", "Example", "FormatName",
    "Pair", "PromptFormat", "Split", "Task", "count_vowels", "draw", "get_task", "task_names",
]  # fmt: skip
