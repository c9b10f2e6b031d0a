"""Data sets that a recipe can name: those of the DSM paper and those of the OPT-66B paper.

Templates of the DSM paper's (formulas.md §2.2) have the parts of those that the paper's baselines
used, in this project's own words; a recipe's ``template`` replaces them. Where the hub's test
split has no labels (SST-2 of GLUE, BoolQ), the source or the split is another one, as said below.

Those of the OPT-66B paper (§3) are asked as in lm-evaluation-harness (0.4.13): prompts, choices and
what is compared are the same, so that log-likelihoods are.
"""

from __future__ import annotations

from typing import Any

XNLI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur",
                  "vi", "zh")  # fmt: skip
XCOPA_LANGUAGES = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")

_NLI = ("Read the premise, then say whether the hypothesis is true, false or undecided.\n"
        "Premise: {premise}\nHypothesis: {hypothesis}\nAnswer: {answer}")
_NLI_ANSWERS = {"0": "true", "1": "undecided", "2": "false"}
_COPA = ("Situation: {premise}\nWhich of the two is the more plausible {question}?\n"
         "A: {choice1}\nB: {choice2}\nAnswer: {answer}")
_MMLU = ("{question}\nA: {choices[0]}\nB: {choices[1]}\nC: {choices[2]}\nD: {choices[3]}\n"
         "Give the letter of the right choice.\nAnswer: {answer}")
_SENTIMENT = "Judge the feeling of this text: {words}.\n\n{{text}}\n\nFeeling: {{answer}}"
_SST2 = {"0": "negative", "1": "positive"}
_SST5 = {"0": "very negative", "1": "negative", "2": "neutral", "3": "positive",
         "4": "very positive"}
#: Of hundreds of thousands of training rows, as many as the paper's baselines took or so.
_SOME = {"attribute": 2000}
_BOOLQ = ("Passage: {passage}\n\nQuestion: {question}?\n\n"
          "Answer the question from the passage with yes or no.\nAnswer: {answer}")


def _sentiment(path: str, answers: dict[str, str]) -> dict[str, Any]:
    words = [f"'{answer}'" for answer in answers.values()]
    template = _SENTIMENT.format(words=f"{', '.join(words[:-1])} or {words[-1]}")
    return {"path": path, "template": template, "answers": answers}


#: Of data sets whose test split has no labels.
_VALIDATED = {"attribute": "train", "search": "train", "report": "validation"}
#: Of tens of thousands of rows.
_FEW = {"attribute": 2000, "search": 2000}


def _super_glue(config: str, template: str, **fields: Any) -> dict[str, Any]:
    return {"path": "aps/super_glue", "config": config, "splits": _VALIDATED,
            "template": template, **fields}


def _arc(config: str) -> dict[str, Any]:
    return {"path": "allenai/ai2_arc", "config": config, "label": "answerKey",
            "template": "Question: {question}\nAnswer: {answer}", "choices": "choices[text]",
            "choice_labels": "choices[label]", "scoring": "likelihood_per_character"}


