"""Files of pairs as tasks, and that nothing in a file is typed."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from prunelib.errors import UserError
from prunelib.models import ModelInfo, describe
from prunelib.pipeline.driver import model_notes
from prunelib.recipe.load import parse_recipe
from prunelib.tasks import (
    SPLITS,
    DatasetSpec,
    PairsSpec,
    Task,
    build_task,
    draw,
    notes_on,
    pinned,
    stored_task,
)

#: Texts that other readers take for something else.
TEXTS = ("007", "true", "False", "1e5", "+5", "1.10", "2024-01-05", "1_000", "NaN", "null", "NA",
         "-0", "1.0", "0x1F", "12:30", "3\" pipe", "it's", "12345678901234567890", "x\u2028y", "é")
_ROOT = Path(__file__).parent.parent.parent
#: Published files of pairs, which are not part of this project.
SHARED = Path(os.environ.get("PRUNELIB_SHARED_DATA", _ROOT.parent / "shared" / "data"))


def made(path: Path, **fields: Any) -> Task:
    return build_task(PairsSpec(name="mine", pairs=str(path), **fields))


def write(path: Path, pairs: list[tuple[str, str]], shape: str) -> Path:
    """Pairs in a file of one of the shapes in which they come."""
    if shape in ("csv", "tsv"):
        with path.with_suffix(f".{shape}").open("w", newline="", encoding="utf-8") as file:
            if shape == "csv":
                csv.writer(file).writerows([("input", "output"), *pairs])
            else:
                file.writelines(f"{x}\t{y}\n" for x, y in [("input", "output"), *pairs])
        return path.with_suffix(f".{shape}")
    objects = [{"output": y, "input": x} for x, y in pairs]
    text = {
        "mapping": lambda: json.dumps(dict(pairs)),
        "objects": lambda: json.dumps(objects, indent=1),
        "lists": lambda: json.dumps(pairs, ensure_ascii=False),
        "columns": lambda: json.dumps({"input": [x for x, _ in pairs],
                                       "output": [y for _, y in pairs]}),
        "lines": lambda: "\n".join(map(json.dumps, objects)),
        "line lists": lambda: "\r\n".join(map(json.dumps, pairs)),
    }[shape]()
    file = path.with_suffix(".jsonl" if shape.startswith("line ") or shape == "lines" else ".json")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    return file


@pytest.mark.parametrize("shape", ["csv", "tsv", "mapping", "objects", "lists", "columns", "lines",
                                   "line lists"])
def test_texts_reach_a_task_as_they_stand_in_the_file(shape: str, tmp_path: Path) -> None:
    pairs = [(f"{text} in", text) for text in TEXTS] + [(text, f"{text} out") for text in TEXTS]
    task = made(write(tmp_path / "file", pairs, shape))
    assert task.pairs == tuple(pairs)
    example = next(e for e in draw(task, split="report", shots=2, seed=0, count=30)
                   if e.gold == "007" or e.query == "007")
    assert "007" in example.prompt or example.gold == "007"


def test_numbers_and_truth_values_of_json_keep_their_spelling(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    numbers = ["1.10", "1e5", "1E+2", "-0", "0.1000", "7", "123456789012345678901234567890", "true",
               "false"]
    path.write_text("\n".join(f'["n {n}", {n}]' for n in numbers))
    assert made(path).pairs == tuple((f"n {n}", n) for n in numbers)


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl"])
def test_texts_of_a_data_set_are_not_typed_either(ending: str, tmp_path: Path) -> None:
    # More rows than any reader takes at once, and only the last ones are not numbers.
    texts = [str(i) for i in range(30_000)] + [text for text in TEXTS if '"' not in text]
    rows = [{"text": f"{text}!", "label": text} for text in texts]
    path = tmp_path / f"test.{ending}"
    if ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["text", "label"],
                                    delimiter="\t" if ending == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    task = build_task(DatasetSpec(name="mine", path=str(tmp_path), template="{text} {answer}",
                                  splits={"report": "test"}))
    assert [y for _, y in task.pairs] == texts
    assert [x for x, _ in task.pairs] == [f"{text}!" for text in texts]


def test_answers_are_found_by_labels_as_files_write_them(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\na,True\nb,FALSE\nc,1.0\nd,007\n")
    spec = {"name": "mine", "path": str(tmp_path), "template": "{text} {answer}",
            "splits": {"report": "test"}}
    task = build_task(DatasetSpec.model_validate(
        spec | {"answers": {True: "yes", False: "no", "1": "one", "007": "bond"}}))
    assert [y for _, y in task.pairs] == ["yes", "no", "one", "bond"]
    with pytest.raises(UserError, match="row 3: label '007' has no answer"):
        build_task(DatasetSpec.model_validate(
            spec | {"answers": {True: "yes", False: "no", "1": "one", 7: "x"}}))


@pytest.mark.parametrize(
    ("ending", "text", "rows"),
    [
        ("csv", 'a,b\n"one, two",x\n"a ""word""",y\n"two\nlines, here",z\n', 3),
        ("csv", 'a,b\n"open,x\nfour,y\nends",z\n', "line 2: a field begins with a quotation mark"),
        ("csv", 'a,b\n"open,x\nfour,y\n', "line 2: .* written twice"),
        ("csv", 'a,b\n"word" and more,x\n', "line 2: .* written twice"),
        ("csv", 'a,b\n3" pipe,x\n6\'2",y\n', 2),
        ("csv", "a,b\none,x\ntwo\n", "line 3: 1 fields, where the first line has 2"),
        ("tsv", 'a\tb\n3" pipe\tx\n"all of it"\ty\n"to be," he said\tz\n', 3),
        ("tsv", 'a\tb\n"open\tx\nfour\ty\nends"\tz\n', "line 2: a field begins"),
        ("tsv", "a\tb\none\tx\ty\n", "line 2: 3 fields"),
    ],
)
def test_quotes_lose_no_rows(ending: str, text: str, rows: int | str, tmp_path: Path) -> None:
    (tmp_path / f"test.{ending}").write_text(text)
    of_data_set = DatasetSpec(name="mine", path=str(tmp_path), template="{a} {answer}", label="b",
                              splits={"report": "test"})
    of_pairs = PairsSpec(name="mine", pairs=str(tmp_path / f"test.{ending}"))
    for spec in (of_data_set, of_pairs):
        if isinstance(rows, str):
            with pytest.raises(UserError, match=rows) as caught:
                build_task(spec)
            assert "\n" not in str(caught.value)
        else:
            assert len(build_task(spec).pairs) == rows


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    def of(header: str, **fields: Any) -> tuple[tuple[str, str], list[str]]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text(f"{header}\none,two,three\n")
        spec = PairsSpec(name="mine", pairs=str(path), **fields)
        return build_task(spec).pairs[0], [note for note in notes_on(spec) if "column" in note]

    assert of("id,output,input") == (("three", "two"), [])
    assert of("Target,n,SOURCE") == (("three", "one"), [])
    assert of("n,y,x") == (("three", "two"), [])
    assert of("n,answer,query") == (("three", "two"), [])
    assert of("en,fr,es") == (("one", "two"), ["task mine: input is column 'en', output is 'fr'"])
    assert of("en,fr,es", input="es", output="en") == (("three", "one"), [])
    assert of("input,fr,output", output="fr") == (("one", "two"), [])
    assert of("en,fr,output", input="fr") == (("two", "three"), [])
    assert of("en,fr,es", output="en")[0] == ("two", "one")
    with pytest.raises(UserError, match=r"unknown output column .*'fe': did you mean"):
        of("en,fr,es", output="fe")
    with pytest.raises(UserError, match="input and output are one column"):
        of("en,fr,es", input="fr", output="fr")
    with pytest.raises(UserError, match="two columns have one name"):
        of("en,fr,fr")
    plain = tmp_path / "plain.tsv"
    plain.write_text("hot\tcold\nup\tdown\n")
    assert made(plain, header=False).pairs == (("hot", "cold"), ("up", "down"))
    assert made(plain, header=False, input=1, output=0).pairs[0] == ("cold", "hot")
    spec = PairsSpec(name="mine", pairs=str(plain))
    assert notes_on(spec)[1] == "task mine: input is column 'hot', output is 'cold'"


