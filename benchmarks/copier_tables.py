"""The tables of ``docs/results/copier-suite.md``, from the figures of ``copier_suite``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

Result = Mapping[str, Any]
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def write_into(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def tables(results: Mapping[str, Result]) -> str:
    """All tables: for every family and half, by layer, and one line per copier."""
    kinds = sorted({_kind(r) for r in results.values()},
                   key=lambda kind: (kind[0], kind[1] != "report", kind[2]))
    parts = []
    for family, half, matched in kinds:
        some = {name: r for name, r in results.items() if _kind(r) == (family, half, matched)}
        what = "copiers as large as other neurons" if matched else "copiers"
        parts.append(f"### {family}, {half} half: {len(some)} {what}\n\n{_by_layer(some)}")
        if half == "report":
            parts.append(_copiers(some))
    return "\n\n".join(parts)


def _kind(result: Result) -> tuple[str, str, bool]:
    """Family, half, and whether planted neurons are as large as others."""
    return result["family"], result["half"], result.get("norms") == "base"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _scorers(results: Mapping[str, Result]) -> list[str]:
    """Names of all scorers, the best first."""
    names = next(iter(results.values()))["scorers"]
    return sorted(names, key=lambda name: -mean(
        r["scorers"][name]["weighted_recall"] for r in results.values()))


def _by_layer(results: Mapping[str, Result]) -> str:
    layers = sorted({r["layer"] for r in results.values()})
    names = _scorers(results)

    def line(name: str, value: Callable[[Result], float], form: str) -> list[str]:
        means = [mean(value(r) for r in results.values() if r["layer"] == layer)
                 for layer in layers]
        return [name, *(form.format(x) for x in (*means, mean(value(r) for r in results.values())))]

    heads = [*(f"layer {layer}" for layer in layers), "all"]
    recall = markdown(
        ["weighted recall", *heads],
        [line(n, lambda r, n=n: r["scorers"][n]["weighted_recall"], "{:.2f}") for n in names])
    repairing = [n for n in names if "accuracy" in next(iter(results.values()))["scorers"][n]]
    accuracies = []
    for title, key in (("accuracy, all tasks", "all"),
                       ("accuracy, unseen spoiled tasks", "unseen")):
        rows = [line("copier as it is", lambda r, k=key: 100 * r["copier"][k], "{:.1f}%"),
                line("exactly the planted off", lambda r, k=key: 100 * r["exact"][k], "{:.1f}%")]
        for n in repairing:
            rows.append(line(
                n, lambda r, n=n, k=key: 100 * r["scorers"][n]["accuracy"][k], "{:.1f}%"))
        accuracies.append(markdown([title, *heads], rows))
    baseline = "integrated gradients"
    cost = markdown(
        ["cost of the planted layer", *heads, "against plain IG"],
        [[*line(n, lambda r, n=n: r["scorers"][n]["seconds"], "{:.1f} s"),
          _cost(results, n, baseline)] for n in names])
    return "\n\n".join([recall, *accuracies, cost])


def _cost(results: Mapping[str, Result], name: str, baseline: str) -> str:
    passes, theirs = (mean(r["scorers"][n]["passes"] for r in results.values())
                      for n in (name, baseline))
    return f"{passes:.0f} passes, ×{passes / theirs:.2f}"


def _copiers(results: Mapping[str, Result]) -> str:
    shown = [n for n in _scorers(results)
             if "accuracy" in next(iter(results.values()))["scorers"][n]]
    rows = []
    for r in sorted(results.values(), key=lambda r: (r["layer"], r["rule"], r["neurons"])):
        cells = [f"{r['scorers'][n]['weighted_recall']:.2f} · {r['scorers'][n]['layer']} · "
                 f"{100 * r['scorers'][n]['accuracy']['all']:.1f}%" for n in shown]
        rows.append([str(r["layer"]), r["rule"], str(r["neurons"]),
                     f"{100 * r['shares'][r['rule']]:.0f}%", f"{100 * r['shares']['gold']:.0f}%",
                     f"{100 * r['copier']['all']:.1f}% → {100 * r['exact']['all']:.1f}%", *cells])
    return ("Recall · layer chosen · accuracy repaired:\n\n" + markdown(
        ["layer", "rule", "K", "gives the rule's answer", "gives the gold answer",
         "copier → exact", *shown], rows))
