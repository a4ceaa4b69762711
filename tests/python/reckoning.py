"""What must have come of a storm: who registered what, which items ended well, and when.

It knows nothing of the engine; `storms` draws the pipelines, runs them, and notes what happens.
"""

from collections import Counter
from dataclasses import dataclass, field


def leaves(value):
    """The items a value stands for."""
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


@dataclass
class Action:
    """One that was registered: for which items, when, at which level."""

    at: int
    items: list
    level: str
    finalizer: bool
    # The branch it was registered in.
    tenant: int | None = None
    failed: bool = False
    ran: list = field(default_factory=list)


class Reckoning:
    """The checks of one trial, on what it has noted."""

    def check(self, report):
        ended = report.committed + report.filtered + report.failed + report.dropped
        ended += report.dead_lettered + report.returned + report.left
        assert report.received + report.produced == ended, report
        # Nothing here swallows its cancellation.
        assert report.abandoned == 0, report.abandonments
        assert report.committed == len(self.committed)
        assert report.filtered == len(self.filtered)
        assert report.dead_lettered == len(self.letters)
        assert sum(report.codes.values()) == report.failed
        once = Counter(self.committed) + Counter(self.filtered) + Counter(self.letters)
        assert not once or max(once.values()) == 1, "an item has ended twice"
        assert report.stuck == self.broken_undos
        self.good = set(self.committed) | set(self.filtered)
        for action in self.actions:
            times = len(action.ran)
            if action.finalizer:
                assert times == 1, f"C15: {action} ran {times} times"
            elif self.policy == "none":
                assert times == 0, f"C13: {action}"
            else:
                assert times <= 1, f"C5: {action}"
                self.check_due(action, report)
        if self.policy == "sequential":
            self.check_order()

    def check_due(self, action, report):
        """Check that an action ran if what it belongs to has failed, and only then.

        For one of a unit that is its attempt or, later, an item that stands on it.
        """
        ran = bool(action.ran)
        sound = report.outcome in ("completed", "drained")
        lost = report.failed + report.left + report.dropped
        at_end = self.commit == "end"
        # An abort that comes when all has ended, and commits, changes nothing any more.
        undone = report.outcome == "failed" or (not sound and report.left > 0)
        undone = undone or (at_end and lost > 0)
        # A branch that has failed, or was restarted, is undone, and with it all or nothing.
        kept = sound and not undone and not (at_end and self.fanned)
        if action.level == "unit":
            bad = action.failed or self.failed_later(action)
            bad = bad or not all(map(self.ended_well, action.items))
            undone = bad or (at_end and undone)
            kept = not bad and (kept or not at_end)
        elif action.tenant is not None and action.level == "branch":
            undone, kept = self.due_with_branch(action, undone=undone, kept=sound and not undone)
        assert ran or not undone, f"C9, C17, C19: {action} was not undone"
        assert not (ran and kept), f"C11: {action} was committed"

    def due_with_branch(self, action, *, undone, kept):
        """Return whether the end of its branch undoes an action for certain, and whether never."""
        at_end = self.commit == "end"
        may_end_well = self.idle_ttl is not None or action.tenant in self.closed
        broken = self.broken.get(action.tenant, 0)
        may_break = self.failed or self.on_branch_error != "continue"
        undone = undone if at_end else undone and not may_end_well
        fails = action.at < broken < self.called and self.idle_ttl is None
        return undone or fails, kept and not may_break

    def failed_later(self, action):
        later = (leaf for at, items in self.failures if at > action.at for leaf in items)
        own = set(action.items)
        return any(leaf[:size] in own for leaf in later for size in range(1, len(leaf) + 1))

    def ended_well(self, item):
        """Whether it has, or all that was made of it."""
        if self.children.get(item):
            return all(map(self.ended_well, self.children[item]))
        return item in self.good

    def check_order(self):
        """Along the way of each item: the last registered first, but for what came later."""
        ran = [it for it in self.actions if it.ran]
        ran.sort(key=lambda it: it.ran[0])
        last = {}
        for action in ran:
            for item in action.items:
                # What belongs to the branch or the run has its turn at their end.
                key = (item, action.finalizer, action.level)
                before = last.get(key)
                if before is not None:
                    assert action.at < before.at or action.at > before.ran[0], (
                        f"C1: {action} after {before}"
                    )
                last[key] = action
