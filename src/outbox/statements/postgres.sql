-- What is done with the tables of an outbox in PostgreSQL, statement by statement. `{tables}` is what
-- their names begin with, after the schema if one was named; `{now}`, `{row}` and the like are the
-- fragments at the beginning. An outbox may be that of one tenant of the table: then `{mine}` tells
-- its rows from those of others, and `{whose}` is what stands in keys, which is '' without a tenant.

-- Not now(), which stands still within a transaction, and may be earlier than the commit that woke
-- a worker. A query of its own is evaluated once a statement, not for every row.
-- fragment now
(select cast(extract(epoch from statement_timestamp()) * 1000 as bigint))

-- A message as the reader of rows expects it.
-- fragment row
m.id, m.topic, m.body, m.format, m.headers, m.correlation_id, m.traceparent, m.ordering_key,
  m.dedupe_key, m.priority, m.state, m.enqueued_at, mod(m.due_at, {far}), m.expires_at, m.ended_at, m.attempt,
  cast(m.errors as text), m.owner, m.leased_until, {now}, m.claims, cast(m.waiting as text), m.progress,
  m.join_id, m.claimed_at, m.tenant

-- The same in brief: what most messages have none of is one column, and what is the same in all of a
-- claim is none. To write a column, send and read it costs as much as to look at the row's lease.
-- fragment brief
m.id, m.topic, m.body, m.format, m.priority, m.enqueued_at, m.due_at, m.attempt, m.claims,
  m.ordering_key, m.tenant, {now},
  case when num_nonnulls(m.headers, m.correlation_id, m.traceparent, m.dedupe_key, m.expires_at, m.errors,
    m.waiting, m.progress, m.join_id) > 0
  then cast(json_build_array(m.headers, m.correlation_id, m.traceparent, m.dedupe_key, m.expires_at,
    cast(m.errors as text), cast(m.waiting as text), m.progress, m.join_id) as text) end

-- A message of a topic that is paused, for all or for its tenant. Each array is made once for a
-- statement.
-- fragment paused
(m.topic = any (array(select pattern from {tables}pause where tenant = ''))
        or m.topic ^@ any (array(
          select left(pattern, -1) from {tables}pause where tenant = '' and right(pattern, 1) = '*'))
        or (m.tenant is not null and exists (
          select from {tables}pause p where p.tenant = m.tenant and (m.topic = p.pattern
            or (right(p.pattern, 1) = '*' and m.topic ^@ left(p.pattern, -1))))))

-- fragment claimable
(m.leased_until is null or m.leased_until <= {now})
      and not {paused}
      and (m.expires_at is null or m.expires_at > {now})
      and (m.ordering_key is null or not exists (
        select 1 from {tables}message e
        where e.state = 0 and e.ordering_key = m.ordering_key and e.id < m.id
          and e.tenant is not distinct from m.tenant
          and (e.expires_at is null or e.expires_at > {now})
          and (:skip = 0 or e.due_at <= {now})
      ) and not exists (
        select 1 from {tables}message e
        where e.state = 0 and e.ordering_key = m.ordering_key and e.leased_until > {now}
          and e.tenant is not distinct from m.tenant
      ))

-- fragment wanted
(cast(:without as text) is null
        or m.topic not in (select jsonb_array_elements_text(cast(:without as jsonb))))
      and (cast(:by as text) is null or m.waiting is null or m.waiting = '[]' or jsonb_exists_any(
        m.waiting, array(select jsonb_array_elements_text(cast(:by as jsonb)))))

-- In each `:given` is a JSON array of arrays: id, owner, claims, and what else there is to know.
-- Only what is held so is changed. It says nothing of the state: what has ended has no owner, and by
-- an index on the state, which statistics of an empty table recommend, each ack would read all that
-- is ready.
-- fragment held
(
    select cast(v ->> 0 as bigint) as id, cast(v ->> 1 as bigint) as owner,
      cast(v ->> 2 as integer) as claims, v
    from jsonb_array_elements(cast(:given as jsonb)) v
  ) g
where m.id = g.id and m.owner = g.owner and m.claims = g.claims
  and m.leased_until > {now}

