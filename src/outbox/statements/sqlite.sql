-- What is done with the tables of an outbox in SQLite, statement by statement. `{prefix}` is that of
-- the tables' names; `{row}`, `{claimable}` and the like are the fragments at the beginning. `:now` is
-- the time. SQLite has no clock but that of the process it runs in, and to ask it for each row takes
-- as long as to write the row. `{mine}` and `{whose}` are about tenants, as in PostgreSQL.

-- A message as the reader of rows expects it.
-- fragment row
id, topic, body, format, headers, correlation_id, traceparent, ordering_key, dedupe_key,
  priority, state, enqueued_at, due_at % {far}, expires_at, ended_at, attempt, errors, owner, leased_until, :now,
  claims, waiting, progress, join_id, claimed_at, tenant

-- The same in brief: what most messages have none of is one column, and what is the same in all of a
-- claim is none. Each column of each row costs SQLite a twentieth of the claim. `:more` is 1 if it is
-- claimed hereby.
-- fragment brief
id, topic, body, format, priority, enqueued_at, due_at, attempt + :more, claims + :more, ordering_key, tenant, :now,
  case when coalesce(headers, correlation_id, traceparent, dedupe_key, expires_at, errors, waiting, progress,
    join_id) is not null
  then json_array(headers, correlation_id, traceparent, dedupe_key, expires_at, errors, waiting, progress,
    join_id) end

-- A message of a topic that is paused, for all or for its tenant.
-- fragment paused
((select count(*) from {prefix}pause) > 0 and exists (
          select 1 from {prefix}pause p
          where p.tenant in ('', m.tenant) and (p.pattern = m.topic or (substr(p.pattern, -1) = '*'
            and substr(m.topic, 1, length(p.pattern) - 1) = substr(p.pattern, 1, length(p.pattern) - 1)))
        ))

-- Not paused, not held, still wanted, the first of its ordering key, and no later one of it is held: one that
-- was requeued, or was passed over, may have become the first meanwhile.
-- fragment claimable
(m.leased_until is null or m.leased_until <= :now)
        and not {paused}
        and (m.expires_at is null or m.expires_at > :now)
        and (m.ordering_key is null or not exists (
          select 1 from {prefix}message e
          where e.state = 0 and e.ordering_key = m.ordering_key and e.id < m.id
            and e.tenant is m.tenant
            and (e.expires_at is null or e.expires_at > :now)
            and (:skip = 0 or e.due_at <= :now)
        ) and not exists (
          select 1 from {prefix}message e
          where e.state = 0 and e.ordering_key = m.ordering_key and e.owner is not null
            and e.leased_until > :now and e.tenant is m.tenant
        ))

-- `:without` are the topics a worker has no room for, or no handler; `:by` are its subscribers.
-- fragment wanted
(:without is null or m.topic not in (select value from json_each(:without)))
        and (:by is null or m.waiting is null or m.waiting = '[]' or exists (
          select 1 from json_each(m.waiting) w join json_each(:by) b on w.value = b.value
        ))

-- The next ones. One range of the index for each priority: none is read for another's sake.
-- fragment next_ones
select id from (
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 9 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 8 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 7 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 6 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 5 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 4 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 3 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 2 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 1 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
  union all
  select * from (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = 0 and m.due_at <= :now and {mine}
      and {wanted}
      and {claimable}
    order by m.due_at, m.id limit :limit
  )
) limit :limit

-- statement has_meta
select 1 from sqlite_master where type = 'table' and name = '{prefix}meta'

-- statement version
select value from {prefix}meta where name = 'version'

-- statement set_version
update {prefix}meta set value = :version where name = 'version'

-- statement owner
update {prefix}meta set value = value + 1 where name = 'owner' returning value

-- Without names: to look twelve of them up takes as long as to write the row.
-- statement enqueue
insert into {prefix}message (
  topic, body, format, headers, correlation_id, traceparent, ordering_key, dedupe_key, priority, tenant,
  enqueued_at, due_at, expires_at
)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- The same of a message that says no more.
-- statement enqueue_plain
insert into {prefix}message (topic, body, format, priority, tenant, enqueued_at, due_at)
values (?, ?, ?, ?, ?, ?, ?)

