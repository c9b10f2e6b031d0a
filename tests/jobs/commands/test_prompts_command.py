"""``prunelib prompts`` prints what is asked, with a tokenizer and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import opt_data
import pytest
from command_line import call

from prunelib.models import describe
from prunelib.models.loading import load_tokenizer
from prunelib.tasks import draw, get_task

RECIPE = """
name: small
models: [reference/llama]
attribution: {prompts: 5, shots: 2}
search: {examples: 6, shots: 2}
evaluate: {tasks: [antonyms, to_upper], shots: [0, 2], examples: {antonyms: all}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture
def shown(recipe: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*options: str) -> str:
        assert call("prompts", recipe, *options) == 0
        return capsys.readouterr().out

    return run


def test_a_prompt_is_shown_as_it_is_asked(shown: Callable[..., str]) -> None:
    out = shown("--task", "antonyms", "--shots", "3", "--n", "2")
    tokenizer = load_tokenizer(describe("reference/llama"))
    drawn = draw(get_task("antonyms"), split="report", shots=3, seed=0, count=100)
    for example in drawn[:2]:
        assert "<s>" + example.prompt.replace("\n", "↵\n") in out
        tokens = len(tokenizer(example.prompt)["input_ids"])
        answer = " ".join(example.gold)
        assert (f"reference/llama: {tokens} tokens, then {len(example.gold)} of the answer: "
                f"{answer}\n") in out
        assert f"query: {example.query}\ngold answer: {example.gold}\n" in out
    assert "evaluate: antonyms, report split, 3 shots, example 1 (of " in out
    assert drawn[2].prompt.split("\n")[0] not in out


def test_every_section_is_shown_with_its_split_and_shots(shown: Callable[..., str]) -> None:
    heads = [line for line in shown().splitlines() if " split, " in line]
    assert [head.split(", example")[0] for head in heads] == [
        "attribution: vowel_counting, attribute split, 2 shots",
        "search: vowel_counting, search split, 2 shots",
        "evaluate: antonyms, report split, 2 shots",
        "evaluate: to_upper, report split, 2 shots"]
    pool = len({x for x, _ in get_task("antonyms").split("report")})
    assert heads[2].endswith(f"(of {pool})")


@pytest.mark.parametrize(("options", "message"), [
    (["--task", "antonym"], "unknown task of the recipe 'antonym': did you mean antonyms?"),
    (["--model", "reference/lama"],
     "unknown model of the recipe 'reference/lama': did you mean reference/llama?"),
    (["--shots", "11", "--task", "to_upper"], "fewer than shots: 11"),
])
def test_mistakes_are_one_line(recipe: Path, options: list[str], message: str,
                               capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prompts", recipe, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_no_model_and_no_engine_is_loaded(recipe: Path) -> None:
    looked = (
        "import sys\nfrom jobs import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print([name for name in ('vllm', 'ray', 'prunelib.engines.transformers', "
        "'transformers.modeling_utils') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", looked, "prompts", str(recipe)], check=True,
                          capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_choices_of_a_question_are_shown(tmp_path: Path, shown: Callable[..., str], recipe: Path
                                         ) -> None:
    opt_data.write("piqa", tmp_path / "piqa", copies=12)
    recipe.write_text(f"""
name: small
models: [reference/llama]
attribution: {{method: weight, prompts: 2, shots: 1}}
tasks: [{{name: piqa, path: {tmp_path / 'piqa'}}}]
evaluate: {{tasks: [piqa], shots: [0], examples: 3}}
""")
    out = shown("--task", "piqa", "--n", "3")
    assert out.count("right choice: ") == 3 and out.count("wrong choice: ") == 3
