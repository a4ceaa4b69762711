//! The outbox at the border: its SQL for Python's drivers, and the store that is nothing but memory.
//! One class, a little longer than a file should be: each of its methods is a line of the state's.

use std::sync::{Arc, Mutex};

use anabranch_core::outbox::{
    Dedupe, Division, Draft, Due, Ended, Filter, Format, Join, JoinDraft, Memory, Message, Millis,
    Ordering, Outcome, Receipt, Status, Wanted, back_off,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::run::locked;
use crate::outbox::Dialect;

/// The SQL of a dialect for tables with that prefix, and in that schema, of one tenant or of all: the
/// migrations by version, the statements by name.
type Sql = (
    Vec<(u32, Vec<String>)>,
    std::collections::BTreeMap<String, String>,
);

#[pyfunction]
#[pyo3(signature = (dialect, prefix, schema=None, of_tenant=false))]
pub(crate) fn outbox_sql(
    dialect: &str,
    prefix: &str,
    schema: Option<&str>,
    of_tenant: bool,
) -> PyResult<Sql> {
    let dialect = Dialect::named(dialect)
        .ok_or_else(|| PyValueError::new_err(format!("there is no dialect {dialect:?}")))?;
    let script = dialect.script(prefix, schema, of_tenant);
    let migrations = script.migrations.into_iter();
    Ok((
        migrations.map(|it| (it.version, it.statements)).collect(),
        script.statements,
    ))
}

/// Seconds to wait after that failed attempt, by default; `random` is from [0, 1).
#[pyfunction]
#[pyo3(signature = (attempt, random))]
pub(crate) fn outbox_back_off(attempt: u32, random: f64) -> f64 {
    back_off(attempt, random).as_secs_f64()
}

/// A draft, as `anabranch._outbox.draft` describes it to every store.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct GivenDraft {
    topic: String,
    body: Vec<u8>,
    format: u8,
    headers: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    ordering_key: Option<String>,
    dedupe_key: Option<String>,
    priority: u8,
    tenant: Option<String>,
    due: Option<Millis>,
    delay: Millis,
    ttl: Option<Millis>,
}

impl GivenDraft {
    fn read(self) -> PyResult<Draft> {
        Ok(Draft {
            topic: self.topic,
            body: self.body,
            format: Format::of(self.format).ok_or_else(|| PyValueError::new_err("format"))?,
            headers: self.headers,
            correlation_id: self.correlation_id,
            traceparent: self.traceparent,
            ordering_key: self.ordering_key,
            dedupe_key: self.dedupe_key,
            priority: self.priority,
            tenant: self.tenant,
            due: self.due.map_or(Due::After(self.delay), Due::At),
            ttl: self.ttl,
        })
    }
}

/// What a message says in short, and how many milliseconds its dedupe key is remembered.
type GivenDedupe = (Vec<u8>, Millis);

type GivenReceipt = (i64, i64, u32);

/// A receipt, and what becomes of a message of which some subscribers are done.
type GivenDivision = (
    i64,
    i64,
    u32,
    Option<Millis>,
    Option<Vec<String>>,
    Option<String>,
    Option<String>,
    bool,
);

fn receipt((id, owner, claims): GivenReceipt) -> Receipt {
    Receipt { id, owner, claims }
}

fn receipts(given: Vec<GivenReceipt>) -> Vec<Receipt> {
    given.into_iter().map(receipt).collect()
}

fn ordering(skip: bool) -> Ordering {
    if skip {
        Ordering::Skip
    } else {
        Ordering::Block
    }
}

fn status(name: Option<&str>) -> PyResult<Option<Status>> {
    let Some(name) = name else { return Ok(None) };
    let status = Status::named(name);
    status
        .map(Some)
        .ok_or_else(|| PyValueError::new_err(format!("there is no status {name:?}")))
}

/// A join as a row of the tables: the SQL's statement `joins`.
type JoinRow = (
    i64,
    u32,
    u32,
    bool,
    usize,
    u32,
    u32,
    u8,
    Option<Millis>,
    Option<Millis>,
);