-- Of many that differ by their payload alone: what is the same in all, the time twice, and then the
-- payloads, as many as there are.
-- statement enqueue_alike
insert into {prefix}message (topic, body, format, priority, tenant, enqueued_at, due_at)
select ?, b.column1, ?, ?, ?, ?, ? from (values {bodies}) b

-- The writer's lock is taken by the first of these, so nobody comes between it and the second.
-- statement dedupe_drop_old
delete from {prefix}dedupe
where key = :dedupe_key and tenant = coalesce(:tenant, '') and until <= :now

-- statement dedupe_find
select message_id, digest from {prefix}dedupe
where key = :dedupe_key and tenant = coalesce(:tenant, '')

-- statement dedupe_keep
insert into {prefix}dedupe (key, tenant, digest, message_id, until)
values (:dedupe_key, coalesce(:tenant, ''), :digest, :message_id, :now + :dedupe_for)

-- statement last_id
select last_insert_rowid()

-- statement retract
delete from {prefix}message as m
where id = :id and state = 0 and (leased_until is null or leased_until <= :now) and {mine}
returning id, dedupe_key, join_id

-- statement dedupe_forget
delete from {prefix}dedupe where key = :dedupe_key and message_id = :id

-- What is to be claimed, or is claimed by a transaction alone: the first is claimed once more than it was.
-- statement claimable
select {brief} from {prefix}message
where id in (
  {next_ones}
)

-- By their ids: to tell of them while they are changed, SQLite would put them aside first.
-- statement claim
update {prefix}message as m
set owner = :owner, leased_until = :now + :lease, attempt = attempt + 1,
  claims = claims + 1, claimed_at = :now
where id in (select value from json_each(:ids)) and {mine}

-- statement peek
select {row} from {prefix}message
where id in (
  {next_ones}
)

-- It changes nothing, and takes the writer's lock.
-- statement inline_begin
update {prefix}meta set value = value where name = 'version'

-- Those that are somebody else's are so because the transaction was ended too early.
-- statement inline_delete
delete from {prefix}message
where state = 0 and (leased_until is null or leased_until <= :now)
  and id in (select value from json_each(:ids))
returning id, topic, join_id, tenant

-- statement inline_archive
update {prefix}message set state = 2, ended_at = :now
where state = 0 and (leased_until is null or leased_until <= :now)
  and id in (select value from json_each(:ids))
returning id, topic, join_id, tenant

-- One message, if it is as it was.
-- statement inline_hold
update {prefix}message
set owner = :owner, leased_until = :now + :lease, attempt = attempt + 1, claims = claims + 1
where id = :id and claims = :claims and state = 0
  and (leased_until is null or leased_until <= :now)
returning {row}

-- In each `:given` is a JSON array of arrays: id, owner, claims, and what else there is to know. Only
-- what is held so is changed. Acks are of messages that are held alike: to take those arrays apart takes
-- longer than to delete the rows.
-- statement ack_delete
delete from {prefix}message
where id in (select value from json_each(:ids)) and owner = :owner and claims = :claims
  and state = 0 and leased_until > :now
returning id, topic, join_id, tenant

-- statement ack_archive
update {prefix}message
set state = 2, ended_at = :now, owner = null, leased_until = null
where id in (select value from json_each(:ids)) and owner = :owner and claims = :claims
  and state = 0 and leased_until > :now
returning id, topic, join_id, tenant

-- statement count_done
insert into {prefix}done (topic, tenant, count) values (:topic, :tenant, :count)
on conflict (topic, tenant) do update set count = count + excluded.count

