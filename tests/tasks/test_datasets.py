"""Data sets as tasks, on small files in the layouts in which the hub has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import opt_data
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from prunelib.errors import UserError
from prunelib.tasks import KNOWN, DatasetSpec, Task, build_task, draw, get_task, pinned
from prunelib.tasks.dataset_presets import XCOPA_LANGUAGES, XNLI_LANGUAGES

DATA = Path(__file__).parent.parent / "data"
#: Known data sets that have a folder, and that folder.
HERE = {"xnli_en": "xnli", "xnli_sw": "xnli", "mmlu": "mmlu", "sst2": "sst2", "sst5": "sst5",
        "boolq": "boolq", "balanced_copa": "balanced_copa", "xcopa_sw": "xcopa",
        "xcopa_tr": "xcopa"}  # fmt: skip


def spec(name: str, **fields: Any) -> DatasetSpec:
    fields = {"path": str(DATA / HERE.get(name, name))} | fields
    return DatasetSpec.model_validate({"name": name, **fields})


def task(name: str, **fields: Any) -> Task:
    return build_task(spec(name, **fields))


def rows(*parts: str) -> list[dict[str, Any]]:
    """The rows of a file as pyarrow reads it."""
    found: list[dict[str, Any]] = parquet.read_table(DATA.joinpath(*parts)).to_pylist()
    return found


def test_every_data_set_of_the_paper_is_known() -> None:
    assert set(KNOWN) == {
        "mmlu", "sst2", "sst5", "boolq", "balanced_copa", *opt_data.TASKS,
        *(f"xnli_{c}" for c in XNLI_LANGUAGES), *(f"xcopa_{c}" for c in XCOPA_LANGUAGES),
    }  # fmt: skip
    assert (len(XNLI_LANGUAGES), len(XCOPA_LANGUAGES)) == (15, 11)
    for name in KNOWN:
        known = DatasetSpec.model_validate(name)
        assert known.name == name
        assert len(known.options) >= 2 or known.choices or known.scoring == "greedy_match"


@pytest.mark.parametrize("name", HERE)
def test_every_known_layout_loads(name: str) -> None:
    made = task(name)
    assert made.sizes is not None and sum(made.sizes) == len(made.pairs) and made.sizes[2] > 0
    assert {y for _, y in made.pairs} <= set(made.options)
    for example in draw(made, split="report", shots=0, seed=0, count=made.sizes[2]):
        assert example.prompt == example.query and not example.prompt.endswith(" ")
        assert example.lead == " " and "{" not in example.prompt


def test_a_row_becomes_the_prompt_that_the_template_says() -> None:
    assert task("xnli_sw").split("report")[0] == (
        "Read the premise, then say whether the hypothesis is true, false or undecided.\n"
        "Premise: Mwanaume analisha bata kando ya ziwa.\n"
        "Hypothesis: Yeye ni mwalimu mstaafu.\nAnswer:",
        "undecided",
    )
    assert task("mmlu").split("report")[0] == (
        "Which planet is nearest to the sun?\nA: Venus\nB: Mars\nC: Earth\nD: Mercury\n"
        "Give the letter of the right choice.\nAnswer:",
        "D",
    )
    assert dict(task("boolq").split("report")).popitem() == (
        "Passage: The Rhine has some 1,230 kilometres, the Nile more than 6,600.\n\n"
        "Question: is the nile longer than the rhine?\n\n"
        "Answer the question from the passage with yes or no.\nAnswer:",
        "yes",
    )
    assert task("balanced_copa").split("report")[0] == (
        "Situation: He watered the seeds.\nWhich of the two is the more plausible effect?\n"
        "A: They dried up.\nB: They grew.\nAnswer:",
        "B",
    )
    assert task("sst5").split("search")[1] == (
        "Judge the feeling of this text: 'very negative', 'negative', 'neutral', 'positive' or "
        "'very positive'.\n\nsharp , quick and full of life\n\nFeeling:",
        "positive",
    )


def test_splits_are_those_of_the_data_set() -> None:
    made = task("xnli_en")
    for ours, theirs in (("attribute", "train"), ("search", "validation"), ("report", "test")):
        found = rows("xnli", "en", f"{theirs}-00000-of-00001.parquet")
        assert len(made.split(ours)) == len(found)  # type: ignore[arg-type]
        for (prompt, answer), row in zip(made.split(ours), found, strict=True):  # type: ignore[arg-type]
            assert row["hypothesis"] in prompt
            assert answer == ("true", "undecided", "false")[row["label"]]


def test_one_split_of_theirs_is_divided_among_several_of_ours() -> None:
    whole = [*rows("boolq", "data", "train-00000-of-00002.parquet"),
             *rows("boolq", "data", "train-00001-of-00002.parquet")]
    made = task("boolq")
    both = [*made.split("attribute"), *made.split("search")]
    assert len(both) == len(whole) == 4 and len(set(both)) == 4
    # New wording divides the same rows in the same way.
    other = task("boolq", template="{passage} {question}? {answer}")
    for ours in ("attribute", "search"):
        questions = [[r["question"] for r in whole if r["question"] in x]
                     for t in (made, other) for x, _ in t.split(ours)]  # type: ignore[arg-type]
        half = len(questions) // 2
        assert questions[:half] == questions[half:]


def test_demonstrations_are_parted_by_a_blank_line() -> None:
    example = draw(task("sst2", template="{text} => {answer}"), split="report", shots=2, seed=0,
                   count=1, prompt_format="comma")[0]
    (x1, y1), (x2, y2) = example.demonstrations
    assert example.prompt == f"{x1} {y1}\n\n{x2} {y2}\n\n{example.query}"
    assert example.query.endswith(" =>") and example.separator == "\n\n"


def test_the_original_template_can_be_put_in_its_place() -> None:
    made = task("sst2", template="Text: {text}\nIn one word:\n{answer}",
                answers={0: "Negative", 1: "Positive"})
    assert made.format is not None and made.format.lead == ""
    assert made.split("search")[0] == (
        "Text: an hour too long and a joke too short\nIn one word:\n", "Negative")
    assert made.options == ("Negative", "Positive")


def test_labels_without_answers_are_the_answers() -> None:
    made = task("sst5", label="label_text", answers=None)
    assert made.options == () and made.split("search")[0][1] == "negative"


def test_a_template_names_parts_of_a_nested_column(tmp_path: Path) -> None:
    lines = [{"stem": f"question {i}", "key": "B",
              "choices": {"text": [f"no {i}", f"yes {i}"], "label": ["A", "B"]}} for i in range(3)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fields = {"path": str(tmp_path), "splits": {"report": "train"}, "label": "key",
              "answers": {"A": "A", "B": "B"}}
    template = "{stem}\nA: {choices[text][0]}\nB: {choices[text][1]}\nAnswer: {answer}"
    made = task("mine", template=template, **fields)
    assert made.split("report")[2] == ("question 2\nA: no 2\nB: yes 2\nAnswer:", "B")
    lettered = task("mine", template="{stem}\n{choices[text]}\nAnswer: {answer}", **fields)
    assert lettered.split("report") == made.split("report")
    for wrong in ("choices[texts][0]", "choices[text][2]", "choices[text][label]"):
        with pytest.raises(UserError, match="names an element"):
            task("mine", template=f"{{{wrong}}} {{answer}}", **fields)


def test_a_limit_draws_the_same_rows_always() -> None:
    whole, some = task("sst5"), task("sst5", limit={"attribute": 3})
    assert some.sizes == (3, 2, 5)
    assert set(some.split("attribute")) < set(whole.split("attribute"))
    assert some.split("attribute") == task("sst5", limit={"attribute": 3, "search": 1}
                                           ).split("attribute")
    assert task("sst5", limit={"attribute": 100}).pairs == whole.pairs


def test_unlabelled_splits_need_no_labels() -> None:
    made = task("sst2", unlabelled=["attribute"], label="label_text",
                answers={"negative": "bad", "positive": "good"})
    assert {y for _, y in made.split("attribute")} == {""}
    assert not made.labelled("attribute") and made.labelled("search")
    assert draw(made, split="attribute", shots=0, seed=0, count=3)[0].prompt
    with pytest.raises(UserError, match=r"no labels in its attribute split.*shots: 0"):
        draw(made, split="attribute", shots=1, seed=0, count=1)


def test_a_split_can_be_left_out() -> None:
    made = task("sst2", splits={"report": "validation"})
    assert made.sizes == (0, 0, 2)
    with pytest.raises(UserError, match="no pairs in its search split"):
        made.check("search", 0)


def test_fewer_samples_than_asked_for_are_refused() -> None:
    with pytest.raises(UserError, match=r"has 2 samples .* fewer than asked for: 3"):
        draw(task("sst2"), split="search", shots=0, seed=0, count=3)
    assert draw(get_task("to_upper"), split="search", shots=1, seed=0, count=100)[-1].example > 6


def test_the_digest_covers_all_that_a_task_is() -> None:
    variants = [
        task("sst2"),
        task("sst2", template="{text} {answer}"),
        task("sst2", template="{text}{answer}"),
        task("sst2", answers={0: "bad", 1: "good"}),
        task("sst2", limit={"search": 1}),
        task("sst2", unlabelled=["report"]),
        task("sst2", splits={"attribute": "train", "search": "test", "report": "validation"}),
    ]
    assert len({v.digest for v in variants}) == len(variants)
    borders = Task("t", "g", (("a", "b"), ("c", "d")), "", sizes=(1, 0, 1))
    assert borders.digest != Task("t", "g", borders.pairs, "", sizes=(0, 1, 1)).digest
    options = {Task("t", "g", borders.pairs, "", options=o).digest
               for o in ((), ("b", "d"), ("d", "b"))}
    assert len(options) == 3


def test_a_worker_gets_the_same_task_from_the_spec_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)
    here = pinned(spec("sst2", path="sst2"))
    monkeypatch.chdir("/")
    there = DatasetSpec.model_validate(json.loads(json.dumps(here.model_dump(mode="json"))))
    assert there == here and build_task(there).digest == task("sst2").digest
    assert build_task(there) is build_task(here)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{text}", r"ends with \{answer\}"),
        ("{answer}: {text}", r"ends with \{answer\}"),
        ("{answer} {text} {answer}", "has it once"),
        ("{text} {answer!r}", r"ends with \{answer\}"),
        ("{text {answer}", "brace"),
        ("{text.__class__} {answer}", "write a column"),
        ("{text:>10} {answer}", "write a column"),
        ("{} {answer}", "write a column"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_before_any_data(template: str, reason: str
                                                                   ) -> None:
    with pytest.raises(ValueError, match=reason):
        spec("sst2", template=template, path="no/such")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"template": "{txt} {answer}"}, "unknown column .*'txt'.*did you mean text"),
        ({"label": "lable"}, "unknown column .*did you mean label"),
        ({"splits": {"report": "tets"}}, "unknown split .*did you mean test"),
        ({"config": "en"}, "no data files .*en doesn't contain any"),
        ({"answers": {"0": "negative"}}, r"split 'train', row 0: label '1' has no answer"),
        ({"template": "{label[0]} {answer}"}, "names an element"),
        ({"path": "./nowhere"}, "does not exist"),
    ],
)
def test_what_does_not_fit_the_data_is_one_line(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        task("sst2", **fields)
    assert "\n" not in str(caught.value)


def test_names() -> None:
    with pytest.raises(ValueError, match="did you mean xnli_en"):
        DatasetSpec.model_validate("xnli_eng")
    with pytest.raises(ValueError, match="bundled task"):
        spec("vowel_counting", path="x", template="{a} {answer}")
    with pytest.raises(ValidationError, match="extra"):
        spec("sst2", templat="x")
    with pytest.raises(ValueError, match="one line of text"):
        spec("sst2", answers={"0": "two\nlines"})


def test_configurations() -> None:
    with pytest.raises(UserError, match=r"several configurations.*all \| geometry"):
        task("mmlu", config=None)
    with pytest.raises(UserError, match="did you mean geometry"):
        task("mmlu", config="geometri")
    assert task("mmlu", config="geometry", splits={"report": "test"}).sizes == (0, 0, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], str]:
    """A data set of two rows and a card with these ``configs``."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text('text,label\n"one, two",true\nthree,false\n')
    (tmp_path / "data" / "latest.csv").write_text("text,label\nx,true\n")

    def write(configs: str) -> str:
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n# Card\n")
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    "configs",
    [
        "- {config_name: default, data_files: data/a.csv}",
        "- {config_name: default, data_files: [data/a.csv]}",
        "- {config_name: x, data_files: [{split: train, path: ['data/[ab].csv']}]}",
        "- {config_name: y, data_files: data/latest.csv}\n- {config_name: x, default: true, "
        "data_files: data/a.csv}",
    ],
)
def test_cards_say_which_files(configs: str, folder: Callable[[str], str]) -> None:
    made = task("mine", path=folder(configs), template="{text} {answer}",
                splits={"report": "train"}, answers={True: "yes", False: "no"})
    assert made.split("report") == (("one, two", "yes"), ("three", "no"))