_OPT: dict[str, dict[str, Any]] = {
    "hellaswag": {"path": "Rowan/hellaswag", "splits": _VALIDATED, "limit": _FEW,
                  "prepare": "hellaswag", "template": "{context} {answer}",
                  "choices": "continuations", "scoring": "likelihood_per_character"},
    "piqa": {"path": "ybisk/piqa", "config": "plain_text", "revision": "refs/convert/parquet",
             "splits": _VALIDATED, "limit": _FEW,
             "template": "Question: {goal}\nAnswer: {answer}", "choices": ["{sol1}", "{sol2}"],
             "scoring": "likelihood_per_character"},
    "arc_easy": _arc("ARC-Easy"),
    "arc_challenge": _arc("ARC-Challenge"),
    "openbookqa": {"path": "allenai/openbookqa", "config": "main", "label": "answerKey",
                   "limit": _SOME, "template": "{question_stem} {answer}",
                   "choices": "choices[text]", "choice_labels": "choices[label]",
                   "scoring": "likelihood_per_character"},
    # The options stand in the prompt, and what follows the gap is compared.
    "winogrande": {"path": "allenai/winogrande", "config": "winogrande_xl",
                   "revision": "refs/convert/parquet", "splits": _VALIDATED, "limit": _FEW,
                   "prepare": "winogrande", "template": "{before}{choice} {answer}",
                   "continuation": "{after}", "choices": ["{option1}", "{option2}"],
                   "label": "answer", "choice_labels": ["1", "2"]},
    "superglue_boolq": _super_glue(
        "boolq", "{passage}\nQuestion: {question}?\nAnswer: {answer}", choices=["no", "yes"],
        limit=_FEW),
    "superglue_cb": _super_glue(
        "cb", "{premise}\nQuestion: {hypothesis}. True, False, or Neither?\nAnswer: {answer}",
        choices=["True", "False", "Neither"]),
    # Two blanks before the answer, as in the harness.
    "superglue_copa": _super_glue("copa", "{context}  {answer}", prepare="copa",
                                  choices="continuations"),
    # Each answer to a question is judged alone.
    "superglue_multirc": _super_glue(
        "multirc", "{paragraph}\nQuestion: {question}\nAnswer: {answer}", prepare="multirc",
        choices=["{proposed}\nIs the answer correct? yes", "{proposed}\nIs the answer correct? no"],
        choice_labels=["1", "0"], limit=_FEW),
    # Every entity of the article in the query's gap; all that are among the answers are right.
    "superglue_record": _super_glue("record", "{article} {answer}", prepare="record",
                                    choices="continuations", label="right", limit=_FEW),
    "superglue_rte": _super_glue(
        "rte", "{premise}\nQuestion: {hypothesis} True or False?\nAnswer: {answer}",
        choices=["True", "False"]),
    "superglue_wic": _super_glue(
        "wic", "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Is the word "
        "'{marked}' used in the same way in the two sentences above?\nAnswer: {answer}",
        prepare="wic", choices=["no", "yes"]),
    "superglue_wsc": _super_glue(
        "wsc.fixed", "Passage: {passage}\nQuestion: In the passage above, does the pronoun "
        '"*{span2_text}*" refer to "*{span1_text}*"?\nAnswer: {answer}', prepare="wsc",
        choices=["no", "yes"]),
    # One split, which is divided among ours.
    "lambada": {"path": "EleutherAI/lambada_openai", "config": "default",
                "splits": {"attribute": "test", "search": "test", "report": "test"},
                "prepare": "lambada", "template": "{passage} {answer}", "label": "last_word",
                "scoring": "greedy_match"},
    "mathqa": {"path": "allenai/math_qa", "config": "default", "revision": "refs/convert/parquet",
               "limit": _FEW, "prepare": "mathqa",
               "template": "Question: {Problem}\nAnswer: {answer}", "choices": "continuations",
               "label": "correct", "choice_labels": ["a", "b", "c", "d", "e"],
               "scoring": "likelihood_per_character"},
}  # fmt: skip

#: Name → fields of a :class:`~prunelib.tasks.datasets.DatasetSpec`.
KNOWN: dict[str, dict[str, Any]] = {
    **{f"xnli_{language}": {"path": "facebook/xnli", "config": language, "template": _NLI,
                            "answers": _NLI_ANSWERS, "limit": _SOME}
       for language in XNLI_LANGUAGES},
    "mmlu": {"path": "cais/mmlu", "config": "all", "template": _MMLU, "label": "answer",
             "answers": dict(zip("0123", "ABCD", strict=True)),
             "splits": {"attribute": "auxiliary_train", "search": "validation",
                        "report": "test"},
             "limit": _SOME},
    # With labels in its test split, which GLUE's copy does not have.
    "sst2": _sentiment("SetFit/sst2", _SST2),
    "sst5": _sentiment("SetFit/sst5", _SST5),
    # The public part has no test split.
    "boolq": {"path": "google/boolq", "template": _BOOLQ, "label": "answer",
              "answers": {"true": "yes", "false": "no"},
              "splits": {"attribute": "train", "search": "train", "report": "validation"}},
    "balanced_copa": {"path": "pkavumba/balanced-copa", "template": _COPA,
                      "answers": {"0": "A", "1": "B"},
                      "splits": {"attribute": "train", "search": "train", "report": "test"}},
    **{f"xcopa_{language}": {"path": "cambridgeltl/xcopa", "config": language, "template": _COPA,
                             "answers": {"0": "A", "1": "B"},
                             "splits": {"attribute": "validation", "search": "validation",
                                        "report": "test"}}
       for language in XCOPA_LANGUAGES},
    **_OPT,
}  # fmt: skip