-- statement abandon
update {prefix}message as m
set owner = null, leased_until = null, due_at = :now + json_extract(g.value, '$[3]'),
  errors = case when json_extract(g.value, '$[4]') is null then m.errors else json_insert(
    case when json_array_length(m.errors) >= {most_errors} then json_remove(m.errors, '$[0]')
      else coalesce(m.errors, '[]') end,
    '$[#]', json_array(m.attempt, :now, json_extract(g.value, '$[4]'))
  ) end
from json_each(:given) g
where m.id = json_extract(g.value, '$[0]') and m.owner = json_extract(g.value, '$[1]')
  and m.claims = json_extract(g.value, '$[2]') and m.state = 0 and m.leased_until > :now
returning id

-- statement fail
update {prefix}message as m
set state = 1, ended_at = :now, owner = null, leased_until = null,
  errors = json_insert(
    case when json_array_length(m.errors) >= {most_errors} then json_remove(m.errors, '$[0]')
      else coalesce(m.errors, '[]') end,
    '$[#]', json_array(m.attempt, :now, json_extract(g.value, '$[3]'))
  )
from json_each(:given) g
where m.id = json_extract(g.value, '$[0]') and m.owner = json_extract(g.value, '$[1]')
  and m.claims = json_extract(g.value, '$[2]') and m.state = 0 and m.leased_until > :now
returning id, join_id

-- Here each has a delay (null: it is dead), an array of subscribers, their progress, an error, and
-- whether the attempt counts.
-- statement divide
update {prefix}message as m
set owner = null, leased_until = null,
  due_at = coalesce(:now + json_extract(g.value, '$[3]'), m.due_at),
  state = json_extract(g.value, '$[3]') is null,
  ended_at = case when json_extract(g.value, '$[3]') is null then :now end,
  waiting = json_extract(g.value, '$[4]'), progress = json_extract(g.value, '$[5]'),
  attempt = attempt - (1 - json_extract(g.value, '$[7]')),
  errors = case when json_extract(g.value, '$[6]') is null then m.errors else json_insert(
    case when json_array_length(m.errors) >= {most_errors} then json_remove(m.errors, '$[0]')
      else coalesce(m.errors, '[]') end,
    '$[#]', json_array(m.attempt, :now, json_extract(g.value, '$[6]'))
  ) end
from json_each(:given) g
where m.id = json_extract(g.value, '$[0]') and m.owner = json_extract(g.value, '$[1]')
  and m.claims = json_extract(g.value, '$[2]') and m.state = 0 and m.leased_until > :now
returning id, case when state = 1 then join_id end

-- And whether there are joins whose time is over.
-- statement subscribers_version
select value, exists (select 1 from {prefix}join where state = 0 and deadline <= :now),
  exists (select 1 from {prefix}pause)
from {prefix}meta where name = 'subscriptions'

-- statement subscriptions
select subscriber, pattern, since from {prefix}subscription order by 1, 2

-- statement subscribe_less
delete from {prefix}subscription
where subscriber = :subscriber and pattern not in (select value from json_each(:patterns))

-- statement subscribe
insert into {prefix}subscription (subscriber, pattern, since)
select :subscriber, value,
  coalesce((select seq from sqlite_sequence where name = '{prefix}message'), 0)
from json_each(:patterns) where true
on conflict (subscriber, pattern) do nothing

-- statement subscribers_changed
update {prefix}meta set value = value + 1 where name = 'subscriptions'

-- statement unsubscribe
delete from {prefix}subscription where subscriber = :subscriber

-- statement wait_no_more
update {prefix}message
set due_at = min(due_at, :now), waiting = (
    select json_group_array(value) from json_each(waiting) where value <> :subscriber
  )
where state = 0 and waiting is not null
  and :subscriber in (select value from json_each(waiting))

-- When a message may become ready that is not now: one that is due later, or that is held.
-- statement next
select min(at) - :now from (
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 0 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 1 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 2 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 3 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 4 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 5 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 6 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 7 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 8 and due_at > :now and {mine}
  union all
  select min(due_at) as at from {prefix}message m
  where state = 0 and priority = 9 and due_at > :now and {mine}
  union all
  select min(leased_until) from (
    select leased_until from {prefix}message m
    where state = 0 and priority between 0 and 9 and due_at <= :now and leased_until > :now and {mine}
    limit 10000
  )
  union all
  select min(deadline) from {prefix}join where state = 0 and deadline is not null
)