fn join_row(id: i64, join: &Join, now: Millis) -> JoinRow {
    let draft = &join.draft;
    let over = join.deadline.is_some_and(|deadline| deadline <= now);
    let state = match join.ended {
        Some((outcome, _)) => outcome.code(),
        None if over => Outcome::Expired.code(),
        None => 0,
    };
    (
        id,
        draft.expected,
        draft.quorum,
        draft.tolerates,
        join.members.len(),
        join.done,
        join.failed,
        state,
        join.deadline,
        join.ended.map(|(_, at)| at),
    )
}

const fn state(message: &Message) -> u8 {
    match message.ended {
        None => 0,
        Some((Ended::Dead, _)) => 1,
        Some((Ended::Done, _)) => 2,
    }
}

/// How messages with this state in a table ended; `None`: they have not.
fn ended(state: u8) -> Option<Ended> {
    match state {
        0 => None,
        1 => Some(Ended::Dead),
        _ => Some(Ended::Done),
    }
}

/// A message as a row of the tables, in the order of the SQL's fragment `row`.
fn row<'py>(py: Python<'py>, message: &Message, now: Millis) -> PyResult<Bound<'py, PyTuple>> {
    let draft = &message.draft;
    let errors = message.errors.iter();
    let errors: Vec<_> = errors.map(|it| (it.attempt, it.at, &it.error)).collect();
    let errors = (!errors.is_empty()).then(|| serde_json::to_string(&errors).unwrap_or_default());
    let head = (
        message.id,
        &draft.topic,
        PyBytes::new(py, &draft.body),
        draft.format.code(),
        &draft.headers,
        &draft.correlation_id,
        &draft.traceparent,
        &draft.ordering_key,
        &draft.dedupe_key,
        draft.priority,
    );
    let tail = (
        state(message),
        message.enqueued_at,
        message.due_at,
        message.expires_at,
        message.ended.map(|(_, at)| at),
        message.attempt,
        errors,
        message.lease.map(|(owner, _)| owner),
        message.lease.map(|(_, until)| until),
        now,
        message.claims,
        message
            .waiting
            .as_ref()
            .map(|it| serde_json::json!(it).to_string()),
    );
    let (head, tail) = (head.into_pyobject(py)?, tail.into_pyobject(py)?);
    let last = (
        &message.progress,
        message.join,
        message.claimed_at,
        &draft.tenant,
    );
    let last = last.into_pyobject(py)?;
    let both: Vec<_> = head.iter().chain(tail.iter()).chain(last.iter()).collect();
    PyTuple::new(py, both)
}

fn table<'py>(
    py: Python<'py>,
    messages: &[Message],
    now: Millis,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    messages.iter().map(|it| row(py, it, now)).collect()
}

/// All messages of a store in memory, or those of one tenant.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct OutboxMemory {
    memory: Arc<Mutex<Memory>>,
    tenant: Option<String>,
}

#[pymethods]
impl OutboxMemory {
    #[new]
    fn new() -> Self {
        Self {
            memory: Arc::default(),
            tenant: None,
        }
    }