-- The same of messages that are held alike: no array of arrays is taken apart for them.
-- fragment held_alike
m.id = any(cast(cast(:ids as text) as bigint[])) and m.owner = :owner and m.claims = :claims
  and m.leased_until > {now}

-- What members of joins that have ended come to: after `members` (join_id, done, failed). The joins
-- are locked in the order of their ids, and what was counted meanwhile is counted on.
-- fragment tally
touched as (
  select join_id, sum(done) as done, sum(failed) as failed from members
  where join_id is not null group by join_id
), locked as (
  select j.id, j.state, t.done, t.failed from touched t join {tables}join j on j.id = t.join_id
  order by j.id for no key update of j
), tallied as (
  update {tables}join j
  set done = j.done + l.done, failed = j.failed + l.failed,
    ended_at = case when j.state = 0 then {now} else j.ended_at end,
    state = case
      when j.state <> 0 then j.state
      when j.deadline <= {now} then 3
      when j.done + l.done + j.tolerates * (j.failed + l.failed) >= j.quorum then 1
      when j.tolerates = 0 and j.failed + l.failed > j.expected - j.quorum then 2
      else 0 end
  from locked l where j.id = l.id
  returning j.id, j.state, l.state as before
), followed as (
  insert into {tables}message (topic, body, format, headers, correlation_id, traceparent,
    ordering_key, priority, tenant, enqueued_at, due_at, expires_at)
  select f.topic, f.body, f.format, f.headers, f.correlation_id, f.traceparent, f.ordering_key,
    f.priority, f.tenant, {now}, coalesce(f.due, {now} + f.delay), {now} + f.ttl
  from tallied t join {tables}follow f on f.join_id = t.id
    and f.outcome = case t.state when 1 then 1 when 2 then 2 when 3 then 2 end
  where t.before = 0
  order by t.id
  returning id, tenant
)

-- Who waits for messages is told of those that follow.
-- fragment told
(select count(pg_notify('{channel}', coalesce(tenant, ''))) from followed)

-- What is done is counted, by topic and for joins: after `gone` (id, topic, join_id, tenant).
-- fragment counted
counted as (
  insert into {tables}done as d (topic, tenant, count)
  select topic, coalesce(tenant, ''), count(*) from gone group by 1, 2 order by 1, 2
  on conflict (topic, tenant) do update set count = d.count + excluded.count
), members as (
  select join_id, 1 as done, 0 as failed from gone
), {tally}
select id, {told} from gone

-- statement has_meta
select 1 where to_regclass('{tables}meta') is not null

-- No row: there is no such schema, so it is made.
-- statement has_schema
select 1 from pg_namespace where nspname = :schema

-- statement make_schema
create schema "{schema}"

-- One migrates at a time.
-- statement migrating
select pg_advisory_xact_lock(hashtext('anabranch {tables}'))

-- statement version
select value from {tables}meta where name = 'version'

-- statement set_version
update {tables}meta set value = :version where name = 'version'

-- What is said of new messages is said here, with the tenant's name.
-- statement channel
{channel}

-- statement owner
update {tables}meta set value = value + 1 where name = 'owner' returning value

-- statement enqueue
insert into {tables}message (topic, body, format, headers, correlation_id, traceparent, ordering_key, dedupe_key, priority,
  tenant, enqueued_at, due_at, expires_at)
values (
  :topic, :body, :format, :headers, :correlation_id, :traceparent, :ordering_key, :dedupe_key,
  :priority, :tenant, {now}, coalesce(cast(:due as bigint), {now} + cast(:delay as bigint)),
  {now} + cast(:ttl as bigint)
)
returning id, pg_notify('{channel}', coalesce(tenant, ''))

-- The same of a message that says no more: what it is given is looked up one by one.
-- statement enqueue_plain
insert into {tables}message (topic, body, format, priority, tenant, enqueued_at, due_at)
values (:topic, :body, :format, :priority, :tenant, {now}, {now})
returning id, pg_notify('{channel}', coalesce(tenant, ''))

-- Of many that differ by their payload alone the rest is said once. The payloads come as one, with
-- where each begins, and how long it is: to write them into an array takes drivers longer than it takes
-- the database to store them.
-- statement enqueue_alike
insert into {tables}message (topic, body, format, priority, tenant, enqueued_at, due_at)
select cast(:topic as text), substring(cast(:body as bytea) from start for size),
  cast(:format as smallint), cast(:priority as smallint), cast(:tenant as text), {now}, {now}
