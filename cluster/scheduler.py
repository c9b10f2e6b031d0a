"""Who does what next: the queue, without Ray, so that it can be simulated.

Units wait in one queue per kind of worker process. A worker keeps its base model as long as there
is work for it; a new process is started where there is room, unless those that are there would be
done before it is up; an idle one makes room for a kind that has none. Urgent units (a lower
``priority``) go first everywhere, then the longest.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from cluster.durations import Durations
from prunelib.pipeline.units.unit import Unit, WorkerRole
from prunelib.vocabulary import Stage


@dataclass(frozen=True, order=True)
class Kind:
    """What a worker process is for: one base model, on torch or in an engine."""

    role: WorkerRole
    model: str


@dataclass(frozen=True)
class Need:
    """What a worker process takes of a node; memory in bytes."""

    cpus: float = 0.0
    gpus: int = 0
    memory: int = 0


@dataclass
class Node:
    """A machine of the cluster and what of it is still free; memory in bytes."""

    id: str
    total: Need
    #: Bytes of its smallest GPU, 0 if unknown.
    gpu_memory: int = 0
    free: Need = field(init=False)

    def __post_init__(self) -> None:
        self.free = self.total

    def take(self, need: Need, sign: int = 1) -> None:
        """Book a worker's needs, or with ``sign=-1`` give them back."""
        free = self.free
        self.free = Need(free.cpus - sign * need.cpus, free.gpus - sign * need.gpus,
                         free.memory - sign * need.memory)


def fits(need: Need, room: Need) -> bool:
    """Whether a worker fits into what is free, or into a whole node."""
    return need.cpus <= room.cpus and need.gpus <= room.gpus and need.memory <= room.memory


@dataclass(frozen=True)
class Work:
    """A unit to be performed, and how often it was tried."""

    unit: Unit
    attempt: int = 1
    #: How often its batches are to be halved from the start, after memory ran out.
    batch_halvings: int = 0


@dataclass(eq=False)
class Slot:
    """A worker process as the scheduler sees it."""

    kind: Kind
    need: Need
    node: str
    state: Literal["starting", "idle", "busy"] = "starting"
    work: Work | None = None
    #: Units that it has done.
    done: int = 0
    #: When its present state began; when it was started (the clock is the caller's).
    since: float = 0.0
    born: float = 0.0


@dataclass(frozen=True)
class Start:
    """Start a process for ``slot``."""

    slot: Slot


@dataclass(frozen=True)
class Hand:
    """Give ``slot`` its ``work``."""

    slot: Slot
    work: Work


@dataclass(frozen=True)
class Retire:
    """End the process of ``slot``."""

    slot: Slot


Action = Start | Hand | Retire


def kind_of(unit: Unit) -> Kind:
    """Units of one kind can share a worker process; units of two kinds cannot."""
    return Kind(unit.job.role, unit.model.weights_digest)