def test_what_is_said_twice_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": "1", "b": "2", "a": "1", "b": "3", "c ": "4"}')
    spec = PairsSpec(name="mine", pairs=str(path))
    assert build_task(spec).pairs == (("a", "1"), ("b", "2"), ("c ", "4"))
    assert notes_on(spec) == [
        "task mine: 5 rows",
        "task mine: 1 pair said again (key 'a'): taken once",
        "task mine: 1 row with an input that has another output above: the first is taken (key "
        "'b': 'b' is '2' above and '3' here)",
        "task mine: 1 pair with blanks around a text: they are kept",
    ]


def test_splits_go_by_the_input_alone(tmp_path: Path) -> None:
    words = [f"word {i}" for i in range(4000)]
    one = made(write(tmp_path / "one", [(w, w.upper()) for w in words], "mapping"))
    other = build_task(PairsSpec(name="other", gold_not_in_prompt=True, pairs=str(
        write(tmp_path / "other", [(w, w[::-1]) for w in reversed(words[:2000])], "csv"))))
    for split, share in zip(SPLITS, (0.25, 0.25, 0.5), strict=True):
        inputs = {x for x, _ in one.split(split)}
        assert abs(len(inputs) / len(words) - share) < 0.03
        assert {x for x, _ in other.split(split)} == inputs & set(words[:2000])