from pg_notify('{channel}', coalesce(cast(:tenant as text), '')),
  unnest(cast(cast(:starts as text) as integer[]), cast(cast(:sizes as text) as integer[]))
    with ordinality as d(start, size, number)
order by number
returning id

-- The columns of many messages, each as an array: a shorter one goes on with its first value, so that
-- what is the same in all is said once.
-- statement enqueue_many
with written as (
  insert into {tables}message (topic, body, format, headers, correlation_id, traceparent, ordering_key, dedupe_key, priority,
    tenant, enqueued_at, due_at, expires_at)
  select coalesce(topic, (cast(:topic as text[]))[1]), body,
    coalesce(format, (cast(:format as smallint[]))[1]), headers, correlation_id, traceparent,
    ordering_key, dedupe_key, coalesce(priority, (cast(:priority as smallint[]))[1]), tenant, {now},
    coalesce(due, {now} + coalesce(delay, (cast(:delay as bigint[]))[1])), {now} + ttl
  from unnest(
    cast(:topic as text[]), cast(:body as bytea[]), cast(:format as smallint[]),
    cast(:headers as text[]), cast(:correlation_id as text[]), cast(:traceparent as text[]),
    cast(:ordering_key as text[]), cast(:dedupe_key as text[]), cast(:priority as smallint[]),
    cast(:tenant as text[]), cast(:due as bigint[]), cast(:delay as bigint[]), cast(:ttl as bigint[])
  ) with ordinality as d(
    topic, body, format, headers, correlation_id, traceparent, ordering_key, dedupe_key, priority,
    tenant, due, delay, ttl, number
  )
  order by number
  returning id
)
select written.id from written, (
  select count(pg_notify('{channel}', tenant)) from (
    select distinct coalesce(v, '') as tenant from unnest(cast(:tenant as text[])) v
  ) tenants
) told order by 1

-- Who comes second waits here until the first has committed or rolled back.
-- statement dedupe_keep
insert into {tables}dedupe as d (key, tenant, digest, message_id, until)
values (
  :dedupe_key, coalesce(cast(:tenant as text), ''), :digest, nextval(pg_get_serial_sequence('{tables}message', 'id')),
  {now} + cast(:dedupe_for as bigint)
)
on conflict (key, tenant) do update
set digest = excluded.digest, message_id = excluded.message_id, until = excluded.until
where d.until <= {now}
returning message_id

-- statement dedupe_find
select message_id, digest from {tables}dedupe
where key = :dedupe_key and tenant = coalesce(cast(:tenant as text), '')

-- statement enqueue_kept
with written as (
  insert into {tables}message (id, topic, body, format, headers, correlation_id, traceparent, ordering_key, dedupe_key, priority,
    tenant, enqueued_at, due_at, expires_at)
  values (
    :id, :topic, :body, :format, :headers, :correlation_id, :traceparent, :ordering_key,
    :dedupe_key, :priority, :tenant, {now}, coalesce(cast(:due as bigint), {now} + cast(:delay as bigint)),
    {now} + cast(:ttl as bigint)
  )
  returning id
)
select written.id from written, pg_notify('{channel}', coalesce(cast(:tenant as text), ''))

-- statement retract
with dead as (
  delete from {tables}message m
  where id = :id and state = 0 and (leased_until is null or leased_until <= {now}) and {mine}
  returning id, dedupe_key, join_id
), members as (
  select join_id, 0 as done, 1 as failed from dead
), {tally}
select id, dedupe_key, {told} from dead

-- statement dedupe_forget
delete from {tables}dedupe where key = :dedupe_key and message_id = :id

-- One range of the index for each priority: none is read for another's sake. What was locked is found
-- again by its place, which is quicker than by its id, and cannot change while it is locked.
--
-- A claim does not wait for the disk. Whatever is written durably comes after it in the log, acks and what
-- handlers do in this database included. If the server crashes before that, it was never made: the
-- message is ready, and what its handler has not acked is handled again, as after any crash.
-- statement claim
update {tables}message m
set owner = :owner, leased_until = {now} + cast(:lease as bigint), attempt = m.attempt + 1,
  claims = m.claims + 1, claimed_at = {now}
