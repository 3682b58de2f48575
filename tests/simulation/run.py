"""A seed's story, and what must be true after it: the oracles of the accounting design."""

from __future__ import annotations

import msgspec

from app.limits.gauges import Leases
from tests.simulation.constants import CONCURRENCY, REQUESTS, TEAMS, WINDOW_MS
from tests.simulation.ledger import EXACT
from tests.simulation.node import Node
from tests.simulation.world import Faults, World

QUIET_ROUNDS = 14
QUIET_STEP_MS = 17_000


class Verdict(msgspec.Struct):
    """``broken`` names each oracle that does not hold, and how."""

    seed: int
    sent: int
    story: list[str]
    broken: list[str]


class Story:
    """What happens in one seed's world, drawn from the seed before anything runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: list[str] = []
        draw = world.random
        self.loses_data = draw.random() < 0.6
        # A disk and the hot state lost together lose what was in flight on that host: it is documented, so
        # a story has one of them.
        self.loses_disks = not self.loses_data and draw.random() < 0.5
        self.pauses = draw.random() < 0.5
        self.steps_clock = draw.random() < 0.2
        self.is_paused_or_cut = False
        if draw.random() < 0.7:
            world.faults = Faults(*(draw.choice([0.0, 0.01, 0.05]) for _ in range(6)))
            world.faults_ever = True

    def tell(self) -> None:
        """Everything that will happen, at its time."""
        world, draw = self.world, self.world.random
        for number in range(draw.choice([1, 2, 3, 3])):
            node = Node(world, f"gw{number}")
            world.nodes.append(node)
            node.start()
        length_ms = draw.randint(2500, 7000)
        kind = draw.random()
        if kind < 0.1:
            length_ms = self._tell_of_flush_beside_a_silent_holder()
        elif kind < 0.2:
            length_ms = self._tell_of_slow_owner()
        else:
            for _ in range(draw.choice([10, 30, 60])):
                world.at(draw.randint(0, length_ms), self._ask)
            for _ in range(draw.randint(0, 5)):
                world.at(draw.randint(200, length_ms), draw.choice(self._mishaps()))
        world.run(world.began_ms + length_ms + 8000)
        self._heal()

    def _tell_of_flush_beside_a_silent_holder(self) -> int:
        """The only story in which a rebuild without a warm-up goes over: much of the budget is held by a gateway
        that stands still while the hot state is emptied, and others ask for all that seems to be left.
        """
        world, draw = self.world, self.world.random
        world.faults, self.is_paused_or_cut = Faults(), True
        silent, *others = [*world.nodes, *(self._another() for _ in range(3 - len(world.nodes)))]
        for _ in range(6):
            world.at(draw.randint(600, 900), lambda: silent.ask(team="red", seconds=4.0, dear=True))
        at_ms = draw.randint(1400, 1800)
        world.at(at_ms, lambda: self._pause_one(silent, 8000))
        world.at(at_ms + draw.randint(50, 400), self._flush)
        for _ in range(25):
            world.at(at_ms + draw.randint(600, 6000), lambda: draw.choice(others).ask(team="red", dear=True))
        return 10_000

    def _tell_of_slow_owner(self) -> int:
        """A gateway stands still for just as long as a lease, knows the end of its calls a moment after a
        reaper has charged them, and is lost with its disk before it can say so to SQL.
        """
        world, draw = self.world, self.world.random
        self.is_paused_or_cut = True
        slow = self._another()
        self._another()
        for _ in range(6):
            world.at(draw.randint(600, 900), lambda: slow.ask(seconds=1.0))
        world.at(1000, lambda: self._pause_one(slow, 15_000 + draw.randint(0, 3000)))
        if not self.loses_data:
            world.at(16_000 + draw.randint(0, 3500), lambda: slow.is_up and slow.die(with_disk=True))
            self.told.append("and it is lost with its disk")
        return 20_000

    def _another(self) -> Node:
        node = Node(self.world, f"gw{len(self.world.nodes)}")
        self.world.nodes.append(node)
        node.start()
        return node

    def _ask(self) -> None:
        up = [node for node in self.world.nodes if node.is_up]
        if up:
            self.world.random.choice(up).ask()

    def _mishaps(self) -> list:
        mishaps = [self._kill, self._cut, self._store_away, self._sql_away, self._restart_store]
        if self.loses_data:
            mishaps += [self._flush, self._flush, self._set_back]
        if not self.pauses:
            # Cut off from SQL and silent as well, a gateway may have more than it could declare.
            mishaps += [self._cut_from_sql]
        if self.loses_disks:
            mishaps += [self._lose_node, self._lose_node]
        if self.pauses:
            mishaps += [self._pause, self._pause]
        if self.steps_clock:
            mishaps += [self._step_clock]
        return mishaps

    def _kill(self) -> None:
        world = self.world
        node = world.random.choice(world.nodes)
        if node.is_up:
            self.told.append(f"{world.now_ms - world.began_ms} kill {node.name}")
            node.die()
            world.at(world.random.randint(100, 4000), lambda: None if node.is_up else node.start())

    def _lose_node(self) -> None:
        world = self.world
        node = world.random.choice(world.nodes)
        if node.is_up:
            self.told.append(f"{world.now_ms - world.began_ms} lose {node.name} with its disk")
            node.die(with_disk=True)
            world.at(world.random.randint(100, 4000), lambda: None if node.is_up else node.start())

    def _cut(self) -> None:
        world = self.world
        node = world.random.choice(world.nodes)
        node.cut_until_ms = world.now_ms + world.random.randint(100, 5000)
        self.is_paused_or_cut = True
        self.told.append(f"{world.now_ms - world.began_ms} cut {node.name} off the hot state")

    def _cut_from_sql(self) -> None:
        world = self.world
        node = world.random.choice(world.nodes)
        node.sql_cut_until_ms = world.now_ms + world.random.randint(100, 4000)
        self.told.append(f"{world.now_ms - world.began_ms} cut {node.name} off SQL")

    def _pause(self) -> None:
        draw = self.world.random
        self._pause_one(draw.choice(self.world.nodes), draw.choice([500, 3000, 20_000]))

    def _pause_one(self, node: Node, for_ms: int) -> None:
        world = self.world
        node.paused_until_ms = world.now_ms + for_ms
        self.is_paused_or_cut = True
        self.told.append(
            f"{world.now_ms - world.began_ms} pause {node.name} until {node.paused_until_ms - world.began_ms}"
        )

    def _store_away(self) -> None:
        world = self.world
        world.store_away_until_ms = world.now_ms + world.random.randint(100, 3000)
        self.is_paused_or_cut = True
        self.told.append(f"{world.now_ms - world.began_ms} hot state away")

    def _sql_away(self) -> None:
        world = self.world
        world.sql_away_until_ms = world.now_ms + world.random.randint(100, 4000)
        self.told.append(f"{world.now_ms - world.began_ms} SQL away")

    def _restart_store(self) -> None:
        self.told.append(f"{self.world.now_ms - self.world.began_ms} restart the hot state with its data")
        self.world.restart_store(keep=True)

    def _flush(self) -> None:
        self.told.append(f"{self.world.now_ms - self.world.began_ms} flush")
        self.world.flush()

    def _set_back(self) -> None:
        world = self.world
        world.take_snapshot()
        self.told.append(f"{world.now_ms - world.began_ms} snapshot, and soon a restart from it")
        world.at(world.random.randint(50, 2000), lambda: world.restart_store(keep=False))

    def _step_clock(self) -> None:
        """The clock of the store jumps ahead: live leases expire."""
        self.world.now_ms += 20_000
        self.is_paused_or_cut = True
        self.told.append(f"{self.world.now_ms - self.world.began_ms} the clock jumps by 20 s")

    def _heal(self) -> None:
        """Everything works again, and time passes until nothing is owed."""
        world = self.world
        world.faults = Faults()
        for node in world.nodes:
            node.cut_until_ms = node.sql_cut_until_ms = node.paused_until_ms = 0
            if not node.is_up:
                node.start()
        world.store_away_until_ms = world.sql_away_until_ms = 0
        # Silent times are skipped: what a lease waits for, waits in steps of more than a lease.
        for round_number in range(QUIET_ROUNDS):
            world.run(world.now_ms + 2500)
            if round_number < QUIET_ROUNDS - 4:
                world.skip(QUIET_STEP_MS)
        # What an operator does about hosts that never come back.
        for node in world.nodes:
            if node.has_lost_disk:
                for life in range(1, node.life):
                    name = f"{node.name}.{life}"
                    if name != node.process_id and name not in node.dead_processes:
                        node.dead_processes.append(name)
        world.run(world.now_ms + 12_000)


def run_seed(seed: int, *, trace: bool = False) -> Verdict:
    """One world from its beginning to its rest."""
    world = World(seed, trace=trace)
    story = Story(world)
    story.tell()
    return Verdict(seed, world.sent, story.told, judge(world, story))


def judge(world: World, story: Story) -> list[str]:
    """The oracles; each broken one by its number in the accounting design."""
    broken: list[str] = []
    ledger = world.ledger
    for attempt_id, cost in world.truth.items():
        rows = ledger.rows_of.get(attempt_id, [])
        if len(rows) != 1:
            broken.append(f"1: {attempt_id} is billed {cost} and has {len(rows)} rows")
            continue
        kind, charged = ledger.primaries[rows[0]]
        total = charged + ledger.adjusts.get(attempt_id, 0)
        is_exact = kind in EXACT or attempt_id in ledger.adjusts
        if is_exact and total != cost:
            broken.append(f"2: {attempt_id} cost {cost} and is charged {total}")
        if not is_exact and attempt_id in world.told_exact and not world.data_lost_at:
            broken.append(f"2: {attempt_id} is estimated, though the hot state was told what it cost")
        if total < cost:
            broken.append(f"3: {attempt_id} cost {cost} and is estimated at {total}")
    broken += [f"4: over the limit: {text}" for text in world.over_limit]
    total = sum(cost for _, cost in ledger.primaries.values()) + sum(ledger.adjusts.values())
    counted = sum(spent for spent, _ in ledger.budgets.values())
    if total != counted:
        broken.append(f"5: rows sum up to {total}, budgets to {counted}")
    for team in TEAMS:
        broken += _at_rest(world, team)
    broken += _silent(world)
    gapless = not (world.leases_lost or story.is_paused_or_cut or world.faults_ever)
    if gapless and world.concurrency_seen > CONCURRENCY:
        broken.append(f"8: {world.concurrency_seen} calls at once, {CONCURRENCY} allowed")
    if not world.leases_lost and not story.steps_clock:
        for team, moments in world.admitted_at.items():
            if len(world.limits[team]) > 2 and (most := _most_in(moments, WINDOW_MS)) > REQUESTS:
                broken.append(f"7: {most} requests of {team} within {WINDOW_MS} ms, {REQUESTS} allowed")
    for attempt_id, (kind, _) in ledger.primaries.items():
        if attempt_id not in world.truth and kind == "charge":
            broken.append(f"9: {attempt_id} was never sent and is charged")
    return broken


def _most_in(moments: list[int], span_ms: int) -> int:
    """The most of ``moments`` in any ``span_ms``, wherever it starts."""
    most, start, ordered = 0, 0, sorted(moments)
    for end, moment in enumerate(ordered):
        while ordered[start] <= moment - span_ms:
            start += 1
        most = max(most, end - start + 1)
    return most


def _at_rest(world: World, team: str) -> list[str]:
    broken: list[str] = []
    tag = world.hot._tags.get(team)
    if tag is None:
        return broken
    for window, budget in tag.budgets.items():
        spent = world.ledger.budgets.get(window, (0, 0))[0]
        if budget.epoch != world.ledger.epoch:
            continue
        if budget.held or budget.unconfirmed or any(budget.stand_ins.values()):
            broken.append(f"6: held {budget.held}, unconfirmed {budget.unconfirmed}, {budget.stand_ins} at rest")
        if budget.is_warm and budget.confirmed != spent:
            broken.append(f"6: confirmed {budget.confirmed}, in SQL {spent}")
    if tag.due:
        broken.append(f"6: due at rest: {sorted(tag.due)}")
    broken += [
        f"6: {gauge.held()} leases at rest"
        for gauge in tag.gauges.values()
        if isinstance(gauge, Leases) and not gauge.is_idle(world.now_ms)
    ]
    return broken


def _silent(world: World) -> list[str]:
    broken = [
        f"6: {node.name} holds {node.accountant.holdings!r}, queue {len(node.queue)} at rest"
        for node in world.nodes
        if len(node.accountant.holdings) or node.queue or node.accountant.unconfirmed
    ]
    if not any(node.epochs.is_open for node in world.nodes):
        broken.append("6: nobody admits anything at rest")
    return broken
