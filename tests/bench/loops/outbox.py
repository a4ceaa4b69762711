"""An outbox written by hand: a table, an index, and a loop that claims and deletes in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stores import BODY, TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores import Bench

BATCH = 1000

_TABLES = {
    "postgres": (
        """create table if not exists by_hand (
          id bigserial primary key, topic text not null, body bytea not null,
          status smallint not null default 0, due_at timestamptz not null default now(),
          locked_until timestamptz)""",
        "create index if not exists by_hand_due on by_hand (due_at, id) where status = 0",
    ),
    "sqlite": (
        """create table if not exists by_hand (
          id integer primary key, topic text not null, body blob not null,
          status integer not null default 0, due_at real not null default (unixepoch()),
          locked_until real)""",
        "create index if not exists by_hand_due on by_hand (due_at, id) where status = 0",
    ),
}
_FILL = {
    "postgres": "insert into by_hand (topic, body) select %s, %s from generate_series(1, %s)",
    "sqlite": """with recursive n(n) as (select 1 union all select n + 1 from n where n < ?3)
      insert into by_hand (topic, body) select ?1, ?2 from n""",
}
_CLAIM = {
    "postgres": f"""update by_hand set status = 1, locked_until = now() + interval '60 seconds'
      where id in (
        select id from by_hand where status = 0 and due_at <= now()
        order by due_at, id limit {BATCH} for update skip locked
      ) returning id, topic, body""",
    "sqlite": f"""update by_hand set status = 1, locked_until = unixepoch() + 60
      where id in (
        select id from by_hand where status = 0 and due_at <= unixepoch()
        order by due_at, id limit {BATCH}
      ) returning id, topic, body""",
}
_LOCK = f"""select id, topic, body from by_hand where status = 0 and due_at <= now()
  order by due_at, id limit {BATCH} for update skip locked"""


def fill(bench: Bench, count: int) -> None:
    """Make the table, and that many messages in it."""
    with bench.connect() as conn:
        for sql in _TABLES[bench.kind]:
            conn.execute(sql)
        conn.execute("delete from by_hand")
        if count:
            conn.execute(_FILL[bench.kind], (TOPIC, BODY, count))
        conn.commit()
    if bench.kind == "postgres":
        bench.settle()


def claim_and_delete(bench: Bench, handle: Callable[[Any], None]) -> None:
    """Claim for a minute, handle, delete."""
    options = {"isolation_level": None} if bench.kind == "sqlite" else {"autocommit": True}
    conn = bench.connect(**options)
    claim = _CLAIM[bench.kind]
    while rows := conn.execute(claim).fetchall():
        for row in rows:
            handle(row)
        ids = [row[0] for row in rows]
        if bench.kind == "postgres":
            conn.execute("delete from by_hand where id = any(%s)", (ids,))
        else:
            marks = ",".join("?" * len(ids))
            conn.execute(f"delete from by_hand where id in ({marks})", ids)
    conn.close()


def in_one_transaction(bench: Bench, handle: Callable[[Any], None]) -> None:
    """Lock, handle, delete and commit."""
    conn = bench.connect()
    while rows := conn.execute(_LOCK).fetchall():
        for row in rows:
            handle(row)
        conn.execute("delete from by_hand where id = any(%s)", ([row[0] for row in rows],))
        conn.commit()
    conn.close()


def insert_one_by_one(bench: Bench, count: int) -> None:
    """Insert into the outbox's own table, and no more."""
    mark = "?" if bench.kind == "sqlite" else "%s"
    now = (
        "cast((julianday('now') - 2440587.5) * 86400000 as integer)"
        if bench.kind == "sqlite"
        else "cast(extract(epoch from statement_timestamp()) * 1000 as bigint)"
    )
    sql = (
        "insert into outbox_message (topic, body, format, priority, enqueued_at, due_at) "
        f"values ({mark}, {mark}, 2, 5, {now}, {now})"
    )
    with bench.connect() as conn:
        cursor = conn.cursor()
        for _ in range(count):
            cursor.execute(sql, (TOPIC, BODY))
        conn.commit()
