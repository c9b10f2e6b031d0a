"""The same work with prunelib, Captum, TransformerLens and nnsight: lines of code, and seconds.

    pip install --target elsewhere --no-deps transformer_lens nnsight    # and what they import
    PYTHONPATH=elsewhere python -m benchmarks.other_libraries

The work: integrated gradients of the neurons of one FFN on some prompts (the objective is the
largest logit; a neuron is an output of ``gate_proj``, scaled from 0 to 1 at all positions), then
5% of them are switched off and the same prompts answered. The other libraries do it by hooks, one
prompt at a time, with as many nodes as prunelib's default takes (few) and with Captum's default of
50 (many), beside which prunelib has a tolerance of 2%. Lines are those of the functions below,
without the first and blank ones. The error is that of the scores against 200 nodes. None of the
others is a dependency of prunelib but Captum; what cannot be imported is left out.
"""

from __future__ import annotations

import argparse
import inspect
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from transformers import AutoModelForCausalLM, AutoTokenizer

import prunelib
from prunelib.components import Component
from prunelib.models.info import REFERENCE

MODEL, TASK, LAYER, SHOTS = "llama-copier", "vowel_counting", 2, 3
SHARE, ANSWER = 0.05, 4
#: Gauss–Legendre nodes of the other libraries: what prunelib takes for each prompt, both ends too.
NODES = 6
DEFAULT, EXACT, TOLERANCE = 50, 200, 0.02
RESULT = Path(__file__).parent / "results" / "other_libraries.json"
Texts = list[str]
Scores = np.ndarray[Any, np.dtype[np.float64]]


