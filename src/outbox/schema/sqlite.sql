-- The tables of an outbox in SQLite, by version: a released version never changes, what comes
-- later is another one. Times are milliseconds since 1970, by the database's clock.
--
-- Whose a message is stands in no index, but for messages with an ordering key: a claim and its ack
-- would otherwise write the index, too. Messages that are done leave the table, unless they are archived.

-- version 1
create table {prefix}meta (
  name text primary key,
  value integer not null
) without rowid;

insert into {prefix}meta (name, value) values ('version', 0), ('owner', 0), ('subscriptions', 0);

-- state: 0 to be handled, 1 dead, 2 done. format: 0 bytes, 1 text, 2 JSON. claims: how
-- often it was claimed; attempt: the same, less what was released, and from 0 again when requeued.
-- waiting: the subscribers it still waits for, a JSON array; null: it was not divided among them yet.
create table {prefix}message (
  id integer primary key autoincrement,
  topic text not null,
  body blob not null,
  format integer not null,
  headers text,
  correlation_id text,
  traceparent text,
  ordering_key text,
  dedupe_key text,
  priority integer not null check (priority between 0 and 9),
  state integer not null default 0,
  enqueued_at integer not null,
  due_at integer not null,
  expires_at integer,
  ended_at integer,
  attempt integer not null default 0,
  claims integer not null default 0,
  errors text,
  owner integer,
  leased_until integer,
  waiting text,
  progress text,
  join_id integer,
  claimed_at integer
);

create index {prefix}message_due on {prefix}message (priority, due_at, id) where state = 0;

create index {prefix}message_ordering on {prefix}message (ordering_key, id)
  where state = 0 and ordering_key is not null;

create index {prefix}message_held on {prefix}message (ordering_key)
  where state = 0 and ordering_key is not null and owner is not null;

create index {prefix}message_expires on {prefix}message (expires_at)
  where state = 0 and expires_at is not null;

create index {prefix}message_ended on {prefix}message (state, ended_at) where state <> 0;

create table {prefix}dedupe (
  key text primary key,
  digest blob not null,
  message_id integer not null,
  until integer not null
) without rowid;

create index {prefix}dedupe_until on {prefix}dedupe (until);

create table {prefix}done (
  topic text primary key,
  count integer not null
) without rowid;

-- since: the last message there was before it.
create table {prefix}subscription (
  subscriber text not null,
  pattern text not null,
  since integer not null,
  primary key (subscriber, pattern)
) without rowid;

-- What handlers have noted in the transactions of what they did, and until when it is known.
create table {prefix}inbox (
  key text primary key,
  until integer not null
) without rowid;

create index {prefix}inbox_until on {prefix}inbox (until);

-- What waits for members that have ended. state: 0 open, 1 done, 2 failed, 3 expired, 4 cancelled.
create table {prefix}join (
  id integer primary key autoincrement,
  expected integer not null,
  quorum integer not null,
  tolerates integer not null,
  done integer not null default 0,
  failed integer not null default 0,
  state integer not null default 0,
  deadline integer,
  ended_at integer
);

create index {prefix}join_deadline on {prefix}join (deadline) where state = 0 and deadline is not null;

create index {prefix}join_ended on {prefix}join (ended_at) where state <> 0;

-- Its members, whether they are handled or not: so that none is counted twice.
create table {prefix}member (
  join_id integer not null,
  message_id integer not null,
  primary key (join_id, message_id)
) without rowid;

-- What follows. outcome: 1 when it is done, 2 when it has failed or expired.
create table {prefix}follow (
  join_id integer not null,
  outcome integer not null,
  topic text not null,
  body blob not null,
  format integer not null,
  headers text,
  correlation_id text,
  traceparent text,
  ordering_key text,
  priority integer not null,
  due integer,
  delay integer,
  ttl integer,
  primary key (join_id, outcome)
) without rowid;

-- What is planned by the calendar: when next, how far it has come, and who is at it.
create table {prefix}plan (
  name text primary key,
  cadence text not null,
  next_at integer not null,
  cursor text,
  owner integer,
  leased_until integer
) without rowid;

-- Topics, or beginnings of topics and `*`, that nobody claims messages of.
create table {prefix}pause (
  pattern text primary key,
  since integer not null
) without rowid;

-- Who works on it, and until when that is believed. id: the owner of what it claims.
create table {prefix}worker (
  id integer primary key,
  told text not null,
  started_at integer not null,
  seen_at integer not null,
  until integer not null
);

-- version 2
-- Whose a message is, where one table holds those of many tenants. In keys, '' is nobody's.
alter table {prefix}message add column tenant text;

create index {prefix}message_tenant on {prefix}message (tenant, priority, due_at, id)
  where state = 0 and tenant is not null;

alter table {prefix}join add column tenant text;

alter table {prefix}follow add column tenant text;

-- A key cannot be altered: these tables are made anew.
alter table {prefix}done rename to {prefix}done_1;

create table {prefix}done (
  topic text not null,
  tenant text not null default '',
  count integer not null,
  primary key (topic, tenant)
) without rowid;

insert into {prefix}done (topic, count) select topic, count from {prefix}done_1;

drop table {prefix}done_1;

alter table {prefix}dedupe rename to {prefix}dedupe_1;

create table {prefix}dedupe (
  key text not null,
  tenant text not null default '',
  digest blob not null,
  message_id integer not null,
  until integer not null,
  primary key (key, tenant)
) without rowid;

insert into {prefix}dedupe (key, digest, message_id, until) select key, digest, message_id, until from {prefix}dedupe_1;

drop table {prefix}dedupe_1;

alter table {prefix}inbox rename to {prefix}inbox_1;

create table {prefix}inbox (
  key text not null,
  tenant text not null default '',
  until integer not null,
  primary key (key, tenant)
) without rowid;

insert into {prefix}inbox (key, until) select key, until from {prefix}inbox_1;

drop table {prefix}inbox_1;

alter table {prefix}plan rename to {prefix}plan_1;

create table {prefix}plan (
  name text not null,
  tenant text not null default '',
  cadence text not null,
  next_at integer not null,
  cursor text,
  owner integer,
  leased_until integer,
  primary key (name, tenant)
) without rowid;

insert into {prefix}plan (name, cadence, next_at, cursor, owner, leased_until) select name, cadence, next_at, cursor, owner, leased_until from {prefix}plan_1;

drop table {prefix}plan_1;

alter table {prefix}pause rename to {prefix}pause_1;

create table {prefix}pause (
  pattern text not null,
  tenant text not null default '',
  since integer not null,
  primary key (pattern, tenant)
) without rowid;

insert into {prefix}pause (pattern, since) select pattern, since from {prefix}pause_1;

drop table {prefix}pause_1;

create index {prefix}dedupe_until on {prefix}dedupe (until);

create index {prefix}inbox_until on {prefix}inbox (until);
