"""Adding a scorer, an objective, … is one new file and at most one line in a registry.

The examples of CONTRIBUTING.md are real ones of this repository; here a throw-away one of each
kind is added to a copy of it, and used as a user would.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Addition:
    """One new file; and the line that is put into a registry, before or after one that is there."""

    file: str
    content: str
    registry: str
    after: str
    line: str


ADDITIONS = {
    "scorer": Addition(
        "prunelib/attribution/scorers/constant.py", """
import numpy as np

def constant(loaded, path, prompts, objective, rows=1):
    return np.ones((len(path.layers), loaded.info.components(path.site)))
""", "prunelib/recipe/methods.py", '    Method("random", passes=0),',
        '    Method("constant", f"{_SCORERS}.constant:constant"),'),
    "objective": Addition(
        "prunelib/attribution/objectives/one_logit.py", """
from prunelib.attribution.objectives.base import Objective

def make(_):
    return Objective(lambda logits, prompts: logits.float()[:, 0])
""", "prunelib/recipe/methods.py",
        '    "max_logit": KnownObjective(f"{_OBJECTIVES}.max_logit:make", needs_labels=False),',
        '    "one_logit": KnownObjective(f"{_OBJECTIVES}.one_logit:make", needs_labels=False),'),
    "steering method": Addition(
        "prunelib/interventions/opposite.py", """
from prunelib.interventions.caa import caa

def opposite(contrast, layer, multiplier):
    return caa(contrast, layer, -multiplier)
""", "prunelib/recipe/methods.py",
        '    "caa": SteeringMethod(f"{_INTERVENTIONS}.caa:caa", "stream", (), 2.0),',
        '    "other": SteeringMethod(f"{_INTERVENTIONS}.opposite:opposite", "stream", (), 2.0),'),
    "kind of intervention": Addition(
        "prunelib/interventions/shift.py", """
from contextlib import contextmanager
from dataclasses import dataclass

from prunelib.identity import digest
from prunelib.interventions.base import Intervention

@dataclass(frozen=True)
class Shift(Intervention):
    kind = "shift"
    by: float

    @property
    def digest(self):
        return digest("shift", self.by)

    def content(self):
        return {"by": self.by}

    @classmethod
    def from_content(cls, content):
        return cls(content["by"])

    def check(self, info):
        pass

    @contextmanager
    def applied(self, loaded):
        layer = loaded.adapter.layers(loaded.model)[0]
        handle = layer.mlp.register_forward_hook(lambda m, a, output: output + self.by)
        try:
            yield loaded
        finally:
            handle.remove()
""", "prunelib/interventions/registry.py", '    "fine_tuning": "fine_tuning:FineTuning",',
        '    "shift": "shift:Shift",'),
    "task source": Addition(
        "prunelib/tasks/sources/doubles.py", """
from prunelib.tasks.sources.base import entry

TASKS = dict([entry("doubles", "double_letter", "a letter twice",
                    lambda: [(c, 2 * c) for c in "abcdefghijklmnopqrstuvwxyz"])])
SUITES = {"doubles": ("double_letter",)}
""", "prunelib/tasks/registry.py", '    "classification",', '    "doubles",'),
    "architecture": Addition(
        "prunelib/models/granite.py", """
from dataclasses import replace

from prunelib.models.llama import LLAMA

ADAPTERS = (replace(LLAMA, model_types=("granite",), not_in_vllm=lambda _: "it was not tried"),)
""", "prunelib/models/registry.py", '    "mamba",', '    "granite",'),
    "view": Addition(
        "prunelib/results/views/lengths.py", """
from prunelib.results.views.base import view

VIEWS = (view("prompt_lengths", "mean length of prompts", "run task tokens",
              "SELECT run, task, avg(prompt_tokens) AS tokens FROM predictions "
              "JOIN _scope USING (unit_id, model) GROUP BY ALL ORDER BY ALL",
              tokens="tokens of a prompt, mean"),)
""", "prunelib/results/views/registry.py", '    "runs",', '    "lengths",'),
    "study": Addition(
        "prunelib/pipeline/stages/norms.py", """
from dataclasses import dataclass

from prunelib.components import Component
from prunelib.pipeline.stages.study import Study, Summary, SummaryTable, exactly
from prunelib.pipeline.units.rows import score_row
from prunelib.pipeline.units.steps import offers
from prunelib.pipeline.units.unit import Job
from prunelib.recipe.base import Spec

class NormsSpec(Spec):
    #: Which norm.
    order: float = 2.0

@dataclass(frozen=True)
class NormJob(Job):
    kind, stage, table = "norm", "attribute", "component_scores"
    layer: int
    order: float

    def describe(self):
        return f"norm of layer {self.layer}"

    def run(self, worker, unit):
        loaded = worker.loaded(unit.model, self.dtype)
        layer = loaded.adapter.layers(loaded.model)[self.layer]
        weight = layer.get_submodule(loaded.adapter.switched).weight
        return [score_row(unit, Component(self.layer, "ffn", 0), "norm",
                          float(weight.norm(self.order)), float("nan"), 0, 0)]

class Norms(Study):
    section, settings = "norms", NormsSpec

    def steps(self, run):
        spec = run.recipe.settings(NormsSpec)
        yield offers(run.unit(NormJob(run.spec.dtype, layer, spec.order)) for layer in run.layers)

    def counts(self, recipe, layers, heads):
        return {"attribute": exactly(layers)}

    def tokens(self, recipe, info, lengths):
        return {"attribute": 1.0}

    def summary(self, connection, run):
        rows = connection.execute("select layer, value from component_scores where score = 'norm' "
                                  "order by layer").fetchall()
        return Summary("norms", (SummaryTable("m", ("layer", "norm"), tuple(
            (str(layer), f"{value:.2f}") for layer, value in rows)),), "select 1")