class _Queue:
    """Pending work of one kind: urgent first, then longest, then in the order given."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, float, int, Work]] = []
        self.costs: dict[Stage, float] = defaultdict(float)

    @property
    def cost(self) -> float:
        return sum(self.costs.values())

    def push(self, work: Work, number: int) -> None:
        heapq.heappush(self.heap, (work.unit.priority, -work.unit.cost, number, work))
        self.costs[work.unit.stage] += work.unit.cost

    def pop(self) -> Work:
        work = heapq.heappop(self.heap)[-1]
        self.costs[work.unit.stage] -= work.unit.cost
        return work

    @property
    def priority(self) -> int:
        return self.heap[0][0]


class Scheduler:
    """Decides; whoever asks carries the decisions out and tells what became of them."""

    def __init__(self, need: Callable[[Unit], Need], limit: int | None = None) -> None:
        """``need`` says what a unit's worker takes; ``limit`` is the most worker processes."""
        self._need = need
        self._limit = limit
        self._numbers = itertools.count()
        self._queues: dict[Kind, _Queue] = {}
        self._idle: dict[Kind, list[Slot]] = {}
        self._starting: Counter[Kind] = Counter()
        self._workers: Counter[Kind] = Counter()
        self._durations = Durations()
        #: Nodes that are being emptied of small workers, for whom, and how many GPUs it needs.
        self._claims: dict[str, tuple[Kind, int]] = {}
        self.nodes: dict[str, Node] = {}
        self.slots: set[Slot] = set()

    @property
    def pending(self) -> int:
        """Units that no worker has yet."""
        return sum(len(queue.heap) for queue in self._queues.values())

    def queued(self) -> dict[Kind, int]:
        """Units that no worker has yet, by kind."""
        return {kind: len(queue.heap) for kind, queue in self._queues.items() if queue.heap}

    def add(self, work: Work) -> None:
        """Queue a unit."""
        self._queues.setdefault(kind_of(work.unit), _Queue()).push(work, next(self._numbers))

    def drop(self, kind: Kind | None = None) -> list[Work]:
        """Take all pending work back, or that of one kind."""
        kinds = list(self._queues) if kind is None else [kind]
        return [entry[-1] for k in kinds if k in self._queues for entry in self._queues.pop(k).heap]

    def set_nodes(self, nodes: list[Node]) -> None:
        """Say which nodes there are now; workers of lost nodes keep their place in the books."""
        self.nodes = {node.id: node for node in nodes}
        self._claims = {n: claim for n, claim in self._claims.items() if n in self.nodes}
        for node in nodes:
            node.free = node.total
        for slot in self.slots:
            if slot.node in self.nodes:
                self.nodes[slot.node].take(slot.need)

    def unplaceable(self) -> list[Kind]:
        """Kinds with pending work for which no node is large enough, even an empty one."""
        return [kind for kind, queue in self._queues.items() if queue.heap and not any(
            fits(self._need(queue.heap[0][-1].unit), node.total) for node in self.nodes.values())]

    def decide(self, now: float) -> list[Action]:
        """What to do next; the books already assume that it is done."""
        actions: list[Action] = []
        for level in (0, 1):  # what is urgent gets its workers before extras get anything
            for kind in sorted(self._pending(level), key=self._urgency):
                self._hand_out(kind, level, now, actions)
            blocked: set[Kind] = set()
            while wanting := [kind for kind in self._pending(level) if kind not in blocked
                              and len(self._queues[kind].heap) > self._starting[kind]
                              and self._durations.worth_a_start(
                                  kind, self._queues[kind].costs, self._workers[kind])]:
                kind = min(wanting, key=self._urgency)
                need = self._need(self._queues[kind].heap[0][-1].unit)
                node = self._place(kind, need, actions)
                if node is None:
                    self._claim(kind, need)
                    blocked.add(kind)
                else:
                    actions.append(Start(self._book(kind, need, node, now)))
        return actions

    def _pending(self, level: int) -> list[Kind]:
        return [k for k, q in self._queues.items() if q.heap and q.priority <= level]

    def _hand_out(self, kind: Kind, level: int, now: float, actions: list[Action]) -> None:
        """Give the idle workers of a kind something to do, unless their node is being emptied."""
        queue, idle = self._queues[kind], self._idle.get(kind, [])
        for slot in [s for s in idle if not self._in_the_way(s)]:
            if not queue.heap or queue.priority > level:
                return
            idle.remove(slot)
            slot.state, slot.work, slot.since = "busy", queue.pop(), now
            actions.append(Hand(slot, slot.work))

    def _book(self, kind: Kind, need: Need, node: Node, now: float) -> Slot:
        slot = Slot(kind, need, node.id, since=now, born=now)
        node.take(need)
        self.slots.add(slot)
        self._starting[kind] += 1
        self._workers[kind] += 1
        self._claims = {n: claim for n, claim in self._claims.items() if claim[0] != kind}
        return slot

    def _claim(self, kind: Kind, need: Need) -> None:
        """Have a node emptied for a kind that would wait for ever beside smaller workers."""
        if need.gpus < 2 or self._workers[kind] or kind in (c[0] for c in self._claims.values()):
            return
        larger = {slot.node for slot in self.slots if slot.need.gpus >= need.gpus}
        nodes = [node for node in self.nodes.values() if fits(need, node.total)
                 and node.id not in self._claims and node.id not in larger]
        if nodes:
            most = max(nodes, key=lambda node: node.free.gpus)
            self._claims[most.id] = (kind, need.gpus)

    def _in_the_way(self, slot: Slot) -> bool:
        """Whether a worker is to end for a kind that needs more of its node."""
        claim = self._claims.get(slot.node)
        return (claim is not None and slot.need.gpus < claim[1]
                and self._kept(slot.node, slot.kind))

    def _kept(self, node: str, kind: Kind) -> bool:
        """Whether a node is kept for another kind that is no less urgent than ``kind``."""
        claim = self._claims.get(node)
        return (claim is not None and claim[0] != kind
                and self._level(claim[0]) <= self._level(kind))

    def _level(self, kind: Kind) -> int:
        """Priority of a kind's next unit; a number above all if it has none."""
        queue = self._queues.get(kind)
        return queue.priority if queue and queue.heap else 9

    def ready(self, slot: Slot, now: float) -> None:
        """A process is up."""
        self._starting[slot.kind] -= 1
        self._durations.up(slot.kind, now - slot.born)
        self._rest(slot, now)

    def finished(self, slot: Slot, now: float) -> None:
        """A worker is done with its unit and can have another."""
        if slot.work is not None:
            unit = slot.work.unit
            self._durations.done(slot.kind, unit.stage, unit.cost, now - slot.since,
                                 first=slot.done == 0)
            slot.done += 1
        self._rest(slot, now)

    def gone(self, slot: Slot) -> Work | None:
        """A process ended, on purpose or not; the work that it had in hand."""
        self.slots.remove(slot)
        self._workers[slot.kind] -= 1
        if slot.state == "starting":
            self._starting[slot.kind] -= 1
        elif slot.state == "idle":
            self._idle[slot.kind].remove(slot)
        if slot.node in self.nodes:
            self.nodes[slot.node].take(slot.need, -1)
        return slot.work

    def _rest(self, slot: Slot, now: float) -> None:
        slot.state, slot.work, slot.since = "idle", None, now
        self._idle.setdefault(slot.kind, []).append(slot)

    def _urgency(self, kind: Kind) -> tuple[int, float]:
        queue = self._queues[kind]
        return queue.priority, -queue.cost / (1 + self._workers[kind])

    def _place(self, kind: Kind, need: Need, actions: list[Action]) -> Node | None:
        """A node with room for one more worker, after idle ones made room if they had to."""
        if self._limit is not None and len(self.slots) >= self._limit:
            spare = next(self._spare(kind), None)
            if spare is None:
                return None
            self._retire(spare, actions)
        open_to = [node for node in self.nodes.values() if not self._kept(node.id, kind)]
        roomy = [node for node in open_to if fits(need, node.free)]
        if roomy:
            # The tightest of them: whole nodes stay free for those who need a whole one.
            return min(roomy, key=lambda node: (node.free.gpus, -node.free.cpus))
        spares: dict[str, list[Slot]] = {}
        for slot in self._spare(kind):
            spares.setdefault(slot.node, []).append(slot)
        for node in open_to:
            slots = spares.get(node.id, [])
            if slots and fits(need, _with(node.free, slots)):
                while not fits(need, node.free):
                    self._retire(slots.pop(), actions)
                return node
        return None

    def _spare(self, kind: Kind) -> Iterator[Slot]:
        """Idle workers that may end for ``kind``: nothing (as urgent) to do, or in its way."""
        for other, idle in self._idle.items():
            useless = self._level(other) > self._level(kind)
            for slot in list(idle):
                claim = self._claims.get(slot.node)
                evicted = claim is not None and claim[0] == kind and self._in_the_way(slot)
                if other != kind and (useless or evicted):
                    yield slot

    def _retire(self, slot: Slot, actions: list[Action]) -> None:
        self.gone(slot)
        actions.append(Retire(slot))


def _with(free: Need, slots: list[Slot]) -> Need:
    """What would be free without ``slots``."""
    return Need(free.cpus + sum(s.need.cpus for s in slots),
                free.gpus + sum(s.need.gpus for s in slots),
                free.memory + sum(s.need.memory for s in slots))
