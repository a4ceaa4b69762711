"""What became of messages, on its way back to their store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anabranch._outbox.delivery import DONE, Delivery, Share, Verdict

if TYPE_CHECKING:
    from anabranch._outbox.store import Division, Receipt


class Outcomes:
    """What is to be written back."""

    def __init__(self) -> None:
        self.acks: list[Receipt] = []
        self.again: list[tuple[int, int, int, int, str | None]] = []
        self.dead: list[tuple[int, int, int, str]] = []
        self.divided: list[Division] = []
        self.releases: list[Receipt] = []

    def __len__(self) -> int:
        failed = len(self.again) + len(self.dead)
        return len(self.acks) + failed + len(self.divided) + len(self.releases)

    def take(self, delivery: Delivery, verdict: Verdict) -> None:
        row = delivery._row  # noqa: SLF001 - the package's
        receipt = (row[0], row[17], row[20])
        if verdict is DONE:
            self.acks.append(receipt)
            return
        wait = round(verdict.delay * 1000)
        if verdict.kind == "again":
            self.again.append((*receipt, wait, verdict.error))
        elif verdict.kind == "dead":
            self.dead.append((*receipt, verdict.error or ""))
        elif wait:
            self.divided.append((*receipt, wait, None, None, None, False))
        else:
            self.releases.append(receipt)

    def add(self, share: Share, elapsed: int) -> int | None:
        """Take what became of the parts of a message, so many milliseconds after its claim.

        Returns:
            In how many milliseconds it is due again; None: that is not known, or it has ended.
        """
        division = share.divided(elapsed)
        if division is None:
            self.acks.append((share.row[0], share.row[17], share.row[20]))
            return None
        self.divided.append(division)
        return division[3]


def by_id(given: Any) -> Any:  # noqa: ANN401 - a receipt, and what else there is to know
    return given[:3]


def parts_of(entry: Delivery | Share) -> list[Delivery]:
    if isinstance(entry, Delivery):
        return [entry]
    return [it for name, it in entry.parts.items() if not entry.settled(name)]


def receipt_of(entry: Delivery | Share) -> Receipt:
    row: Any = entry._row if isinstance(entry, Delivery) else entry.row  # noqa: SLF001 - its own
    return (row[0], row[17], row[20])