    /// The same messages, as far as they are a tenant's.
    #[pyo3(signature = (tenant))]
    fn of(&self, tenant: String) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            tenant: Some(tenant),
        }
    }

    /// Those that have messages, or had.
    fn tenants(&self) -> Vec<String> {
        locked(&self.memory).tenants().into_iter().collect()
    }

    fn reserve(&self) -> i64 {
        locked(&self.memory).reserve()
    }

    fn owner(&self) -> i64 {
        locked(&self.memory).owner()
    }

    #[pyo3(signature = (key, tenant, now))]
    fn dedupe(&self, key: &str, tenant: Option<&str>, now: Millis) -> Option<(i64, Vec<u8>)> {
        let memory = locked(&self.memory);
        let found = memory.dedupe(key, tenant, now)?;
        Some((found.id, found.digest.clone()))
    }

    /// All of them, or none.
    #[pyo3(signature = (given, now))]
    fn insert(
        &self,
        given: Vec<(i64, GivenDraft, Option<GivenDedupe>)>,
        now: Millis,
    ) -> PyResult<()> {
        let drafts: Vec<_> = given
            .into_iter()
            .map(|(id, draft, dedupe)| Ok((id, draft.read()?, dedupe)))
            .collect::<PyResult<_>>()?;
        let mut memory = locked(&self.memory);
        for (id, draft, dedupe) in drafts {
            let dedupe = dedupe.map(|(digest, keep)| Dedupe {
                id,
                digest,
                until: now + keep,
            });
            memory.insert(id, draft, dedupe, now);
        }
        Ok(())
    }

    fn last(&self) -> i64 {
        locked(&self.memory).last()
    }

    fn reserve_join(&self) -> i64 {
        locked(&self.memory).reserve_join()
    }

    #[pyo3(signature = (join, expected, quorum, tolerates, deadline, then, otherwise, now))]
    #[expect(clippy::too_many_arguments, reason = "it is called by name")]
    fn insert_join(
        &self,
        join: i64,
        expected: u32,
        quorum: u32,
        tolerates: bool,
        deadline: Option<Millis>,
        then: GivenDraft,
        otherwise: Option<GivenDraft>,
        now: Millis,
    ) -> PyResult<()> {
        let draft = JoinDraft {
            expected,
            quorum,
            tolerates,
            deadline,
            then: then.read()?,
            otherwise: otherwise.map(GivenDraft::read).transpose()?,
            tenant: self.tenant.clone(),
        };
        locked(&self.memory).insert_join(join, draft, now);
        Ok(())
    }

    #[pyo3(signature = (join, messages, retracted, now))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list from Python is extracted whole"
    )]
    fn attach(&self, join: i64, messages: Vec<i64>, retracted: Vec<i64>, now: Millis) {
        locked(&self.memory).attach(join, &messages, &retracted, now);
    }

    #[pyo3(signature = (join, now))]
    fn cancel_join(&self, join: i64, now: Millis) -> bool {
        locked(&self.memory).cancel_join(join, self.tenant.as_deref(), now)
    }

    /// How many members a join expects, and how many it has.
    #[pyo3(signature = (join))]
    fn join_known(&self, join: i64) -> Option<(u32, usize)> {
        let memory = locked(&self.memory);
        let found = memory.join(join, self.tenant.as_deref())?;
        Some((found.draft.expected, found.members.len()))
    }

    /// Of those that are there: the id, the state and the join.
    #[pyo3(signature = (messages))]
    fn join_states(&self, messages: Vec<i64>) -> Vec<(i64, u8, Option<i64>)> {
        let memory = locked(&self.memory);
        let there = messages.into_iter().filter_map(|id| memory.message(id));
        there.map(|it| (it.id, state(it), it.join)).collect()
    }

    /// Those that are not members yet.
    #[pyo3(signature = (join, messages))]
    fn join_new(&self, join: i64, messages: Vec<i64>) -> Vec<i64> {
        let memory = locked(&self.memory);
        let members = memory.join(join, None).map(|it| &it.members);
        let is_new = |id: &i64| members.is_none_or(|members| !members.contains(id));
        messages.into_iter().filter(is_new).collect()
    }

    #[pyo3(signature = (after, limit, now))]
    fn joins(&self, after: i64, limit: usize, now: Millis) -> Vec<JoinRow> {
        let joins = locked(&self.memory).joins(after, self.tenant.as_deref(), limit);
        joins
            .into_iter()
            .map(|(id, join)| join_row(id, &join, now))
            .collect()
    }

    #[pyo3(signature = (key, now))]
    fn has_seen(&self, key: &str, now: Millis) -> bool {
        locked(&self.memory).has_seen(key, self.tenant.as_deref(), now)
    }

    #[pyo3(signature = (key, until))]
    fn see(&self, key: &str, until: Millis) {
        locked(&self.memory).see(key, self.tenant.as_deref(), until);
    }

    #[pyo3(signature = (message, now))]
    fn retract(&self, message: i64, now: Millis) -> bool {
        locked(&self.memory).retract(message, self.tenant.as_deref(), now)
    }

    #[pyo3(signature = (limit, skip, now))]
    fn peek<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
        skip: bool,
        now: Millis,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let wanted = Wanted {
            tenant: self.tenant.as_deref(),
            ..Wanted::default()
        };
        let found = locked(&self.memory).peek(limit, ordering(skip), wanted, now);
        table(py, &found, now)
    }

    #[pyo3(signature = (owner, limit, lease, skip, without, by, now))]
    #[expect(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "it is called by name, and lists from Python are extracted whole"
    )]
    fn claim<'py>(
        &self,
        py: Python<'py>,
        owner: i64,
        limit: usize,
        lease: Millis,
        skip: bool,
        without: Vec<String>,
        by: Option<Vec<String>>,
        now: Millis,
    ) -> PyResult<(i64, Vec<Bound<'py, PyTuple>>)> {
        let wanted = Wanted {
            without: &without,
            by: by.as_deref(),
            tenant: self.tenant.as_deref(),
        };
        let mut memory = locked(&self.memory);
        let claimed = memory.claim(owner, limit, lease, ordering(skip), wanted, now);
        let version = memory.subscriptions().0;
        drop(memory);
        Ok((version, table(py, &claimed, now)?))
    }

    #[pyo3(signature = (given, now))]
    fn divide(&self, given: Vec<GivenDivision>, now: Millis) -> Vec<i64> {
        let given = given.into_iter().map(
            |(id, owner, claims, delay, waiting, progress, error, counts)| {
                let division = Division {
                    delay,
                    waiting,
                    progress,
                    error,
                    counts,
                };
                (receipt((id, owner, claims)), division)
            },
        );
        locked(&self.memory).divide(given.collect(), now)
    }

    #[pyo3(signature = (subscriber, patterns))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list from Python is extracted whole"
    )]
    fn subscribe(&self, subscriber: &str, patterns: Vec<String>) {
        locked(&self.memory).subscribe(subscriber, &patterns);
    }

    #[pyo3(signature = (subscriber, now))]
    fn unsubscribe(&self, subscriber: &str, now: Millis) -> bool {
        locked(&self.memory).unsubscribe(subscriber, now)
    }

    fn subscriptions(&self) -> (i64, Vec<(String, String, i64)>) {
        let memory = locked(&self.memory);
        let (version, subscriptions) = memory.subscriptions();
        let rows = subscriptions.iter();
        let rows = rows.map(|it| (it.subscriber.clone(), it.pattern.clone(), it.since));
        (version, rows.collect())
    }

    /// When a message may become ready that is not now.
    #[pyo3(signature = (now))]
    fn next(&self, now: Millis) -> Option<Millis> {
        locked(&self.memory).next(self.tenant.as_deref(), now)
    }

    #[pyo3(signature = (given, archive, now))]
    fn ack(&self, given: Vec<GivenReceipt>, archive: bool, now: Millis) -> Vec<i64> {
        locked(&self.memory).ack(&receipts(given), archive, now)
    }

    #[pyo3(signature = (given, now))]
    fn abandon(
        &self,
        given: Vec<(i64, i64, u32, Millis, Option<String>)>,
        now: Millis,
    ) -> Vec<i64> {
        let given = given
            .into_iter()
            .map(|(id, owner, claims, delay, error)| (receipt((id, owner, claims)), delay, error));
        locked(&self.memory).abandon(given.collect(), now)
    }

    #[pyo3(signature = (given, now))]
    fn fail(&self, given: Vec<(i64, i64, u32, String)>, now: Millis) -> Vec<i64> {
        let given = given
            .into_iter()
            .map(|(id, owner, claims, error)| (receipt((id, owner, claims)), error));
        locked(&self.memory).fail(given.collect(), now)
    }

    #[pyo3(signature = (given, now))]
    fn release(&self, given: Vec<GivenReceipt>, now: Millis) -> Vec<i64> {
        locked(&self.memory).release(&receipts(given), now)
    }

    #[pyo3(signature = (given, lease, now))]
    fn extend(&self, given: Vec<GivenReceipt>, lease: Millis, now: Millis) -> Vec<i64> {
        locked(&self.memory).extend(&receipts(given), lease, now)
    }

    /// How many leases were over, and how many messages nobody wants any more.
    #[pyo3(signature = (now))]
    fn reap(&self, now: Millis) -> (usize, usize) {
        let reaped = locked(&self.memory).reap(self.tenant.as_deref(), now);
        (reaped.leases, reaped.expired)
    }

    #[pyo3(signature = (name, topic, after, limit, now))]
    fn rows<'py>(
        &self,
        py: Python<'py>,
        name: Option<&str>,
        topic: Option<&str>,
        after: i64,
        limit: usize,
        now: Millis,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let filter = Filter {
            status: status(name)?,
            topic,
            tenant: self.tenant.as_deref(),
            ..Filter::default()
        };
        let found = locked(&self.memory).list(&filter, after, limit, now);
        table(py, &found, now)
    }

    #[pyo3(signature = (now))]
    fn counts(&self, now: Millis) -> Vec<(String, &'static str, u64)> {
        let counts = locked(&self.memory).counts(self.tenant.as_deref(), now);
        let counts = counts.into_iter();
        counts
            .map(|((topic, status), count)| (topic, status.name(), count))
            .collect()
    }

    #[pyo3(signature = (state, ids, topic, ended_by, now))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list from Python is extracted whole"
    )]
    fn chosen(
        &self,
        state: u8,
        ids: Option<Vec<i64>>,
        topic: Option<&str>,
        ended_by: Option<Millis>,
        now: Millis,
    ) -> usize {
        let filter = Filter {
            ids: ids.as_deref(),
            topic,
            tenant: self.tenant.as_deref(),
            ended_by,
            ..Filter::default()
        };
        locked(&self.memory).chosen(ended(state), &filter, now)
    }

    #[pyo3(signature = (ids, topic, limit, now))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list from Python is extracted whole"
    )]
    fn requeue(
        &self,
        ids: Option<Vec<i64>>,
        topic: Option<&str>,
        limit: usize,
        now: Millis,
    ) -> usize {
        let filter = Filter {
            ids: ids.as_deref(),
            topic,
            tenant: self.tenant.as_deref(),
            ..Filter::default()
        };
        locked(&self.memory).requeue(&filter, limit, now)
    }

    #[pyo3(signature = (ids, topic, error, limit, now))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list from Python is extracted whole"
    )]
    fn cancel(
        &self,
        ids: Option<Vec<i64>>,
        topic: Option<&str>,
        error: &str,
        limit: usize,
        now: Millis,
    ) -> usize {
        let filter = Filter {
            ids: ids.as_deref(),
            topic,
            tenant: self.tenant.as_deref(),
            ..Filter::default()
        };
        locked(&self.memory).cancel(&filter, error, limit, now)
    }

    #[pyo3(signature = (state, ids, topic, ended_by, limit, now))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a list from Python is extracted whole"
    )]
    fn purge(
        &self,
        state: u8,
        ids: Option<Vec<i64>>,
        topic: Option<&str>,
        ended_by: Millis,
        limit: usize,
        now: Millis,
    ) -> usize {
        let filter = Filter {
            ids: ids.as_deref(),
            topic,
            tenant: self.tenant.as_deref(),
            ended_by: Some(ended_by),
            ..Filter::default()
        };
        let how = ended(state).unwrap_or(Ended::Dead);
        locked(&self.memory).purge(how, &filter, limit, now)
    }

    #[pyo3(signature = (pattern, now))]
    fn pause(&self, pattern: &str, now: Millis) {
        locked(&self.memory).pause(pattern, self.tenant.as_deref(), now);
    }

    #[pyo3(signature = (pattern))]
    fn resume(&self, pattern: &str) -> bool {
        locked(&self.memory).resume(pattern, self.tenant.as_deref())
    }

    fn pauses(&self) -> Vec<(String, Millis)> {
        let pauses = locked(&self.memory).pauses(self.tenant.as_deref());
        pauses.into_iter().collect()
    }

    /// When the first message was due that could be handled, and the one that is held longest claimed.
    #[pyo3(signature = (now))]
    fn ages(&self, now: Millis) -> (Option<Millis>, Option<Millis>) {
        let ages = locked(&self.memory).ages(self.tenant.as_deref(), now);
        (ages.ready, ages.held)
    }
}
