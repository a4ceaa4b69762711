"""`anabranch outbox`: what it does, on one outbox after the other; how it tells is elsewhere."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from anabranch import _core
from anabranch._outbox.command_told import (
    Progress,
    complain,
    confirmed,
    plain,
    say,
    shown_message,
    table,
    when,
    words,
)
from anabranch._outbox.doctor import examine
from anabranch._outbox.store import DEAD, DONE, READY, Which
from anabranch.errors import AnabranchError, ConfigError, SchemaMismatch, StoreUnavailable
from anabranch.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anabranch._outbox.message import Message

OK: Final = 0
USAGE: Final = 2
LOST: Final = 4
REFUSED: Final = 5
FAILED: Final = 6
INTERRUPTED: Final = 130  # as a shell tells of SIGINT

_STATUSES: Final = ("ready", "scheduled", "leased", "paused", "parked", "dead", "done")
_MILLISECONDS: Final = 1000


def main(argv: Sequence[str]) -> int:
    """Run the command; `argv` begins with `outbox`."""
    sys.stdout.flush()
    code, told = _core.outbox_arguments(["anabranch", *argv])
    if told is None:
        return code
    asked: dict[str, Any] = json.loads(told)
    try:
        if asked["verb"] == "work":
            from anabranch._outbox.command_work import work

            return work(asked["worker"], once=asked["once"])
        return Command(asked).run()
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except ConfigError as error:
        complain(str(error))
        return USAGE


def code_of(error: AnabranchError) -> int:
    """Return the exit code that says what went wrong."""
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, StoreUnavailable):
        return REFUSED if error.reason == "denied" else LOST
    return FAILED


class Command:
    """One call of the command: `anabranch outbox VERB URL…`.

    Args:
        asked: What is asked for, as the command line says.
    """

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._code = OK
        self._several = len(asked["url"]) > 1
        # What is printed at the end, of each outbox.
        self._told: list[dict[str, Any]] = []

    def run(self) -> int:
        """Do it to each outbox, and tell; what went wrong with one does not stop the others."""
        asked = self._asked
        if self._several and asked.get("id"):
            raise ConfigError("--id means a message of one outbox: give one URL")
        outboxes = [self._opened(url) for url in asked["url"]]
        try:
            act: Callable[[Outbox], dict[str, Any]] = getattr(self, f"_{asked['verb']}")
            tenant = asked["tenant"]
            for outbox in outboxes:
                self._do(act, outbox if tenant is None else outbox.tenant(tenant))
        finally:
            for outbox in outboxes:
                outbox.close()
        if asked["json"]:
            say(json.dumps({"outboxes": self._told}, ensure_ascii=False, indent=2))
        else:
            self._print()
        return self._code

    def _opened(self, url: str) -> Outbox:
        if url.startswith("env:"):
            name = url.removeprefix("env:")
            found = os.environ.get(name)
            if not found:
                raise ConfigError(f"there is no environment variable {name!r} with a URL")
            url = found
        return Outbox(url, prefix=self._asked["prefix"], schema=self._asked["schema"])

    def _do(self, act: Callable[[Outbox], dict[str, Any]], outbox: Outbox) -> None:
        label = outbox._store.label  # noqa: SLF001 - the command is the package's
        told: dict[str, Any] = {"store": label}
        try:
            told |= act(outbox)
        except AnabranchError as error:
            self._fail(code_of(error))
            text = _on_the_command_line(error)
            told["error"] = {"code": getattr(error, "code", "failed"), "message": text}
            complain(text)
        self._told.append(told)

    def _fail(self, code: int) -> None:
        self._code = self._code or code

    # -- what is done

    def _migrate(self, outbox: Outbox) -> dict[str, Any]:
        return {"migrated": outbox.migrate()}

    def _status(self, outbox: Outbox) -> dict[str, Any]:
        counts = outbox.counts()
        totals = dict.fromkeys(_STATUSES, 0)
        for topic in counts.values():
            for status, count in topic.items():
                totals[status] += count
        ages = outbox.ages()
        return {
            "totals": totals,
            "topics": counts,
            "oldest_ready_seconds": ages.ready,
            "longest_held_seconds": ages.held,
            "paused": [{"topic": it.topic, "since": when(it.since)} for it in outbox.paused()],
            "subscriptions": [
                {"subscriber": it.subscriber, "topic": it.pattern} for it in outbox.subscriptions()
            ],
        }

    def _list(self, outbox: Outbox) -> dict[str, Any]:
        asked = self._asked
        found = outbox.messages(
            status=asked.get("status"),
            topic=asked["topic"],
            after=asked["after"],
            limit=asked["limit"],
        )
        return {"messages": [shown_message(message) for message in found]}

    def _dead(self, outbox: Outbox) -> dict[str, Any]:
        self._asked["status"] = "dead"
        return self._list(outbox)

    def _show(self, outbox: Outbox) -> dict[str, Any]:
        found: list[Message] = []
        for id_ in self._asked["id"]:
            page = outbox.messages(after=id_ - 1, limit=1)
            if page and page[0].id == id_:
                found += page
            else:
                complain(f"there is no message {id_}: it is done, retracted, purged, or never was")
                self._fail(FAILED)
        return {"messages": [shown_message(message, payload=True) for message in found]}

    def _requeue(self, outbox: Outbox) -> dict[str, Any]:
        which = self._which()
        done = "ready again"
        return self._change(outbox, DEAD, which, done, outbox._requeued(which))  # noqa: SLF001 - as above

    def _cancel(self, outbox: Outbox) -> dict[str, Any]:
        which = self._which()
        steps = outbox._cancelled(which, self._asked["reason"])  # noqa: SLF001 - as above
        return self._change(outbox, READY, which, "dead", steps)

    def _purge(self, outbox: Outbox) -> dict[str, Any]:
        state = DEAD if self._asked["status"] == "dead" else DONE
        which = self._which(round(self._asked["older_than"] * _MILLISECONDS))
        steps = outbox._purged(state, which)  # noqa: SLF001 - as above
        return self._change(outbox, state, which, "gone for ever", steps, destroys=True)

    def _which(self, older_than: int = 0) -> Which:
        return Which(self._asked["id"] or None, self._asked["topic"], older_than)

    def _change(
        self,
        outbox: Outbox,
        state: int,
        which: Which,
        done: str,
        steps: Iterator[int],
        *,
        destroys: bool = False,
    ) -> dict[str, Any]:
        asked, verb = self._asked, self._asked["verb"]
        store = outbox._store  # noqa: SLF001 - as above
        count = store.chosen(state, which)
        kind = ("", "dead ", "done ")[state]
        meant = f"{count:,} {kind}message{'' if count == 1 else 's'} of {plain(store.label)}"
        if asked["dry_run"]:
            return {"would": count, "done": done}
        if destroys and count and not asked["yes"]:
            code = confirmed(verb, f"{meant} would be {done}")
            if code is not None:
                self._fail(code)
                return {"changed": 0, "done": done}
        changed = 0
        with Progress(f"{verb} {plain(store.label)}", count) as progress:
            for step in steps:
                changed += step
                progress.tell(changed)
        return {"changed": changed, "done": done}

    def _pause(self, outbox: Outbox) -> dict[str, Any]:
        outbox.pause(self._asked["topic"])
        return {"paused": [it.topic for it in outbox.paused()]}

    def _resume(self, outbox: Outbox) -> dict[str, Any]:
        if not outbox.resume(self._asked["topic"]):
            complain(f"{self._asked['topic']!r} was not paused; see what is with `status`")
            self._fail(FAILED)
        return {"paused": [it.topic for it in outbox.paused()]}

    def _workers(self, outbox: Outbox) -> dict[str, Any]:
        return {"workers": [it.told() for it in outbox.workers()]}

    def _doctor(self, outbox: Outbox) -> dict[str, Any]:
        findings = examine(outbox)
        if any(it.level != "info" for it in findings):
            self._fail(FAILED)
        return {"findings": [it._asdict() for it in findings]}

    # -- what is told

    def _print(self) -> None:
        worked = [it for it in self._told if "error" not in it]
        if worked:
            getattr(self, f"_print_{self._asked['verb']}", self._print_each)(worked)

    def _print_each(self, told: list[dict[str, Any]]) -> None:
        for one in told:
            say(f"{plain(one['store'])}: {words(one)}")

    def _print_status(self, told: list[dict[str, Any]]) -> None:
        rows = [
            [one["store"], topic, *(counts.get(status, 0) for status in _STATUSES)]
            for one in told
            for topic, counts in [*one["topics"].items(), ("(all)", one["totals"])]
        ]
        self._table(["TOPIC", *(it.upper() for it in _STATUSES)], rows)
        for one in told:
            store = f"{plain(one['store'])}: " if self._several else ""
            for text in words(one).splitlines():
                say(store + text)

    def _print_list(self, told: list[dict[str, Any]]) -> None:
        head = ["ID", "TOPIC", "STATUS", "PRIORITY", "ATTEMPT", "DUE", "KEY", "ERROR"]
        rows = [
            [
                one["store"],
                it["id"],
                it["topic"],
                it["status"],
                it["priority"],
                it["attempt"],
                it["due_at"],
                it["ordering_key"] or "",
                it["errors"][-1]["error"] if it["errors"] else "",
            ]
            for one in told
            for it in one["messages"]
        ]
        self._table(head, rows)

    def _print_dead(self, told: list[dict[str, Any]]) -> None:
        rows = [
            [
                one["store"],
                it["id"],
                it["topic"],
                it["ended_at"],
                it["attempt"],
                it["errors"][-1]["error"] if it["errors"] else "",
            ]
            for one in told
            for it in one["messages"]
        ]
        self._table(["ID", "TOPIC", "DIED", "ATTEMPTS", "ERROR"], rows)

    def _print_show(self, told: list[dict[str, Any]]) -> None:
        for message in (it for one in told for it in one["messages"]):
            say(words(message))

    def _print_workers(self, told: list[dict[str, Any]]) -> None:
        head = ["ID", "NAME", "HOST", "PID", "SUBSCRIBERS", "IN HAND", "HANDLED", "SEEN"]
        rows = [
            [
                one["store"],
                *(it[key] for key in ("id", "name", "host", "pid")),
                ", ".join(it["subscribers"]),
                *(it[key] for key in ("in_hand", "handled", "seen_at")),
            ]
            for one in told
            for it in one["workers"]
        ]
        self._table(head, rows)

    def _print_doctor(self, told: list[dict[str, Any]]) -> None:
        for one in told:
            for finding in one["findings"]:
                advice = f"; {finding['advice']}" if finding["advice"] else ""
                say(f"{finding['level']:7}  {plain(one['store'])}: {finding['what']}{advice}")
            if not one["findings"]:
                say(f"ok       {plain(one['store'])}")

    def _table(self, head: list[str], rows: Sequence[Sequence[object]]) -> None:
        if self._several:
            say(table(["STORE", *head], rows))
        else:
            say(table(head, [row[1:] for row in rows]))


def _on_the_command_line(error: AnabranchError) -> str:
    text = str(error)
    if isinstance(error, SchemaMismatch) and error.found is not None:
        return text.replace("call outbox.migrate() once", "run `anabranch outbox migrate` once")
    return text