from (
  select c.place from generate_series(9, 0, -1) p cross join lateral (
    select m.ctid as place from {tables}message m
    where m.state = 0 and m.priority = p and m.due_at <= {now} and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
    for update skip locked
  ) c limit :limit
) picked
where m.ctid = picked.place and (select set_config('synchronous_commit', 'off', true)) is not null
returning {brief}

-- statement peek
select {row} from generate_series(9, 0, -1) p cross join lateral (
  select m.* from {tables}message m
  where m.state = 0 and m.priority = p and m.due_at <= {now} and {mine}
    and {claimable}
  order by m.due_at, m.id limit :limit
) m limit :limit

-- A claim looks expensive, and is compiled where that is on: for half a second, to save nothing. And
-- what is believed to be little is sorted, all that is due for each claim, where an index has it in
-- order. What else is done in the transaction is the user's, who finds the settings as they were.
-- statement plan_simply
select current_setting('jit'), current_setting('enable_sort'), set_config('jit', 'off', true),
  set_config('enable_sort', 'off', true)

-- statement plan_again
select set_config('jit', cast(:jit as text), true), set_config('enable_sort', cast(:sort as text), true)

-- The same, held by the transaction alone: nothing is written before it is done.
-- statement inline_claim
select {brief} from generate_series(9, 0, -1) p cross join lateral (
  select m.* from {tables}message m
  where m.state = 0 and m.priority = p and m.due_at <= {now} and {mine}
    and {wanted}
    and {claimable}
  order by m.due_at, m.id limit :limit
  for update skip locked
) m limit :limit

-- Of these ordering keys, those that no other transaction is at work on.
-- statement inline_keys
select key from jsonb_array_elements_text(cast(:keys as jsonb)) key
where pg_try_advisory_xact_lock(hashtextextended('{tables}ordering ' || key, 0))

-- Those that are somebody else's are so because the transaction was ended too early.
-- statement inline_delete
with gone as (
  delete from {tables}message m
  where id = any(cast(:ids as bigint[])) and state = 0
    and (leased_until is null or leased_until <= {now})
  returning m.id, m.topic, m.join_id, m.tenant
), {counted}

-- statement inline_archive
with gone as (
  update {tables}message m set state = 2, ended_at = {now}
  where id = any(cast(:ids as bigint[])) and state = 0
    and (leased_until is null or leased_until <= {now})
  returning m.id, m.topic, m.join_id, m.tenant
), {counted}

-- One message, if it is as it was.
-- statement inline_hold
update {tables}message m
set owner = :owner, leased_until = {now} + cast(:lease as bigint), attempt = m.attempt + 1,
  claims = m.claims + 1
from (
  select id from {tables}message
  where id = :id and claims = :claims and state = 0
    and (leased_until is null or leased_until <= {now})
  for update skip locked
) picked
where m.id = picked.id
returning {row}

-- statement ack_delete
with gone as (
  delete from {tables}message m where {held_alike}
  returning m.id, m.topic, m.join_id, m.tenant
), {counted}

-- statement ack_archive
with gone as (
  update {tables}message m
  set state = 2, ended_at = {now}, owner = null, leased_until = null
  where {held_alike}
  returning m.id, m.topic, m.join_id, m.tenant
), {counted}

-- statement abandon
update {tables}message m
set owner = null, leased_until = null, due_at = {now} + cast(g.v ->> 3 as bigint),
  errors = case when g.v ->> 4 is null then m.errors else case when jsonb_array_length(coalesce(m.errors, '[]')) >= {most_errors} then m.errors - 0
      else coalesce(m.errors, '[]') end || jsonb_build_array(
    jsonb_build_array(m.attempt, {now}, g.v ->> 4)) end
from {held}
returning m.id

-- statement fail
with dead as (
  update {tables}message m
  set state = 1, ended_at = {now}, owner = null, leased_until = null,
    errors = case when jsonb_array_length(coalesce(m.errors, '[]')) >= {most_errors} then m.errors - 0
        else coalesce(m.errors, '[]') end || jsonb_build_array(
      jsonb_build_array(m.attempt, {now}, g.v ->> 3))
  from {held}
  returning m.id, m.join_id
), members as (
  select join_id, 0 as done, 1 as failed from dead
), {tally}
select id, {told} from dead