def test_words_that_mean_missing_elsewhere_are_words(tmp_path: Path) -> None:
    def made(folder: str, lines: str) -> Task:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.csv").write_text(f"text,label\n{lines}")
        return task("mine", path=str(tmp_path / folder), splits={"report": "train"},
                    template="{text} {answer}", answers={0: "no", 1: "yes"})

    words = made("words", "NA,1\nNone,0\nnull,1\n")
    assert words.split("report") == (("NA", "yes"), ("None", "no"), ("null", "yes"))
    with pytest.raises(UserError, match="row 1: column 'label' is empty"):
        made("gap", "a,1\nb,\n")
    with pytest.raises(UserError, match="'train' is empty"):
        made("nothing", "")


def test_a_card_leads_nowhere_else(folder: Callable[[str], str], tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.csv").write_text("text,label\nx,true\n")
    for place in (f"data_files: ../{elsewhere.name}/train.csv", f"data_dir: {elsewhere}"):
        configs = f"- {{config_name: x, {place}}}"
        with pytest.raises(UserError, match="leads out of its folder"):
            task("mine", path=folder(configs), template="{text} {answer}")
    with pytest.raises(UserError, match="no readable list"):
        task("mine", path=folder("- [1, 2"), template="{text} {answer}")
    with pytest.raises(UserError, match="leads out of its folder"):
        task("sst2", config="../sst5")


def test_a_folder_without_data_or_whose_rows_a_script_makes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no data files") as caught:
        task("mine", path=str(tmp_path), template="{text} {answer}")
    assert "\n" not in str(caught.value)
    (tmp_path / f"{tmp_path.name}.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(UserError, match=r"scripts are no longer .*revision: refs/convert/parquet"):
        task("mine", path=str(tmp_path), template="{text} {answer}")


def test_a_file_that_cannot_be_read_and_a_cell_that_is_empty(tmp_path: Path) -> None:
    shutil.copytree(DATA / "sst2", tmp_path / "sst2")
    (tmp_path / "sst2" / "dev.jsonl").write_text('{"text": "a", "label"')
    with pytest.raises(UserError, match=r"dev\.jsonl, line 1: not JSON"):
        task("sst2", path=str(tmp_path / "sst2"))
    (tmp_path / "sst2" / "dev.jsonl").write_text('{"text": null, "label": 1}\n')
    with pytest.raises(UserError, match="row 0: column 'text' is empty"):
        task("sst2", path=str(tmp_path / "sst2"), template="Text: {text} {answer}")