-- statement release
update {prefix}message
set owner = null, leased_until = null, attempt = attempt - 1
where state = 0 and leased_until > :now and (id, owner, claims) in (
  select json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
  from json_each(:given)
)
returning id

-- statement extend
update {prefix}message
set leased_until = :now + :lease
where state = 0 and leased_until > :now and (id, owner, claims) in (
  select json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
  from json_each(:given)
)
returning id

-- What is leased is due: the rest need not be looked at.
-- statement reap_leases
update {prefix}message as m
set owner = null, leased_until = null
where state = 0 and priority between 0 and 9 and due_at <= :now and leased_until <= :now and {mine}

-- statement reap_expired
update {prefix}message as m
set state = 1, ended_at = :now,
  errors = json_insert(
    case when json_array_length(errors) >= {most_errors} then json_remove(errors, '$[0]')
      else coalesce(errors, '[]') end,
    '$[#]', json_array(attempt, :now, 'Expired: nobody handled it in time')
  )
where state = 0 and expires_at <= :now and (leased_until is null or leased_until <= :now) and {mine}
returning id, join_id

-- statement reap_dedupes
delete from {prefix}dedupe where until <= :now

-- One writes at a time: who comes second waits, and finds what the first has written.
-- statement inbox_see
insert into {prefix}inbox (key, tenant, until) values (:key, {whose}, :now + :keep)
on conflict (key, tenant) do update set until = excluded.until where until <= :now
returning key

-- statement reap_inbox
delete from {prefix}inbox where until <= :now

-- statement join_create
insert into {prefix}join (expected, quorum, tolerates, deadline, tenant)
values (:expected, :quorum, :tolerates, :now + :deadline, nullif({whose}, ''))
returning id

-- statement join_follow
insert into {prefix}follow (join_id, outcome, topic, body, format, headers, correlation_id, traceparent,
  ordering_key, priority, tenant, due, delay, ttl)
values (:join, :outcome, :topic, :body, :format, :headers, :correlation_id, :traceparent,
  :ordering_key, :priority, :tenant, :due, :delay, :ttl)

-- It changes nothing, and takes the writer's lock: nobody comes between it and what is written.
-- statement join_known
update {prefix}join as m set expected = expected where id = :join and {mine}
returning expected, (select count(*) from {prefix}member where join_id = :join),
  coalesce((select seq from sqlite_sequence where name = '{prefix}message'), 0)

-- statement join_members
insert into {prefix}member (join_id, message_id)
select :join, value from json_each(:ids) where true
on conflict do nothing
returning message_id

-- statement join_states
select id, state, join_id from {prefix}message where id in (select value from json_each(:ids))

-- statement join_mark
update {prefix}message set join_id = :join
where state = 0 and id in (select value from json_each(:ids))

-- statement join_state
select state from {prefix}join where id = :join

-- statement join_tally
update {prefix}join
set done = done + :done, failed = failed + :failed,
  ended_at = case when state = 0 then :now else ended_at end,
  state = case
    when state <> 0 then state
    when deadline <= :now then 3
    when done + :done + tolerates * (failed + :failed) >= quorum then 1
    when tolerates = 0 and failed + :failed > expected - quorum then 2
    else 0 end
where id = :join
returning state

-- statement join_followed
insert into {prefix}message (topic, body, format, headers, correlation_id, traceparent,
  ordering_key, priority, tenant, enqueued_at, due_at, expires_at)
select topic, body, format, headers, correlation_id, traceparent, ordering_key, priority, tenant, :now,
  coalesce(due, :now + delay), :now + ttl
from {prefix}follow where join_id = :join and outcome = :outcome

-- statement join_overdue
select id from {prefix}join where state = 0 and deadline <= :now