-- Here each has a delay (null: it is dead), an array of subscribers, their progress, an error, and
-- whether the attempt counts.
-- statement divide
with dead as (
  update {tables}message m
  set owner = null, leased_until = null,
    due_at = coalesce({now} + cast(g.v ->> 3 as bigint), m.due_at),
    state = case when g.v ->> 3 is null then 1 else 0 end,
    ended_at = case when g.v ->> 3 is null then {now} end,
    waiting = cast(g.v ->> 4 as jsonb), progress = g.v ->> 5,
    attempt = m.attempt - (1 - cast(g.v ->> 7 as integer)),
    errors = case when g.v ->> 6 is null then m.errors else case when jsonb_array_length(coalesce(m.errors, '[]')) >= {most_errors} then m.errors - 0
        else coalesce(m.errors, '[]') end || jsonb_build_array(
      jsonb_build_array(m.attempt, {now}, g.v ->> 6)) end
  from {held}
  returning m.id, m.state, m.join_id
), members as (
  select join_id, 0 as done, 1 as failed from dead where state = 1
), {tally}
select id, {told} from dead

-- statement release
update {tables}message m
set owner = null, leased_until = null, attempt = m.attempt - 1
from {held}
returning m.id

-- statement extend
update {tables}message m
set leased_until = {now} + cast(:lease as bigint)
from {held}
returning m.id

-- And whether there are joins whose time is over.
-- statement subscribers_version
select value, exists (select from {tables}join where state = 0 and deadline <= {now}),
  exists (select from {tables}pause)
from {tables}meta where name = 'subscriptions'

-- statement subscriptions
select subscriber, pattern, since from {tables}subscription order by 1, 2

-- statement subscribe_less
delete from {tables}subscription
where subscriber = :subscriber
  and pattern not in (select jsonb_array_elements_text(cast(:patterns as jsonb)))

-- statement subscribe
insert into {tables}subscription (subscriber, pattern, since)
select :subscriber, jsonb_array_elements_text(cast(:patterns as jsonb)),
  coalesce(pg_sequence_last_value(pg_get_serial_sequence('{tables}message', 'id')), 0)
on conflict (subscriber, pattern) do nothing

-- statement subscribers_changed
update {tables}meta set value = value + 1 where name = 'subscriptions'

-- statement unsubscribe
delete from {tables}subscription where subscriber = :subscriber

-- statement wait_no_more
update {tables}message
set due_at = least(due_at, {now}), waiting = waiting - cast(:subscriber as text)
where state = 0 and waiting is not null and jsonb_exists(waiting, :subscriber)

-- When a message may become ready that is not now: one that is due later, or that is held.
-- statement next
select min(at), {now} from (
  select (
    select min(m.due_at) from {tables}message m
    where m.state = 0 and m.priority = p and m.due_at > {now} and {mine}
  ) as at
  from generate_series(0, 9) p
  union all
  select min(leased_until) from (
    select leased_until from {tables}message m
    where state = 0 and priority between 0 and 9 and due_at <= {now} and leased_until > {now}
      and {mine}
    limit 10000
  ) held
  union all
  select min(deadline) from {tables}join where state = 0 and deadline is not null
) times

-- statement reap_leases
update {tables}message m
set owner = null, leased_until = null
where state = 0 and priority between 0 and 9 and due_at <= {now} and leased_until <= {now}
  and {mine}

-- statement reap_expired
with dead as (
  update {tables}message m
  set state = 1, ended_at = {now},
    errors = case when jsonb_array_length(coalesce(m.errors, '[]')) >= {most_errors} then m.errors - 0
        else coalesce(m.errors, '[]') end || jsonb_build_array(
      jsonb_build_array(m.attempt, {now}, 'Expired: nobody handled it in time'))
  where state = 0 and expires_at <= {now} and (leased_until is null or leased_until <= {now})
    and {mine}
  returning m.id, m.join_id
), members as (
  select join_id, 0 as done, 1 as failed from dead
), {tally}
select id, {told} from dead

-- statement reap_dedupes
delete from {tables}dedupe where until <= {now}