def test_a_proxy_of_pairs_shows_no_gold_answer(tmp_path: Path) -> None:
    pairs = [(f"{i}", "even" if i % 2 == 0 else "odd") for i in range(60)]
    task = made(write(tmp_path / "file", pairs, "lists"), gold_not_in_prompt=True)
    for example in draw(task, split="attribute", shots=3, seed=1, count=20, prompt_format="comma"):
        assert example.gold not in example.answers
        assert example.prompt.endswith(f"{example.query} ->")


RECIPE = """
name: r
models: [reference/llama]
format: example
tasks: [{entry}]
attribution: {{proxy: {proxy}, prompts: 4, shots: 1}}
search: {{proxy: {proxy}, examples: 4, shots: 1}}
evaluate: {{tasks: {tasks}, shots: [1]}}
"""


def recipe(entry: str, proxy: str, tasks: str) -> Any:
    return parse_recipe(RECIPE.format(entry=entry, proxy=proxy, tasks=tasks))


def test_a_recipe_uses_a_file_as_any_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", [(f"in {i}", f"out {i}") for i in range(40)], "csv")
    monkeypatch.chdir(tmp_path)
    made = recipe("{name: mine, pairs: file.csv, gold_not_in_prompt: true}", "mine",
                  "[mine, to_upper]")
    assert made.evaluate.tasks == ("mine", "to_upper")
    there = pinned(made.dataset("mine"))
    digest = made.task("mine").digest
    monkeypatch.chdir("/")
    assert stored_task(there.model_dump_json()).digest == digest
    (tmp_path / "file.csv").write_text("input,output\n" + "".join(
        f"in {i},new {i}\n" for i in range(40)))
    assert stored_task(there.model_dump_json()).pairs[0] == ("in 0", "new 0")


