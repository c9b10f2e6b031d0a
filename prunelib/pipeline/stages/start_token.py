"""Whether a model was trained with a start token that its tokenizer leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from prunelib.models import ModelInfo
from prunelib.models.loading import load_tokenizer
from prunelib.pipeline.units.model_run import ModelRun
from prunelib.pipeline.units.steps import Step, offers
from prunelib.pipeline.units.unit import Job, Row, Unit, Workplace
from prunelib.tasks.tokenization import omitted_start
from prunelib.vocabulary import Stage

#: Nats a token by which plain text must be more probable with a start token for it to be told.
_TOLD = 0.5
_TEXTS = (
    "The market opens at seven in the morning. Farmers from the villages bring fruit, cheese and "
    "bread, and by noon most of it is sold. On Saturdays there is music in front of the town hall.",
    "A bridge was built across the river in 1874. It was made of iron, and people came from far "
    "away to see it. After the flood of 1910 two of its five arches had to be replaced.",
    "If you want to grow tomatoes, put the seeds into small pots in early spring and keep them "
    "warm. Water them a little every day. When the nights are no longer cold, plant them outside.",
)


@dataclass(frozen=True)
class StartTokenJob(Job):
    """Likelihood of plain texts with the start token in front and without it."""

    kind: ClassVar[str] = "start_token"
    stage: ClassVar[Stage] = "start"
    table: ClassVar[str] = "start_tokens"

    token_id: int

    def describe(self) -> str:
        return "start token"

    def run(self, worker: Workplace, unit: Unit) -> list[Row]:
        import torch

        loaded = worker.loaded(unit.model, self.dtype)
        tokenizer: Any = loaded.tokenizer
        found = {True: 0.0, False: 0.0}
        count = 0
        for text in _TEXTS:
            ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
            count += len(ids) - 1  # without a start nothing is known of the first one
            for start in found:
                read = torch.tensor([[self.token_id] * start + ids], device=loaded.device)
                with torch.inference_mode():
                    logits = loaded.model(input_ids=read, use_cache=False).logits[0, :-1].float()
                logprobs = logits.log_softmax(-1).gather(1, read[0, 1:, None])
                found[start] += float(logprobs[-(len(ids) - 1):].sum())
        return [{"model": unit.model.id, "token_id": self.token_id,
                 "token": str(tokenizer.convert_ids_to_tokens(self.token_id)), "tokens": count,
                 "with_start": found[True] / count, "without_start": found[False] / count,
                 "unit_id": unit.id}]


def asked_start(info: ModelInfo) -> int | None:
    """The start token that is asked about: one that the tokenizer leaves out, by itself."""
    return omitted_start(load_tokenizer(info)) if info.bos == "auto" else None


def start_token_tokens() -> float:
    """About how many tokens are read for it."""
    return 2 * sum(map(len, _TEXTS)) / 4


def check_start(run: ModelRun) -> Step[None]:
    """Ask a model, and note it where plain text speaks for the token that is left out."""
    token = asked_start(run.info)
    if token is None:
        return
    unit = run.unit(StartTokenJob(run.spec.dtype, token))
    yield offers([unit])
    if not run.store.has("start_tokens", unit.id):  # it failed, which is told elsewhere
        return
    (row,) = run.store.read("start_tokens", [unit.id]).to_pylist()
    if (gain := row["with_start"] - row["without_start"]) > _TOLD:
        run.notes.append(
            f"{run.info.id}: its tokenizer leaves out the start token {row['token']}, with which "
            f"plain text is {gain:.1f} nats a token more probable: it was probably trained with "
            "it. bos: always puts it in front of every prompt, and bos: never keeps it out")