-- Whether nobody else is at it, and whether it was new. Who comes second does not wait: the lock is
-- that of the transaction, and is let go of when what it wrote can be seen.
-- statement inbox_see
with free as materialized (
  select pg_try_advisory_xact_lock(hashtextextended('{tables}inbox ' || {whose} || ' ' || :key, 0)) as is_free
), kept as (
  insert into {tables}inbox as i (key, tenant, until)
  select :key, {whose}, {now} + cast(:keep as bigint) from free where is_free
  on conflict (key, tenant) do update set until = excluded.until where i.until <= {now}
  returning key
)
select is_free, exists (select from kept) from free

-- statement reap_inbox
delete from {tables}inbox where until <= {now}

-- statement join_create
insert into {tables}join (expected, quorum, tolerates, deadline, tenant)
values (:expected, :quorum, :tolerates, {now} + cast(:deadline as bigint), nullif({whose}, ''))
returning id

-- statement join_follow
insert into {tables}follow (join_id, outcome, topic, body, format, headers, correlation_id, traceparent,
  ordering_key, priority, tenant, due, delay, ttl)
values (:join, :outcome, :topic, :body, :format, :headers, :correlation_id, :traceparent,
  :ordering_key, :priority, :tenant, :due, :delay, :ttl)

-- statement join_known
select expected, (select count(*) from {tables}member where join_id = :join),
  coalesce(pg_sequence_last_value(pg_get_serial_sequence('{tables}message', 'id')), 0)
from {tables}join m where id = :join and {mine}

-- statement join_members
insert into {tables}member (join_id, message_id)
select :join, cast(v as bigint) from jsonb_array_elements_text(cast(:ids as jsonb)) v order by 2
on conflict do nothing
returning message_id

-- Those that are being ended are waited for.
-- statement join_states
select id, state, join_id from {tables}message
where id in (select cast(v as bigint) from jsonb_array_elements_text(cast(:ids as jsonb)) v)
order by id for update

-- statement join_mark
update {tables}message set join_id = :join
where state = 0
  and id in (select cast(v as bigint) from jsonb_array_elements_text(cast(:ids as jsonb)) v)

-- statement join_tally
with members as (
  select cast(:join as bigint) as join_id, cast(:done as integer) as done,
    cast(:failed as integer) as failed
), {tally}
select id, {told} from tallied

-- statement join_overdue
with members as (
  select id as join_id, 0 as done, 0 as failed from {tables}join
  where state = 0 and deadline <= {now}
), {tally}
select id, {told} from tallied

-- statement join_cancel
update {tables}join m set state = 4, ended_at = {now}
where id = :join and state = 0 and (deadline is null or deadline > {now}) and {mine}
returning id

-- statement joins
select id, expected, quorum, tolerates,
  (select count(*) from {tables}member b where b.join_id = m.id), done, failed,
  case when state = 0 and deadline <= {now} then 3 else state end, deadline,
  case when state <> 0 then ended_at end
from {tables}join m where id > :after and {mine} order by id limit :limit

-- statement reap_joins
delete from {tables}join where state <> 0 and ended_at <= {now} - {join_kept}

-- statement plan_now
select {now}

-- statement plan_make
insert into {tables}plan as p (name, tenant, cadence, next_at)
values (:name, {whose}, :cadence, :first)
on conflict (name, tenant) do update set cadence = excluded.cadence, next_at = excluded.next_at
where p.cadence <> excluded.cadence
returning name

-- statement plan_claim
update {tables}plan
set owner = :owner, leased_until = {now} + cast(:lease as bigint)
where name in (select jsonb_array_elements_text(cast(:names as jsonb))) and tenant = {whose}
  and next_at <= {now}
  and (leased_until is null or leased_until <= {now})
returning name, next_at, cursor, {now}

-- statement plan_next
select min(greatest(next_at, coalesce(leased_until, 0))) - {now}
from {tables}plan
where name in (select jsonb_array_elements_text(cast(:names as jsonb))) and tenant = {whose}

-- statement plan_done
update {tables}plan set next_at = :next, cursor = :cursor, owner = null, leased_until = null
where name = :name and tenant = {whose} and owner = :owner and leased_until > {now}
returning name