-- statement join_cancel
update {prefix}join as m set state = 4, ended_at = :now
where id = :join and state = 0 and (deadline is null or deadline > :now) and {mine}
returning id

-- statement joins
select id, expected, quorum, tolerates,
  (select count(*) from {prefix}member b where b.join_id = m.id), done, failed,
  case when state = 0 and deadline <= :now then 3 else state end, deadline,
  case when state <> 0 then ended_at end
from {prefix}join m where id > :after and {mine} order by id limit :limit

-- statement reap_joins
delete from {prefix}join where state <> 0 and ended_at <= :now - {join_kept}

-- statement reap_members
delete from {prefix}member where join_id not in (select id from {prefix}join)

-- statement reap_follow
delete from {prefix}follow where join_id not in (select id from {prefix}join)

-- statement plan_now
select :now

-- statement plan_make
insert into {prefix}plan as p (name, tenant, cadence, next_at)
values (:name, {whose}, :cadence, :first)
on conflict (name, tenant) do update set cadence = excluded.cadence, next_at = excluded.next_at
where p.cadence <> excluded.cadence
returning name

-- statement plan_claim
update {prefix}plan
set owner = :owner, leased_until = :now + :lease
where name in (select value from json_each(:names)) and tenant = {whose} and next_at <= :now
  and (leased_until is null or leased_until <= :now)
returning name, next_at, cursor, :now

-- statement plan_next
select min(max(next_at, coalesce(leased_until, 0))) - :now
from {prefix}plan where name in (select value from json_each(:names)) and tenant = {whose}

-- statement plan_done
update {prefix}plan set next_at = :next, cursor = :cursor, owner = null, leased_until = null
where name = :name and tenant = {whose} and owner = :owner and leased_until > :now
returning name

-- statement plan_forget
delete from {prefix}plan where name = :name and tenant = {whose} returning name

-- statement list
select {row} from {prefix}message m
where id > :after and {mine}
  and (:topic is null or topic = :topic)
  and (:status is null or :status = case
    when state = 1 then 'dead'
    when state = 2 then 'done'
    when leased_until > :now then 'leased'
    when due_at > :now and due_at < {far} then 'scheduled'
    else 'ready' end)
order by id limit :limit

-- How much is ready, and for how long the first of that; no more is looked at than is wanted.
-- statement backlog
select count(*), :now - min(due_at) from (
  select due_at from {prefix}message m
  where state = 0 and priority between 0 and 9 and due_at <= :now
    and (leased_until is null or leased_until <= :now) and {mine}
  limit :most
)

-- statement counts
select topic, case
    when leased_until > :now then 'leased'
    when due_at > :now and due_at < {far} then 'scheduled'
    when {paused} then 'paused'
    else 'ready' end as status, count(*)
from {prefix}message m where state = 0 and {mine} group by 1, 2
union all
select topic, 'dead', count(*) from {prefix}message m where state = 1 and {mine} group by 1
union all
select topic, 'done', sum(count) from {prefix}done m where {mine} group by 1
order by 1, 2

-- Those that have messages, or had: from one to the next by the index.
-- statement tenants
with recursive has_open (tenant) as (
  select * from (
    select tenant from {prefix}message where state = 0 and tenant is not null order by tenant limit 1
  )
  union all
  select (
    select m.tenant from {prefix}message m where m.state = 0 and m.tenant > o.tenant
    order by m.tenant limit 1
  ) from has_open o where o.tenant is not null
)
select tenant from has_open where tenant is not null
union
select tenant from {prefix}message where state = 1 and tenant is not null
union
select tenant from {prefix}done where tenant <> ''
order by 1

-- Those of them that something is done to.
-- fragment meant
{mine} and (:topic is null or m.topic = :topic)
    and (:ids is null or m.id in (select value from json_each(:ids)))

-- Dead or done ones: by the index on what has ended, whatever else there is.
-- fragment ended
m.state = :state and m.state <> 0 and m.ended_at <= :now - :older_than and {meant}

