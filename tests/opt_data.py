"""Small files in the hub's layout of the 16 data sets of the OPT-66B paper.

The rows were written for these tests; names and types of columns are the hub's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Rows = list[dict[str, Any]]


def _hellaswag(activity: str, first: str, second: str, endings: list[str], label: str
               ) -> dict[str, Any]:
    return {"ind": 4, "activity_label": activity, "ctx_a": first, "ctx_b": second,
            "ctx": f"{first} {second}", "endings": endings, "label": label,
            "source_id": "wikihow~1", "split": "val", "split_type": "indomain"}


def _science(stem: str, question: str, choices: list[str], labels: str, key: str
             ) -> dict[str, Any]:
    return {"id": "x", stem: question, "choices": {"text": choices, "label": list(labels)},
            "answerKey": key}


_HELLASWAG = [
    _hellaswag("Baking bread", "A man stirs flour and water.", "he", [
        "folds the dough.", "paints the oven blue [substeps] and waits.", "swims away.",
        "reads a map of the town."], "0"),
    _hellaswag("Home and Garden", "[header] How to plant a tree [title] Dig a hole. [step] It is "
               "as deep as the pot.", "", [
        "[title] Put the tree in. [step] Fill the hole.", "Sell the hole to a friend.",
        "Drive the pot to work  and back.", "Sing."], "0"),
    _hellaswag("Rowing", "Two women carry a boat.", "the boat", [
        "speaks to them.", "is put into the water.", "melts in the sun before noon.",
        "is taller than a house, and red."], "1"),
    _hellaswag("Chess", "A girl moves a white piece.", "then her rival", [
        "eats the board.", "thinks.", "moves a black piece in return and presses the clock.",
        "runs a mile."], "2"),
]  # fmt: skip
_PIQA = [
    {"goal": "To cool soup quickly,", "sol1": "stir it and set the pot in cold water.",
     "sol2": "put the lid on.", "label": 0},
    {"goal": "How do you open a tight jar?", "sol1": "Shout at it until it opens by itself.",
     "sol2": "Run hot water over its lid.", "label": 1},
    {"goal": "sharpen a pencil", "sol1": "turn it in a sharpener", "sol2": "boil it", "label": 0},
    {"goal": "dry a wet shoe", "sol1": "fill it with snow", "sol2": "stuff it with newspaper",
     "label": 1},
]
_ARC = [
    _science("question", "Which of these is a gas at room temperature?",
             ["iron", "oxygen", "salt", "wood"], "ABCD", "B"),
    _science("question", "What do plants take from the air?",
             ["carbon dioxide", "sand", "light bulbs"], "123", "1"),
    _science("question", "Which planet is the largest?",
             ["Mars", "Venus", "Jupiter", "Earth", "Mercury, which is near the sun"], "ABCDE", "C"),
    _science("question", "Sound travels fastest through", ["air", "steel", "empty space", "water"],
             "1234", "2"),
]
_OPENBOOKQA = [
    _science("question_stem", "A magnet will pull", ["a nail", "a leaf", "a cup of milk", "smoke"],
             "ABCD", "A"),
    _science("question_stem", "Ice that is warmed", ["burns", "becomes water", "sings", "rusts"],
             "ABCD", "B"),
    _science("question_stem", "A fox in winter may have", ["a white coat that hides it", "wings",
                                                           "gills", "roots"], "ABCD", "A"),
    _science("question_stem", "The moon shines because",
             ["it burns", "of a lamp", "stars push it", "it reflects the light of the sun"],
             "ABCD", "D"),
]
_WINOGRANDE = [
    {"sentence": "Ann gave her umbrella to Ruth because _ was getting wet.", "option1": "Ann",
     "option2": "Ruth", "answer": "2"},
    {"sentence": "The book did not fit in the bag, since the _ was too small.", "option1": "book",
     "option2": "bag", "answer": "2"},
    {"sentence": "Tom beat Max at chess although _ had played for years.", "option1": "Tom",
     "option2": "Max", "answer": "2"},
    {"sentence": "The cat chased the mouse until the _ was tired of running after it.",
     "option1": "cat", "option2": "mouse", "answer": "1"},
]
_BOOLQ = [
    {"question": "is the rhine longer than the nile", "passage": "The Nile has 6,600 kilometres, "
     "the Rhine some 1,230.", "idx": 0, "label": 0},
    {"question": "do bees make honey", "passage": "Bees make honey from nectar.", "idx": 1,
     "label": 1},
    {"question": "is glass a metal", "passage": "Glass is made from sand.", "idx": 2, "label": 0},
    {"question": "can penguins swim", "passage": "Penguins swim well, but cannot fly.", "idx": 3,
     "label": 1},
]
_CB = [
    {"premise": "A: I think she left. B: Yes, she did.", "hypothesis": "she left", "idx": 0,
     "label": 0},
    {"premise": "He never said that the shop was open.", "hypothesis": "the shop was closed",
     "idx": 1, "label": 2},
    {"premise": "It is false that snow is warm.", "hypothesis": "snow is warm", "idx": 2,
     "label": 1},
    {"premise": "Mary knows that the train is late.", "hypothesis": "the train is late", "idx": 3,
     "label": 0},
]
_COPA = [
    {"premise": "The glass fell off the table.", "choice1": "It broke.", "choice2": "It grew.",
     "question": "effect", "idx": 0, "label": 0},
    {"premise": "The boy was late for school. ", "choice1": "He likes apples.",
     "choice2": "He missed the bus.", "question": "cause", "idx": 1, "label": 1},
    {"premise": "My plants dried up.", "choice1": "I had not watered them for weeks.",
     "choice2": "I watered them.", "question": "cause", "idx": 2, "label": 0},
    {"premise": "She pressed the switch.", "choice1": "The road ended.",
     "choice2": "The lamp went on.", "question": "effect", "idx": 3, "label": 1},
]
_MULTIRC = [
    {"paragraph": "Lena bought bread and cheese. She forgot the milk.", "question":
     "What did Lena buy?", "answer": answer, "idx": {"paragraph": 0, "question": 0, "answer": i},
     "label": label}
    for i, (answer, label) in enumerate([("Bread", 1), ("Milk", 0), ("Cheese and bread", 1)])
] + [
    {"paragraph": "The mayor of the town opened a bridge.", "question": "Who opened it?",
     "answer": answer, "idx": {"paragraph": 1, "question": 1, "answer": i}, "label": label}
    for i, (answer, label) in enumerate([("The mayor", 1), ("A child", 0)])
]
_RECORD = [
    {"passage": "Peru beat Chile on Friday in Lima.\n@highlight\nPeru scored twice\n@highlight\n"
     "Chile lost in Lima", "query": "The coach of @placeholder was proud of the two goals.",
     "entities": ["Peru", "Chile", "Lima", "Peru"],
     "entity_spans": {"text": ["Peru"], "start": [0], "end": [4]}, "answers": ["Peru"],
     "idx": {"passage": 0, "query": 0}},
    {"passage": "Dr. Smith and Smith's sister met Jones in Oslo.", "query":
     "@placeholder came with a sister, as the papers say.",
     "entities": ["Jones", "Smith", "Dr. Smith", "Oslo"],
     "entity_spans": {"text": ["Smith"], "start": [4], "end": [9]},
     "answers": ["Smith", "Dr. Smith", "the Smith"], "idx": {"passage": 1, "query": 0}},
    {"passage": "A storm hit Cuba, then Haiti.\n@highlight\nHaiti had no power for days",
     "query": "In @placeholder lamps stayed dark.", "entities": ["Cuba", "Haiti"],
     "entity_spans": {"text": ["Haiti"], "start": [23], "end": [28]}, "answers": ["Haiti"],
     "idx": {"passage": 2, "query": 0}},
]
_RTE = [
    {"premise": "Oslo is the capital of Norway.", "hypothesis": "Norway has a capital.", "idx": 0,
     "label": 0},
    {"premise": "Ten people came.", "hypothesis": "Nobody came.", "idx": 1, "label": 1},
    {"premise": "The firm sold its ships in 1990.", "hypothesis": "The firm had ships.", "idx": 2,
     "label": 0},
    {"premise": "He plays the flute.", "hypothesis": "He plays the drum.", "idx": 3, "label": 1},
]
_WIC = [
    {"word": "bank", "sentence1": "She sat on the bank of the river.", "sentence2":
     "The bank lent him money.", "start1": 15, "start2": 4, "end1": 19, "end2": 8, "idx": 0,
     "label": 0},
    {"word": "light", "sentence1": "Light fills the room.", "sentence2":
     "The light of the lamp is weak.", "start1": 0, "start2": 4, "end1": 5, "end2": 9, "idx": 1,
     "label": 1},
    {"word": "run", "sentence1": "They run a shop.", "sentence2": "Who runs this inn?",
     "start1": 5, "start2": 4, "end1": 8, "end2": 8, "idx": 2, "label": 1},
    {"word": "match", "sentence1": "He lit a match.", "sentence2": "We won the match.",
     "start1": 9, "start2": 11, "end1": 14, "end2": 16, "idx": 3, "label": 0},
]
_WSC = [
    {"text": "Paul called George , but he was n't at home .", "span1_index": 2, "span2_index": 5,
     "span1_text": "George", "span2_text": "he", "idx": 0, "label": 1},
    {"text": 'Ann told Sue ( who laughed ) that she had won a " prize " .', "span1_index": 2,
     "span2_index": 8, "span1_text": "Sue", "span2_text": "she", "idx": 1, "label": 0},
    {"text": "The trophy does not fit in the case because it is too big.", "span1_index": 6,
     "span2_index": 9, "span1_text": "the case", "span2_text": "it", "idx": 2, "label": 0},
    {"text": "Jane thanked Eva because she had helped her.", "span1_index": 2, "span2_index": 4,
     "span1_text": "Eva", "span2_text": "she", "idx": 3, "label": 1},
]
_LAMBADA = [
    {"text": "The nurse took his arm and looked for a vein. This will hurt a bit, said the nurse"},
    {"text": "We sat by the sea all day. At night we could still hear the sea"},
    {"text": "Nobody had seen the key. Then the child pulled from its pocket the\nlost key"},
    {"text": "A bell rang twice, and she ran to open the door"},
]
_MATHQA = [
    {"Problem": "a train goes 60 km in an hour . how far does it go in 3 hours ?",
     "Rationale": "60 * 3", "options": "a ) 20 km , b ) 63 km , c ) 180 km , d ) 57 , e ) none",
     "correct": "c", "annotated_formula": "multiply(60, 3)", "linear_formula": "x",
     "category": "physics"},
    {"Problem": "what is half of 18 ?", "Rationale": "18 / 2",
     "options": "a ) 9 , b ) 1 , 000 , c ) 8 , d ) 36 , e ) 18", "correct": "a",
     "annotated_formula": "divide(18, 2)", "linear_formula": "x", "category": "general"},
    {"Problem": "if x + 2 = 7 , x is", "Rationale": "7 - 2",
     "options": "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5", "correct": "e",
     "annotated_formula": "subtract(7, 2)", "linear_formula": "x", "category": "general"},
]

#: Name of ours → (path of the harness's task, split that it is evaluated on, folder of the files,
#: how a file is called, rows).
TASKS: dict[str, tuple[str, str, str, str, Rows]] = {
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation", "data", "{}-00000-of-00001",
                  _HELLASWAG),
    "piqa": ("piqa/piqa.yaml", "validation", "plain_text/{}", "0000", _PIQA),
    "arc_easy": ("arc/arc_easy.yaml", "test", "ARC-Easy", "{}-00000-of-00001", _ARC),
    "arc_challenge": ("arc/arc_challenge.yaml", "test", "ARC-Challenge", "{}-00000-of-00001",
                      _ARC[::-1]),
    "openbookqa": ("openbookqa/openbookqa.yaml", "test", "main", "{}-00000-of-00001", _OPENBOOKQA),
    "winogrande": ("winogrande/default.yaml", "validation", "winogrande_xl/{}", "0000",
                   _WINOGRANDE),
    **{f"superglue_{name}": (f"super_glue/{name}/default.yaml", "validation", folder,
                             "{}-00000-of-00001", rows)
       for name, folder, rows in (
           ("boolq", "boolq", _BOOLQ), ("cb", "cb", _CB), ("copa", "copa", _COPA),
           ("multirc", "multirc", _MULTIRC), ("record", "record", _RECORD), ("rte", "rte", _RTE),
           ("wic", "wic", _WIC), ("wsc", "wsc.fixed", _WSC))},
    "lambada": ("lambada/lambada_openai.yaml", "test", "default", "{}-00000-of-00001", _LAMBADA),
    "mathqa": ("mathqa/mathqa.yaml", "test", "default/{}", "0000", _MATHQA),
}  # fmt: skip


#: A column of each in which copies of a row may differ.
_VARIED = {"hellaswag": "ctx_a", "piqa": "goal", "arc_easy": "question",
           "arc_challenge": "question", "openbookqa": "question_stem", "winogrande": "sentence",
           "superglue_boolq": "passage", "superglue_multirc": "paragraph",
           "superglue_record": "passage", "superglue_wic": "sentence2", "superglue_wsc": "text",
           "lambada": "text", "mathqa": "Problem"}  # fmt: skip


def write(name: str, root: Path, copies: int = 1) -> dict[str, str]:
    """The files of a data set in the hub's layout below ``root``; split → file.

    Copies of a row beyond the first one differ in a few words.
    """
    _, evaluated, folder, file, rows = TASKS[name]
    column = _VARIED.get(name, "premise")
    after = "{} Case {}." if name == "superglue_wsc" else "Case {1}. {0}"
    rows = rows + [row | {column: after.format(row[column], i)}
                   for i in range(1, copies) for row in rows]
    files = {}
    for split in ("train", "validation", "test"):
        if name == "lambada" and split != evaluated:
            continue
        path = root / folder.format(split) / f"{file.format(split)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows), path)
        files[split] = str(path)
    return files