def nodes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes from 0 to 1, and their weights."""
    places, weights = np.polynomial.legendre.leggauss(count)
    return torch.tensor((places + 1) / 2).float(), torch.tensor(weights / 2).float()


class Prunelib:
    """What docs/how-to/python.md shows."""

    def load(self) -> None:
        self.model = prunelib.load(f"reference/{MODEL}")
        self.task = prunelib.task(TASK)

    def attribute(self, texts: Texts, count: int = NODES) -> Scores:
        settings = {} if count == NODES else {"tolerance": TOLERANCE}
        return self.model.attribute(self.task, shots=SHOTS, prompts=len(texts), layers=[LAYER],
                                    objective="max_logit", **settings).values[LAYER]

    def answers(self, texts: Texts, off: list[int]) -> Texts:
        model = self.model.without(Component(LAYER, "mlp_hidden", i) for i in off)
        return model.generate(self.task.prompts(len(texts), shots=SHOTS, split="attribute"), ANSWER)


class Captum:
    """Captum, and hooks of torch."""

    def load(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(REFERENCE / MODEL)
        self.model = AutoModelForCausalLM.from_pretrained(REFERENCE / MODEL).eval()
        self.mlp = self.model.model.layers[LAYER].mlp

    def attribute(self, texts: Texts, count: int = NODES) -> Scores:
        def forward(scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            handle = self.mlp.gate_proj.register_forward_hook(
                lambda module, args, output: output * scale[:, None])
            try:
                return self.model(ids, use_cache=False).logits[:, -1].max(-1).values
            finally:
                handle.remove()

        found = torch.zeros(1, self.mlp.gate_proj.out_features)
        for text in texts:
            ids = self.tokenizer(text, return_tensors="pt").input_ids
            found += IntegratedGradients(forward).attribute(
                torch.ones_like(found), n_steps=count, additional_forward_args=(ids,))
        return found[0].double().numpy() / len(texts)

    def answers(self, texts: Texts, off: list[int]) -> Texts:
        def switch(module: Any, args: Any) -> Any:
            hidden = args[0].clone()
            hidden[..., off] = 0
            return (hidden,)

        handle, found = self.mlp.down_proj.register_forward_pre_hook(switch), []
        try:
            for text in texts:
                ids = self.tokenizer(text, return_tensors="pt").input_ids
                done = self.model.generate(ids, max_new_tokens=ANSWER, do_sample=False)
                found.append(self.tokenizer.decode(done[0, ids.shape[1]:]))
        finally:
            handle.remove()
        return found


class TransformerLens:
    """TransformerLens 4, by its bridge to transformers."""

    def load(self) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        path = str(REFERENCE / MODEL)
        self.model = TransformerBridge.boot_transformers(
            path, hf_model=AutoModelForCausalLM.from_pretrained(path),
            tokenizer=AutoTokenizer.from_pretrained(path), device="cpu")

    def attribute(self, texts: Texts, count: int = NODES) -> Scores:
        places, weights = nodes(count)
        width = self.model.original_model.config.intermediate_size
        found = torch.zeros(width)
        for text in texts:
            ids = self.model.to_tokens(text).expand(count, -1)
            scale = places[:, None].repeat(1, width).requires_grad_()
            with self.model.hooks(fwd_hooks=[(
                    f"blocks.{LAYER}.mlp.gate.hook_out",
                    lambda gate, hook, scale=scale: gate * scale[:, None])]):
                values = self.model(ids)[:, -1].max(-1).values
            found += weights @ torch.autograd.grad(values.sum(), scale)[0]
        return found.double().numpy() / len(texts)

    def answers(self, texts: Texts, off: list[int]) -> Texts:
        def switch(hidden: torch.Tensor, hook: Any) -> torch.Tensor:
            hidden = hidden.clone()
            hidden[..., off] = 0
            return hidden

        found = []
        with self.model.hooks(fwd_hooks=[(f"blocks.{LAYER}.mlp.out.hook_in", switch)]):
            for text in texts:
                ids = self.model.to_tokens(text)
                done = self.model.generate(ids, max_new_tokens=ANSWER, do_sample=False,
                                           return_type="tokens", verbose=False)
                found.append(self.model.tokenizer.decode(done[0, ids.shape[1]:]))
        return found


class Nnsight:
    """nnsight."""

    def load(self) -> None:
        from nnsight import TransformersModel

        path = str(REFERENCE / MODEL)
        self.model = TransformersModel(
            AutoModelForCausalLM.from_pretrained(path), task="text-generation",
            tokenizer=AutoTokenizer.from_pretrained(path))
        self.mlp = self.model.model.layers[LAYER].mlp

    def attribute(self, texts: Texts, count: int = NODES) -> Scores:
        places, weights = nodes(count)
        width = self.model.config.intermediate_size
        found = torch.zeros(width)
        for text in texts:
            ids = self.model.tokenizer(text, return_tensors="pt").input_ids.expand(count, -1)
            scale = places[:, None].repeat(1, width).requires_grad_()
            with self.model.trace(ids):
                self.mlp.gate_proj.output = self.mlp.gate_proj.output * scale[:, None]
                values = self.model.lm_head.output[:, -1].max(-1).values.save()
            found += weights @ torch.autograd.grad(values.sum(), scale)[0]
        return found.double().numpy() / len(texts)

    def answers(self, texts: Texts, off: list[int]) -> Texts:
        found = []
        for text in texts:
            ids = self.model.tokenizer(text, return_tensors="pt").input_ids
            with self.model.generate(max_new_tokens=ANSWER, do_sample=False) as tracer:
                with tracer.invoke(ids):
                    for _step in tracer.iter[:]:
                        self.mlp.down_proj.input[..., off] = 0
                with tracer.invoke():  # what follows an open loop does not run
                    done = tracer.result.save()
            found.append(self.model.tokenizer.decode(done[0, ids.shape[1]:]))
        return found


LIBRARIES: dict[str, Callable[[], Any]] = {
    "prunelib": Prunelib, "Captum": Captum, "TransformerLens": TransformerLens,
    "nnsight": Nnsight}


def lines_of(library: Any) -> int:
    """Lines that a user writes for the three parts."""
    return sum(bool(line.strip()) for part in ("load", "attribute", "answers")
               for line in inspect.getsource(getattr(library, part)).splitlines()[1:])


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Note how long a part takes."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


def first_lines(answers: Texts) -> Texts:
    """What stands before the next pair would begin."""
    return [text.split("\n")[0].strip() for text in answers]


def far(scores: Scores, exact: Scores) -> float:
    """Relative error of scores."""
    return float(np.linalg.norm(scores - exact) / np.linalg.norm(exact))


def measure(name: str, texts: Texts, exact: Scores, off: list[int]) -> dict[str, Any]:
    """One line of the table. Raises ``ImportError`` where the library is not here."""
    library, seconds = LIBRARIES[name](), dict[str, float]()
    with timed(seconds, "load"):
        library.load()
    library.attribute(texts[:1])  # what is only done once: imports, compiled hooks
    with timed(seconds, "attribute"):
        scores = library.attribute(texts)
    with timed(seconds, "attribute_50"):
        more = library.attribute(texts, DEFAULT)
    with timed(seconds, "answer"):
        answers = first_lines(library.answers(texts, off))
    return {"library": name, "lines": lines_of(library), **seconds,
            "error": far(scores, exact), "error_50": far(more, exact), "answers": answers}


def table(found: dict[str, Any]) -> str:
    """The table of docs/how-to/python.md."""
    lines = ["| library | lines | load, s | few nodes, s (error) | many nodes, s (error) | "
             "answer, s | same answers |", "| --- | --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {row['library']} | {row['lines']} | {row['load']:.1f} | "
              f"{row['attribute']:.1f} ({row['error']:.0%}) | "
              f"{row['attribute_50']:.1f} ({row['error_50']:.0%}) | "
              f"{row['answer']:.1f} | {row['same_answers']} of {found['prompts']} |"
              for row in found["libraries"]]
    return "\n".join(lines)


def main() -> None:
    """Do the work with each library, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=30)
    prompts = parser.parse_args().prompts
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="nnsight")  # on loops that end by design
    texts = [example.prompt for example in prunelib.task(TASK).prompts(
        prompts, shots=SHOTS, split="attribute")]
    oracle = Captum()
    oracle.load()
    exact = oracle.attribute(texts, EXACT)
    off = [int(i) for i in np.argsort(-exact)[:round(SHARE * len(exact))]]
    expected = first_lines(oracle.answers(texts, off))
    rows: list[dict[str, Any]] = []
    for name in LIBRARIES:
        try:
            row = measure(name, texts, exact, off)
        except ImportError as error:
            print(f"{name} left out: {error}")
            continue
        row["same_answers"] = sum(
            a == b for a, b in zip(row.pop("answers"), expected, strict=True))
        rows.append(row)
    found = {"model": MODEL, "prompts": prompts, "nodes": NODES, "libraries": rows}
    print(table(found))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