-- Those that nobody has begun with.
-- fragment open
m.state = 0 and (m.leased_until is null or m.leased_until <= :now) and {meant}

-- fragment some_ended
(
  select m.id from {prefix}message m
  where {ended}
  order by m.ended_at limit :limit
)

-- statement count_ended
select count(*) from {prefix}message m where {ended}

-- statement count_open
select count(*) from {prefix}message m where {open}

-- statement requeue
update {prefix}message
set state = 0, ended_at = null, expires_at = null, attempt = 0, progress = null,
  join_id = null, due_at = :now
where id in {some_ended}

-- statement cancel
update {prefix}message
set state = 1, ended_at = :now, owner = null, leased_until = null,
  errors = json_insert(
    case when json_array_length(errors) >= {most_errors} then json_remove(errors, '$[0]')
      else coalesce(errors, '[]') end,
    '$[#]', json_array(attempt, :now, :error)
  )
where id in (
  select m.id from {prefix}message m
  where {open}
  order by m.id limit :limit
)
returning id, join_id

-- statement purge
delete from {prefix}message where id in {some_ended}

-- statement pauses
select pattern, min(since) from {prefix}pause where tenant in ('', {whose}) group by 1 order by 1

-- statement pause
insert into {prefix}pause (pattern, tenant, since) values (:pattern, {whose}, :now)
on conflict do nothing

-- statement resume
delete from {prefix}pause where pattern = :pattern and tenant = {whose}

-- What is paused is set aside, behind all other times there are: claims would pass over it each time
-- anew. All of it when its topic is paused, and what comes later when a claim has met it.
-- statement set_aside_all
update {prefix}message set due_at = due_at + {far}, owner = null, leased_until = null
where id in (
  select m.id from {prefix}message m
  where m.id > :after and m.state = 0 and m.due_at <= :now
    and (m.leased_until is null or m.leased_until <= :now) and {mine} and {paused}
  order by m.id limit :limit
)
returning id

-- statement set_aside
update {prefix}message set due_at = due_at + {far}, owner = null, leased_until = null
where id in (
  select m.id from json_each('[0,1,2,3,4,5,6,7,8,9]') p join {prefix}message m on m.id in (
    select m.id from {prefix}message m
    where m.state = 0 and m.priority = p.value and m.due_at <= :now and {mine}
    order by m.due_at, m.id limit :limit
  )
  where (m.leased_until is null or m.leased_until <= :now) and {paused}
)
returning id

-- statement bring_back
update {prefix}message set due_at = due_at - {far}
where id in (
  select m.id from {prefix}message m
  where m.state = 0 and m.priority between 0 and 9 and m.due_at >= {far} and {mine} and not {paused}
  limit :limit
)
returning id

-- Since when the first message waits that could be handled, and somebody holds the one that is held
-- longest.
-- statement ages
select (
  select min(at) from (
    select (
      select m.due_at from {prefix}message m
      where m.state = 0 and m.priority = p.value and m.due_at <= :now and {mine}
        and (m.leased_until is null or m.leased_until <= :now)
        and (m.expires_at is null or m.expires_at > :now) and not {paused}
      order by m.due_at, m.id limit 1
    ) as at
    from json_each('[0,1,2,3,4,5,6,7,8,9]') p
  )
), (
  select min(claimed_at) from (
    select claimed_at from {prefix}message m
    where state = 0 and priority between 0 and 9 and due_at <= :now and leased_until > :now and {mine}
    limit 10000
  )
), :now

-- statement beat
insert into {prefix}worker (id, told, started_at, seen_at, until)
values (:id, :told, :now, :now, :now + :lasts)
on conflict (id) do update set told = excluded.told, seen_at = excluded.seen_at, until = excluded.until

-- statement leave
delete from {prefix}worker where id = :id

-- statement workers
select id, told, started_at, seen_at, :now from {prefix}worker where until > :now
order by id desc limit 1000

-- statement reap_workers
delete from {prefix}worker where until <= :now
