"""Small tasks of lm-evaluation-harness on local data: one of every type of request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

FACTS = [("the cat", "sleeps on the mat", "runs away"), ("two and two", "are four", "are five"),
         ("a red", "apple", "sky is green"), ("the sun", "is hot", "is cold and dark at noon"),
         ("one day", "it rained", "nothing"), ("to be", "or not to be", "is seven"),
         ("water", "is wet", "burns"), ("birds", "fly over the house", "read")]

#: Task → what its YAML says beside its data; blanks and empty contexts stand where they matter.
TASKS: dict[str, dict[str, Any]] = {
    "local_choice": {
        "output_type": "multiple_choice", "doc_to_text": "Q: {{start}}\nA:",
        "doc_to_choice": "choices", "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "metadata": {"version": 1.0}},
    "local_blank": {  # the prompt ends with a blank
        "output_type": "multiple_choice", "doc_to_text": "{{start}} ", "target_delimiter": "",
        "doc_to_choice": "choices", "doc_to_target": "label", "metric_list": [{"metric": "acc"}]},
    "local_start": {  # nothing comes before the choices
        "output_type": "multiple_choice", "doc_to_text": "", "target_delimiter": "",
        "doc_to_choice": "choices", "doc_to_target": "label", "metric_list": [{"metric": "acc"}]},
    "local_likely": {
        "output_type": "loglikelihood", "doc_to_text": "{{start}}",
        "doc_to_target": " {{choices[0]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}]},
    "local_rolling": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in (
            "word_perplexity", "byte_perplexity", "bits_per_byte")]},
    "local_writing": {
        "output_type": "generate_until", "doc_to_text": "{{start}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["e", "\n\n"], "max_gen_toks": 12},
        "filter_list": [
            {"name": "as_is", "filter": [{"function": "take_first"}]},
            {"name": "letters", "filter": [
                {"function": "regex", "regex_pattern": "([a-z]+)"}, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}, {"metric": "bleu"}]},
}


def write_tasks(folder: Path, long: int = 0) -> str:
    """Write the tasks and their data; the texts of ``local_rolling`` have so many words more."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"start": start, "choices": [right, wrong][:: 1 - 2 * (i % 2)], "label": i % 2,
             "text": f"{start} {right}, " * (1 + i) + "and so on " * long}
            for i, (start, right, wrong) in enumerate(FACTS)]
    for split, some in (("test", rows[:5]), ("train", rows[5:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, some)))
    data = {split: str(folder / f"{split}.jsonl") for split in ("test", "train")}
    for name, config in TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": data},
            "test_split": "test", "training_split": "train"} | config))
    return str(folder)