-- statement plan_forget
delete from {tables}plan where name = :name and tenant = {whose} returning name

-- statement list
select {row} from {tables}message m
where id > :after and {mine}
  and (cast(:topic as text) is null or topic = :topic)
  and (cast(:status as text) is null or :status = case
    when state = 1 then 'dead'
    when state = 2 then 'done'
    when leased_until > {now} then 'leased'
    when due_at > {now} and due_at < {far} then 'scheduled'
    else 'ready' end)
order by id limit :limit

-- How much is ready, and for how long the first of that; no more is looked at than is wanted.
-- statement backlog
select count(*), {now} - min(due_at) from (
  select due_at from {tables}message m
  where state = 0 and priority between 0 and 9 and due_at <= {now}
    and (leased_until is null or leased_until <= {now}) and {mine}
  limit :most
) ready

-- statement counts
select topic, case
    when leased_until > {now} then 'leased'
    when due_at > {now} and due_at < {far} then 'scheduled'
    when {paused} then 'paused'
    else 'ready' end as status, count(*)
from {tables}message m where state = 0 and {mine} group by 1, 2
union all
select topic, 'dead', count(*) from {tables}message m where state = 1 and {mine} group by 1
union all
select topic, 'done', cast(sum(count) as bigint) from {tables}done m where {mine} group by 1
order by 1, 2

-- Those that have messages, or had: from one to the next by the index.
-- statement tenants
with recursive has_open (tenant) as (
  (select m.tenant from {tables}message m where m.state = 0 and m.tenant is not null
    order by m.tenant limit 1)
  union all
  select (
    select m.tenant from {tables}message m where m.state = 0 and m.tenant > o.tenant
    order by m.tenant limit 1
  ) from has_open o where o.tenant is not null
)
select tenant from has_open where tenant is not null
union
select tenant from {tables}message where state = 1 and tenant is not null
union
select tenant from {tables}done where tenant <> ''
order by 1

-- Those of them that something is done to.
-- fragment meant
{mine} and (cast(:topic as text) is null or m.topic = :topic)
    and (cast(:ids as text) is null
      or m.id in (select cast(v as bigint) from jsonb_array_elements_text(cast(:ids as jsonb)) v))

-- Dead or done ones: by the index on what has ended, whatever else there is.
-- fragment ended
m.state = cast(:state as smallint) and m.state <> 0
    and m.ended_at <= {now} - cast(:older_than as bigint) and {meant}

-- Those that nobody has begun with.
-- fragment open
m.state = 0 and (m.leased_until is null or m.leased_until <= {now}) and {meant}

-- fragment some_ended
(
  select m.id from {tables}message m
  where {ended}
  order by m.ended_at limit :limit
  for update skip locked
)

-- statement count_ended
select count(*) from {tables}message m where {ended}

-- statement count_open
select count(*) from {tables}message m where {open}

-- statement requeue
with picked as {some_ended}
update {tables}message m
set state = 0, ended_at = null, expires_at = null, attempt = 0, progress = null, join_id = null,
  due_at = {now}
from picked where m.id = picked.id

-- statement cancel
with picked as (
  select m.id from {tables}message m
  where {open}
  order by m.id limit :limit
  for update skip locked
), dead as (
  update {tables}message m
  set state = 1, ended_at = {now}, owner = null, leased_until = null,
    errors = case when jsonb_array_length(coalesce(m.errors, '[]')) >= {most_errors} then m.errors - 0
        else coalesce(m.errors, '[]') end || jsonb_build_array(
      jsonb_build_array(m.attempt, {now}, cast(:error as text)))
  from picked where m.id = picked.id
  returning m.id, m.join_id
), members as (
  select join_id, 0 as done, 1 as failed from dead
), {tally}
select id, {told} from dead

-- statement purge
with picked as {some_ended}
delete from {tables}message m using picked where m.id = picked.id

-- statement pauses
select pattern, min(since) from {tables}pause where tenant in ('', {whose}) group by 1 order by 1

-- statement pause
insert into {tables}pause (pattern, tenant, since) values (:pattern, {whose}, {now})
on conflict do nothing

-- Who sets messages aside holds this first, and who resumes waits for it: otherwise one who still knew
-- of the pause might do so after the last was brought back.
-- statement setting_aside
select pg_advisory_xact_lock_shared(hashtext('anabranch pause {tables}'))