def test_a_folder_is_a_task_a_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for place in ("en-fr", "below/two words", "below/.hidden"):
        write(tmp_path / place, [(f"in {i}", f"out {i}") for i in range(40)], "csv")
    (tmp_path / "README.md").write_text("about")
    made = recipe(f"{{name: all, pairs: {tmp_path}}}".replace("all", "mine"), "mine_en-fr", "mine")
    assert made.evaluate.tasks == ("mine_below_two_words", "mine_en-fr")
    assert [spec.name for spec in made.tasks] == list(made.evaluate.tasks)
    with pytest.raises(UserError, match="'mine': did you mean mine_en-fr"):
        recipe(f"{{name: mine, pairs: {tmp_path}}}", "mine", "mine")
    with pytest.raises(UserError, match="name of a bundled task or suite"):
        recipe(f"{{name: icl18, pairs: {tmp_path}}}", "icl18", "icl18")
    write(tmp_path / "below_two_words", [("a", "b")], "csv")
    with pytest.raises(UserError, match="would both be task 'mine_below_two_words'"):
        recipe(f"{{name: mine, pairs: {tmp_path}}}", "mine_en-fr", "mine")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("{name: mine, pairs: nwe.json}", "unknown file of pairs in '.': 'nwe.json'.*new.json"),
        ("{name: mine, pairs: no/such.json}", "file of pairs 'no/such.json' does not exist"),
        ("{name: mine, pairs: empty.json}", "'empty.json' is empty"),
        ("{name: mine, pairs: empty.csv}", "'empty.csv' is empty"),
        ("{name: mine, pairs: none.json}", "'none.json' is empty"),
        ("{name: mine, pairs: one.csv}", "has one column, 'input': pairs need two"),
        ("{name: mine, pairs: gap.csv}", "line 3: the output is empty"),
        ("{name: mine, pairs: list.json}", "key 'a': the output is a list, not one text"),
        ("{name: mine, pairs: lines.json}", "key 'a': an output is one line of text"),
        ("{name: mine, pairs: text.json}", "are a mapping, a list of objects or a list of lists"),
        ("{name: mine, pairs: three.json}", "row 0: not a pair"),
        ("{name: mine, pairs: broken.jsonl}", "line 2: not JSON"),
        ("{name: mine, pairs: bytes.csv}", "not a text file"),
        ("{name: mine, pairs: notes.txt}", "a file of pairs ends in .json, .jsonl"),
        ("{name: mine, pairs: nothing}", "'nothing' has no files of pairs"),
        ("{name: mine, pairs: new.json, input: x}", "it has no columns"),
        ("{name: mine, pairs: new.json, inputs: x}", "'inputs': did you mean input"),
        ("{name: mine, pair: new.json}", "'pair': did you mean pairs"),
        ("{name: antonyms, pairs: new.json}", "name of a bundled task"),
        ("{pairs: new.json}", "name.*Field required"),
        ("{name: mine, pairs: [new.json]}", "pairs.*valid string"),
        ("{name: mine, pairs: new.json}, {name: mine, pairs: new.json}", "two are called 'mine'"),
        ("{name: mine, pairs: new.json}", "has no pairs in its|for demonstrations"),
    ],
)
def test_what_a_file_lacks_is_one_line(entry: str, reason: str, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "new.json": '{"a": "b"}', "empty.json": " ", "empty.csv": "", "none.json": "{}",
        "one.csv": "input\na\n", "gap.csv": "input,output\na,b\nc,\n", "list.json": '{"a": ["b"]}',
        "lines.json": '{"a": "b\\nc"}', "text.json": '"a"', "three.json": '[["a", "b", "c"]]',
        "broken.jsonl": '["a", "b"]\n["c"', "notes.txt": "a b",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bytes.csv").write_bytes(b"input,output\n\xff\xfe,b\n")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=reason) as caught:
        recipe(entry, "mine", "mine")
    first, *more = str(caught.value).splitlines()
    assert all(line.startswith("recipe: line ") for line in more), first


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published files are not here "
                    "(PRUNELIB_SHARED_DATA or ../shared/data)")
@pytest.mark.parametrize("suite", ["function_vectors", "icl_task_vectors"])
def test_published_files_work_as_they_are(suite: str) -> None:
    made = recipe(f"{{name: they, pairs: {SHARED / suite}}}", "to_upper", "they")
    files = sorted(SHARED.joinpath(suite).rglob("*.json"))
    assert len(made.tasks) == len(files) == {"function_vectors": 12, "icl_task_vectors": 17}[suite]
    for spec in made.tasks:
        content = json.loads(Path(spec.pairs).read_text("utf-8"))
        if isinstance(content, dict):
            assert dict(build_task(spec).pairs).keys() == content.keys()
        else:
            first = {row["input"]: row["output"] for row in reversed(content)}
            assert dict(build_task(spec).pairs) == first


def test_words_that_reference_models_do_not_know_are_told(info: ModelInfo) -> None:
    text = "{{name: r, models: [{model}], evaluate: {{tasks: [{tasks}], shots: [1]}}}}"
    llama = describe("reference/llama")
    for model, tasks, told in ((llama, "icl18", True), (info, "icl18", False),
                               (llama, "icl18_reference, ood", False)):
        notes = model_notes(parse_recipe(text.format(model=model.id, tasks=tasks)), model)
        assert any("knows a part of the words" in note for note in notes) is told
    assert "antonyms_reference" in model_notes(parse_recipe(
        text.format(model="reference/llama", tasks="antonyms")), llama)[0]
