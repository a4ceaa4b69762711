"""One order writes three messages in its transaction; three handlers, one of which fails.

- The shop writes an order and three messages of three topics in one transaction, which also makes
  a join: `order.settled` follows when all three are handled.
- The projection is in the shop's own database. Its worker acks inline: what it writes and its ack
  are one transaction, so each order is counted exactly once, though its first batch fails.
- Mail and broker are elsewhere, so they are at least once. The mail server is down at first: those
  messages come again. The broker refuses one order for good: that message is dead, and the join of
  its order fails, which is told, too.
- Nobody hears of an order that is refused: its messages were rolled back with it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import anabranch as ab

SCHEMA = """
create table orders (id integer primary key, customer text, amount integer check (amount > 0));
create table revenue (customer text primary key, amount integer);
"""
ORDERS = [(1, "ada", 30), (2, "bob", 20), (3, "ada", 12), (4, "cleo", -5), (5, "dan", 8)]
AGAIN = ab.Retry.fixed(0.0, attempts=3, retry_on=Exception)


class Shop:
    """The shop's database, its outbox, and what the world outside has got."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shop.db"
        self.outbox = ab.Outbox(f"sqlite:///{self.path}")
        self.outbox.migrate()
        self.conn = self.connect()
        self.conn.executescript(SCHEMA)
        self.mails: list[int] = []
        self.published: list[int] = []
        self.settled: list[int] = []
        self.broken: list[int] = []
        self.calls: Counter[str] = Counter()

    def connect(self) -> sqlite3.Connection:
        """Make a connection that the worker's threads may use."""
        return sqlite3.connect(self.path, check_same_thread=False)

    def close(self) -> None:
        """Let go of the file."""
        self.outbox.close()
        self.conn.close()

    def order(self, number: int, customer: str, amount: int) -> None:
        """Write an order, its three messages, and what follows them: all of it, or nothing."""
        told = {"order": number, "customer": customer, "amount": amount}
        with self.conn:
            join = self.outbox.join(
                self.conn,
                expected=3,
                then=ab.Draft("order.settled", told),
                otherwise=ab.Draft("order.broken", told),
            )
            topics = ("order.projection", "order.mail", "order.broker")
            drafts = [ab.Draft(topic, told, join=join) for topic in topics]
            self.outbox.enqueue_many(self.conn, drafts)
            self.conn.execute("insert into orders values (?, ?, ?)", (number, customer, amount))

    def projection(self) -> ab.OutboxWorker:
        """Make the worker whose effects are in the shop's own database."""
        worker = ab.OutboxWorker(self.outbox, name="projection", ack="inline", connect=self.connect)

        @worker.on("order.projection", retry=AGAIN)
        def project(message: ab.Message) -> None:
            self.calls["projection"] += 1
            message.connection.execute(
                "insert into revenue values (:customer, :amount)"
                " on conflict (customer) do update set amount = amount + excluded.amount",
                message.payload,
            )
            if self.calls["projection"] == 2:
                raise ConnectionError("cut off in the middle of a batch")

        return worker

    def elsewhere(self) -> ab.OutboxWorker:
        """Make the worker whose effects are elsewhere."""
        worker = ab.OutboxWorker(self.outbox, name="elsewhere")

        @worker.on("order.mail", retry=AGAIN)
        def mail(message: ab.Message) -> None:
            self.calls["mail"] += 1
            if message.attempt == 1:
                raise ConnectionError("the mail server is down")
            self.mails.append(message.payload["order"])

        @worker.on("order.broker", retry=AGAIN)
        def publish(message: ab.Message) -> None:
            self.calls["broker"] += 1
            if message.payload["customer"] == "bob":
                raise ab.Reject("no such exchange")
            self.published.append(message.payload["order"])

        @worker.on("order.settled")
        def settle(message: ab.Message) -> None:
            self.settled.append(message.payload["order"])

        @worker.on("order.broken")
        def tell(message: ab.Message) -> None:
            self.broken.append(message.payload["order"])

        return worker


def run(shop: Shop) -> None:
    """Take the orders, and handle what they have told."""
    workers = (shop.projection(), shop.elsewhere())
    for worker in workers:
        worker.run_once_blocking()  # from now on the outbox knows who hears of what
    for order in ORDERS:
        try:
            shop.order(*order)
        except sqlite3.IntegrityError:
            print(f"order {order[0]} is refused")
    while sum(worker.run_once_blocking() for worker in workers):
        pass
    revenue = shop.conn.execute("select customer, amount from revenue order by customer")
    print("revenue:", dict(revenue.fetchall()))
    print("mails:", sorted(shop.mails))
    print("published:", sorted(shop.published))
    print("settled:", sorted(shop.settled), "broken:", sorted(shop.broken))
    for dead in shop.outbox.messages(status="dead"):
        print(f"dead: order {dead.payload['order']} of {dead.topic}: {dead.errors[-1].error}")


def main() -> None:
    """Run it in a folder that goes away."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Shop(Path(folder))) as shop,
    ):
        run(shop)


if __name__ == "__main__":
    main()