-- statement resuming
select pg_advisory_xact_lock(hashtext('anabranch pause {tables}'))

-- statement resume
delete from {tables}pause where pattern = :pattern and tenant = {whose}

-- statement resumed
select pg_notify('{channel}', {whose})

-- What is paused is set aside, behind all other times there are: claims would pass over it each time
-- anew. All of it when its topic is paused, and what comes later when a claim has met it.
-- statement set_aside_all
with picked as (
  select m.id from {tables}message m
  where m.id > :after and m.state = 0 and m.due_at <= {now}
    and (m.leased_until is null or m.leased_until <= {now}) and {mine} and {paused}
  order by m.id limit :limit
  for update skip locked
)
update {tables}message m set due_at = m.due_at + {far}, owner = null, leased_until = null
from picked where m.id = picked.id
returning m.id

-- By their places: whatever statistics say, the rest of the table is not read.
-- statement set_aside
with picked as materialized (
  select m.ctid as place from {tables}message m
  where m.ctid = any (array(
    select h.place from generate_series(0, 9) p cross join lateral (
      select m.place from (
        select m.ctid as place, m.topic, m.tenant, m.leased_until from {tables}message m
        where m.state = 0 and m.priority = p and m.due_at <= {now} and {mine}
        order by m.due_at, m.id limit :limit
      ) m where (m.leased_until is null or m.leased_until <= {now}) and {paused}
    ) h
  )) and m.state = 0 and m.due_at <= {now} and (m.leased_until is null or m.leased_until <= {now})
  for update skip locked
)
update {tables}message m set due_at = m.due_at + {far}, owner = null, leased_until = null
where m.ctid = any (array(select place from picked))
returning m.id

-- statement bring_back
with picked as materialized (
  select m.ctid as place from {tables}message m
  where m.ctid = any (array(
    select h.place from generate_series(0, 9) p cross join lateral (
      select m.ctid as place from {tables}message m
      where m.state = 0 and m.priority = p and m.due_at >= {far} and {mine} and not {paused}
      order by m.due_at, m.id limit :limit
    ) h limit :limit
  )) and m.state = 0 and m.due_at >= {far}
  for update skip locked
)
update {tables}message m set due_at = m.due_at - {far}
where m.ctid = any (array(select place from picked))
returning m.id

-- Since when the first message waits that could be handled, and somebody holds the one that is held
-- longest.
-- statement ages
select (
  select min(h.due_at) from generate_series(0, 9) p cross join lateral (
    select m.due_at from {tables}message m
    where m.state = 0 and m.priority = p and m.due_at <= {now} and {mine}
      and (m.leased_until is null or m.leased_until <= {now})
      and (m.expires_at is null or m.expires_at > {now}) and not {paused}
    order by m.due_at, m.id limit 1
  ) h
), (
  select min(claimed_at) from (
    select claimed_at from {tables}message m
    where state = 0 and priority between 0 and 9 and due_at <= {now} and leased_until > {now}
      and {mine}
    limit 10000
  ) held
), {now}

-- statement beat
insert into {tables}worker as w (id, told, started_at, seen_at, until)
values (:id, :told, {now}, {now}, {now} + cast(:lasts as bigint))
on conflict (id) do update set told = excluded.told, seen_at = excluded.seen_at, until = excluded.until

-- statement leave
delete from {tables}worker where id = :id

-- statement workers
select id, told, started_at, seen_at, {now} from {tables}worker where until > {now}
order by id desc limit 1000

-- statement reap_workers
delete from {tables}worker where until <= {now}

-- What holds up the removal of dead rows: the oldest snapshot of this database.
-- statement oldest_snapshot
select pid, coalesce(application_name, ''), coalesce(state, ''),
  cast(extract(epoch from clock_timestamp() - xact_start) as double precision)
from pg_stat_activity
where datname = current_database() and backend_xmin is not null and xact_start is not null
  and pid <> pg_backend_pid()
order by age(backend_xmin) desc, xact_start limit 1

-- statement dead_rows
select n_live_tup, n_dead_tup from pg_stat_user_tables
where relid = cast(to_regclass('{tables}message') as oid)
