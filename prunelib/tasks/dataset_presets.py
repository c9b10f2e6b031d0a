"""Data sets that a recipe can name: those of the DSM paper (formulas.md §2.2), with our prompts.

Templates have the parts of those that the paper's baselines used, in this project's own words;
a recipe's ``template`` replaces them. Where the hub's test split has no labels (SST-2 of GLUE,
BoolQ), the source or the split is another one, as said below.
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
}  # fmt: skip
