"""Orders and the messages that tell of them: written in one transaction, handled afterwards.

- The shop writes an order and its message over its own connection. One order is refused after its
  message was enqueued: the transaction is rolled back, and nobody hears of it.
- A loop claims messages and handles them. The mail server is down at first: those messages come
  again. One address does not exist: its message is dead, with its reason, until somebody corrects
  the address and requeues it.
- A worker claims a message and is never heard of again: when its lease is over, the next claim has
  the message.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path

import anabranch as ab

SCHEMA = "create table orders (id integer primary key, customer text unique, mail text)"
ORDERS = [
    ("ada", "ada@example.org"),
    ("bob", "bob@nowhere"),
    ("ada", "ada@example.org"),  # refused: one order per customer
    ("cleo", "cleo@example.org"),
]


def shop(conn: sqlite3.Connection, outbox: ab.Outbox) -> None:
    """Write the orders, each with its message."""
    for number, (customer, mail) in enumerate(ORDERS, start=1):
        try:
            with conn:  # commits both, or neither
                outbox.enqueue(conn, "order.created", {"order": number}, ordering_key=customer)
                conn.execute("insert into orders values (?, ?, ?)", (number, customer, mail))
        except sqlite3.IntegrityError:
            print(f"order {number} of {customer} is refused")


def confirm(conn: sqlite3.Connection, message: ab.Message) -> None:
    """Send the mail of one order."""
    number = message.payload["order"]
    [mail] = conn.execute("select mail from orders where id = ?", (number,)).fetchone()
    if message.attempt == 1 and number == 1:
        raise ConnectionError("the mail server is down")
    if not mail.endswith(".org"):
        raise ValueError(f"{mail} does not exist")
    print(f"order {number}: mail to {mail}, attempt {message.attempt}")


def work(conn: sqlite3.Connection, outbox: ab.Outbox, *, lease: float = 60.0) -> None:
    """Handle what can be claimed now."""
    for message in outbox.claim(lease=lease):
        try:
            confirm(conn, message)
        except ConnectionError as error:
            outbox.abandon(message, error=error, delay=0)
        except ValueError as error:
            outbox.fail(message, error)
        else:
            outbox.ack(message)


def main() -> None:
    """Run the shop, and what sends its mails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.db"
        with (
            contextlib.closing(sqlite3.connect(path)) as conn,
            ab.Outbox(f"sqlite:///{path}") as outbox,
        ):
            outbox.migrate()
            conn.execute(SCHEMA)
            shop(conn, outbox)
            work(conn, outbox)
            work(conn, outbox)  # what was abandoned
            [dead] = outbox.messages(status="dead")
            print(f"dead: order {dead.payload['order']}: {dead.errors[-1].error}")
            with conn:
                conn.execute("update orders set mail = 'bob@example.org' where customer = 'bob'")
            outbox.requeue([dead])

            with ab.Outbox(f"sqlite:///{path}") as lost:
                lost.claim(lease=0.05)  # and never heard of again
            while not outbox.peek():
                time.sleep(0.01)
            work(conn, outbox)
            print(outbox.counts())


if __name__ == "__main__":
    main()