STUDY = Norms()
""", "prunelib/recipe/studies.py",
        '    "in_context_heads": "prunelib.pipeline.stages.in_context_heads",',
        '    "norms": "prunelib.pipeline.stages.norms",'),
    "command": Addition(
        "jobs/commands/hello.py", """
from jobs.console import console

def hello():
    \"\"\"Say hello.

    Example: `prunelib hello`
    \"\"\"
    console.print("hello from a command")
""", "jobs/commands/registry.py", '    "stop": _CLUSTER,', '    "hello": _CLUSTER,'),
}
RECIPE = """
name: added
models: [reference/llama]
engine: transformers
norms: {order: 1.0}
steering: {methods: [other], prompts: 2, shots: 1, proxy: double_letter}
attribution:
  - {method: constant, prompts: 2, shots: 1}
  - {name: first, method: gradient_activation, objective: one_logit, prompts: 2, shots: 1}
search: {layers: [3], rates: [0.1], examples: 2, shots: 1}
evaluate: {tasks: [double_letter], shots: [1], examples: 2}
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with everything added."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("prunelib", "cluster", "jobs"):
        shutil.copytree(ROOT / folder, root / folder,
                        ignore=shutil.ignore_patterns("__pycache__", "suite"))
    for addition in ADDITIONS.values():
        assert not (root / addition.file).exists()
        (root / addition.file).write_text("from __future__ import annotations\n" + addition.content)
        registry = root / addition.registry
        assert registry.read_text().count(f"{addition.after}\n") == 1, addition.registry
        assert "\n" not in addition.line
        registry.write_text(registry.read_text().replace(
            f"{addition.after}\n", f"{addition.after}\n{addition.line}\n"))
    return root


def python(root: Path, *arguments: str, code: int = 0) -> str:
    """What the copy prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True,
                          check=False, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin",
                                            "HF_HUB_OFFLINE": "1", "COLUMNS": "200"})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_run_uses_the_scorer_objective_task_source_study_and_view(changed: Path) -> None:
    (changed / "recipe.yaml").write_text(RECIPE)
    cli = ("-m", "jobs.cli")
    planned = python(changed, *cli, "plan", "recipe.yaml")
    assert '"norms"' in planned and '"order": 1.0' in planned
    said = python(changed, *cli, "run", "recipe.yaml", "--results", "r", "--inline")
    assert "norms" in said and "constant" in said and "first" in said
    asked = python(changed, *cli, "query", "--results", "r", "--format", "csv",
                   "select distinct method, objective from attributions order by all")
    assert asked.split() == ['"method","objective"', '"constant",', '"first","one_logit"']
    asked = python(changed, *cli, "query", "--results", "r", "--format", "csv",
                   "select task, tokens > 1 as long from prompt_lengths where task like 'double%'")
    assert asked.split() == ['"task","long"', '"double_letter",true']
    assert "double_letter" in python(changed, *cli, "tasks")
    assert "mean length of prompts" in python(changed, *cli, "tables", "prompt_lengths")
    wrong = RECIPE.replace("order", "oder")
    (changed / "wrong.yaml").write_text(wrong)
    python(changed, *cli, "validate", "wrong.yaml", code=2)


def test_an_engine_runs_the_intervention_of_a_new_architecture(changed: Path) -> None:
    python(changed, "-c", """
import sys, torch
from pathlib import Path
from transformers import AutoConfig, AutoModelForCausalLM
from prunelib.engines.base import Prompt
from prunelib.engines.registry import choose_engine
from prunelib.engines.transformers import TransformersEngine
from prunelib.interventions.ablation import BASELINE, Ablation
from prunelib.interventions.registry import intervention_of
from prunelib.models import describe
import shutil, prunelib
shipped = Path(prunelib.__file__).parent / "reference" / "models" / "llama"
config = AutoConfig.for_model("granite", vocab_size=300, hidden_size=32, intermediate_size=48,
                              num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
torch.manual_seed(0)
AutoModelForCausalLM.from_config(config).save_pretrained("granite")
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(shipped / name, "granite")
info = describe("granite")
assert info.model_type == "granite" and info.width == 48
shift = intervention_of("shift", {"by": 3.0})
assert choose_engine("auto", info, shift.kind) == "transformers"
engine = TransformersEngine(info)
assert "shift" in engine.runs
prompt, wanted = [[5, 6, 7]], [list(range(20))]
said = []
for done in (BASELINE, shift, Ablation.of_layer(1, range(24)), BASELINE):
    engine.switch(done)
    said.append(engine.logprobs(prompt, wanted))
assert said[0] == said[3] and said[0] != said[1] and said[0] != said[2] and said[1] != said[2]
""")


def test_a_command_is_listed_and_runs(changed: Path) -> None:
    assert "Say hello." in python(changed, "-m", "jobs.cli", "--help")
    assert python(changed, "-m", "jobs.cli", "hello") == "hello from a command\n"


def test_contributing_shows_each_with_a_real_example() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("## How to add")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| `([^`]+)` \| `([^`]+)` \| `(.+)` \|$", table, re.MULTILINE)
    assert {kind for kind, *_ in rows} == set(ADDITIONS)
    for kind, file, registry, line in rows:
        assert (ROOT / file).is_file(), file
        assert registry == ADDITIONS[kind].registry
        assert line in (ROOT / registry).read_text(), line
