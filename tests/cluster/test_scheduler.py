"""The scheduler alone, on made-up clusters: who gets what, and that nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scheduler import Hand, Need, Node, Retire, Scheduler, Slot, Start, Work, fits
from prunelib.interventions.ablation import BASELINE
from prunelib.models import ModelInfo
from prunelib.pipeline.stages.canary import CanaryJob
from prunelib.pipeline.stages.evaluation import EvaluateJob
from prunelib.pipeline.units.prompts import PromptsRef, TaskRef
from prunelib.pipeline.units.unit import Unit

MODEL = ModelInfo("m0", "/m", "local", "w0", "t", "llama", 2, 8, 1 << 20, 4096)


def unit(model: int = 0, seed: int = 0, cost: float = 1.0, priority: int = 0, gpus: int = 1,
         engine: bool = False) -> Unit:
    """A unit of model ``m0``, ``m1``, …, which takes ``gpus`` GPUs."""
    info = replace(MODEL, id=f"m{model}", weights_digest=f"w{model}")
    task = TaskRef("t", "d")
    job = EvaluateJob("float32", "vllm", BASELINE, task, 1, seed, 5, 0, "arrow",
                      "greedy") if engine else CanaryJob(
        "float32", PromptsRef(task, "search", 0, seed, (0,), "arrow"), BASELINE)
    return Unit(info, job, cost, priority, tensor_parallel=gpus)


def gpus(unit: Unit) -> Need:
    return Need(gpus=unit.tensor_parallel or 1)


def scheduler(*nodes: int, limit: int | None = None) -> Scheduler:
    """One node with so many GPUs each."""
    made = Scheduler(gpus, limit)
    made.set_nodes([Node(f"n{i}", Need(8, count)) for i, count in enumerate(nodes)])
    return made


def settle(made: Scheduler) -> list[Slot]:
    """Carry out decisions, starts being immediate, until there are none; busy workers."""
    while actions := made.decide(0.0):
        for action in actions:
            if isinstance(action, Start):
                made.ready(action.slot, 0.0)
    return [slot for slot in made.slots if slot.state == "busy"]


def models(slots: list[Slot]) -> list[str]:
    return sorted(slot.work.unit.model.id for slot in slots if slot.work)


def test_urgent_first_then_longest_then_in_order() -> None:
    made = scheduler(1)
    asked = [unit(seed=0, cost=1), unit(seed=1, cost=5), unit(seed=2, cost=5),
             unit(seed=3, cost=9, priority=1)]
    for one in asked:
        made.add(Work(one))
    got = []
    while busy := settle(made):
        (slot,) = busy
        got.append(slot.work.unit if slot.work else None)
        made.finished(slot, 0.0)
    assert got == [asked[1], asked[2], asked[0], asked[3]]


def test_a_worker_keeps_its_model_while_there_is_work_for_it() -> None:
    made = scheduler(2)
    for seed in range(4):
        made.add(Work(unit(0, seed)))
        made.add(Work(unit(1, seed)))
    first = set(settle(made))
    for _ in range(6):
        busy = settle(made)
        assert models(busy) == ["m0", "m1"] and set(busy) == first
        for slot in busy:
            made.finished(slot, 0.0)
        if not made.pending:
            break


def test_an_idle_worker_makes_room_for_a_model_that_has_none() -> None:
    made = scheduler(1)
    made.add(Work(unit(0)))
    (first,) = settle(made)
    made.add(Work(unit(1)))
    assert made.decide(0.0) == []  # busy workers are left alone
    made.finished(first, 0.0)
    actions = made.decide(0.0)
    assert [type(a) for a in actions] == [Retire, Start]
    assert first not in made.slots


def test_extras_wait_for_what_is_urgent_elsewhere() -> None:
    made = scheduler(1)
    for seed in range(3):
        made.add(Work(unit(0, seed, priority=1)))
    (slot,) = settle(made)
    made.add(Work(unit(1)))
    made.finished(slot, 0.0)
    assert models(settle(made)) == ["m1"]  # though model 0 had work left


def test_several_gpus_come_from_one_node() -> None:
    made = scheduler(2, 4, 2)
    made.add(Work(unit(0, gpus=4, engine=True)))
    (slot,) = settle(made)
    assert slot.node == "n1" and made.nodes["n1"].free.gpus == 0


def test_small_workers_leave_whole_nodes_free() -> None:
    made = scheduler(4, 1, 1)
    for seed in range(2):
        made.add(Work(unit(seed)))
    settle(made)
    assert made.nodes["n0"].free.gpus == 4


def test_a_model_that_needs_a_whole_node_is_not_starved_by_small_ones() -> None:
    made = scheduler(2)
    for seed in range(50):
        made.add(Work(unit(0, seed)))
    busy = settle(made)
    made.add(Work(unit(1, gpus=2, engine=True)))
    for _ in range(2):
        for slot in busy:
            made.finished(slot, 0.0)
        busy = settle(made)
    assert "m1" in models(busy)


def test_a_node_that_comes_back_is_used_again() -> None:
    made = scheduler(1, 1)
    for seed in range(6):
        made.add(Work(unit(0, seed)))
    busy = settle(made)
    assert {slot.node for slot in busy} == {"n0", "n1"}
    lost = next(slot for slot in busy if slot.node == "n1")
    made.set_nodes([Node("n0", Need(8, 1))])
    work = made.gone(lost)
    assert work is not None
    made.add(Work(work.unit, 2))
    assert len(settle(made)) == 1
    made.set_nodes([Node("n0", Need(8, 1)), Node("n2", Need(8, 1))])
    assert {slot.node for slot in settle(made)} == {"n0", "n2"}


def test_what_fits_nowhere_is_named() -> None:
    made = scheduler(2)
    made.add(Work(unit(0, gpus=8, engine=True)))
    assert made.decide(0.0) == []
    assert [kind.model for kind in made.unplaceable()] == ["w0"]
    assert [work.unit.model.id for work in made.drop()] == ["m0"] and made.pending == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_everything_is_done_once_and_nothing_is_overbooked(data: st.DataObject) -> None:
    """Random clusters, units, deaths and node losses: each unit ends once, books are right."""
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    made = scheduler(*sizes)
    todo = {unit(data.draw(st.integers(0, 3)), seed, cost=data.draw(st.floats(1, 9)),
                 priority=data.draw(st.integers(0, 1)), gpus=g, engine=g > 1)
            for seed, g in enumerate(data.draw(st.lists(st.integers(1, max(sizes)), max_size=25)))}
    for one in todo:
        made.add(Work(one))
    done: list[Unit] = []
    for _ in range(400):
        busy = settle(made)
        for node in made.nodes.values():
            used = sum(s.need.gpus for s in made.slots if s.node == node.id)
            assert used + node.free.gpus == node.total.gpus and fits(node.free, node.total)
            assert node.free.gpus >= 0
        if not busy:
            break
        slot = data.draw(st.sampled_from(sorted(busy, key=lambda s: str(s.work))))
        assert slot.work is not None
        if slot.work.attempt == 1 and data.draw(st.booleans()):
            work = made.gone(slot)
            assert work is not None
            made.add(replace(work, attempt=2))
        else:
            done.append(slot.work.unit)
            made.finished(slot, 0.0)
    assert made.pending == 0
    assert sorted(u.id for u in done) == sorted(u.id for u in todo)


def test_a_limit_on_workers_holds() -> None:
    made = scheduler(8, limit=2)
    for seed in range(4):
        made.add(Work(unit(seed)))
    assert len(settle(made)) == 2


def test_hand_names_the_work() -> None:
    made = scheduler(1)
    made.add(Work(unit()))
    (start,) = made.decide(0.0)
    made.ready(start.slot, 0.0)
    (hand,) = made.decide(1.0)
    assert isinstance(hand, Hand) and hand.slot.since == 1.0 and hand.work.unit == unit()


def test_nothing_is_started_for_less_work_than_its_start_costs() -> None:
    """A start takes 20 seconds here and a unit one; until that is known, room is used."""
    made = scheduler(2)
    for seed in range(3):
        made.add(Work(unit(seed=seed)))
    first, second = (a.slot for a in made.decide(0.0) if isinstance(a, Start))
    for slot in (first, second):
        made.ready(slot, 15.0)
    made.decide(15.0)
    made.finished(first, 21.0)  # a second of work, and five in which the model was loaded
    made.decide(21.0)
    made.finished(first, 22.0)
    made.finished(second, 22.0)
    made.gone(second)
    # Ten units are done before another worker is up; fifty are not.
    for seed in range(3, 14):
        made.add(Work(unit(seed=seed)))
    assert [type(a) for a in made.decide(22.0)] == [Hand]
    for seed in range(14, 64):
        made.add(Work(unit(seed=seed)))
    assert [type(a) for a in made.decide(23.0)] == [Start]
    # Where nobody is left, even the last unit has a worker started.
    alone = scheduler(1)
    alone._durations = made._durations
    alone.add(Work(unit()))
    assert [type(a) for a in alone.decide(0.0)] == [Start]
