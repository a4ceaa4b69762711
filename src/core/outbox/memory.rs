//! All messages of one store, and what is done with them: the specification the other stores follow.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::joins::{Join, Members};
use super::{Draft, Due, Ended, Message, Millis, Ordering, Receipt, Status, Subscription, Wanted};

/// A store that is nothing but state.
///
/// ```
/// use anabranch_core::outbox::{Draft, Due, Format, Memory, Ordering, Receipt, Wanted};
///
/// let mut store = Memory::default();
/// let draft = Draft {
///     topic: "order.created".to_owned(),
///     body: b"7".to_vec(),
///     format: Format::Json,
///     headers: None,
///     correlation_id: None,
///     traceparent: None,
///     ordering_key: None,
///     dedupe_key: None,
///     priority: 5,
///     tenant: None,
///     due: Due::After(0),
///     ttl: None,
/// };
/// let id = store.reserve();
/// store.insert(id, draft, None, 0);
/// let owner = store.owner();
/// let claimed = store.claim(owner, 10, 60_000, Ordering::Block, Wanted::default(), 0);
/// let receipt = Receipt { id, owner, claims: claimed[0].claims };
/// assert_eq!(store.ack(&[receipt], false, 60_000), []); // too late: the lease is over
/// assert_eq!(store.claim(owner, 10, 60_000, Ordering::Block, Wanted::default(), 60_000)[0].attempt, 2);
/// ```
#[derive(Debug, Default, Clone)]
pub struct Memory {
    pub(super) ids: i64,
    owners: i64,
    // By id: the order in which they were enqueued.
    pub(super) messages: BTreeMap<i64, Message>,
    // By whose they are, too: '' is nobody's.
    dedupes: HashMap<(String, String), Dedupe>,
    pub(super) inbox: HashMap<(String, String), Millis>,
    pub(super) join_ids: i64,
    pub(super) joins: BTreeMap<i64, Join>,
    done: BTreeMap<(String, Option<String>), u64>,
    pub(super) subscriptions: Vec<Subscription>,
    // Grows with every change of the subscriptions.
    pub(super) version: i64,
    // Topics, or beginnings of topics and `*`, whose, or of all tenants; and since when.
    pub(super) pauses: BTreeMap<(String, Option<String>), Millis>,
}

/// What a dedupe key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedupe {
    /// The message that was enqueued with it.
    pub id: i64,
    /// What that message says, in short.
    pub digest: Vec<u8>,
    /// Until when it is remembered.
    pub until: Millis,
}

/// Which messages are meant.
#[derive(Debug, Default, Clone)]
pub struct Filter<'a> {
    /// Those of this status.
    pub status: Option<Status>,
    /// Those of this topic.
    pub topic: Option<&'a str>,
    /// Those of this tenant.
    pub tenant: Option<&'a str>,
    /// Those with these ids.
    pub ids: Option<&'a [i64]>,
    /// Those that ended at this time or before.
    pub ended_by: Option<Millis>,
}

impl Filter<'_> {
    pub(super) fn takes(&self, message: &Message, now: Millis) -> bool {
        self.status
            .is_none_or(|status| message.status(now) == status)
            && self.topic.is_none_or(|topic| message.draft.topic == topic)
            && message.is_of(self.tenant)
            && self.ids.is_none_or(|ids| ids.contains(&message.id))
            && self
                .ended_by
                .is_none_or(|by| message.ended.is_some_and(|(_, at)| at <= by))
    }
}

/// What was reaped.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Messages whose lease was over.
    pub leases: usize,
    /// Messages nobody wants any more; they are dead now.
    pub expired: usize,
}

impl Memory {
    /// A number for a message, higher than all before it.
    pub fn reserve(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    /// The last number that was given to a message.
    pub const fn last(&self) -> i64 {
        self.ids
    }

    /// The message with that id.
    pub fn message(&self, id: i64) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// A number for a claimer, higher than all before it.
    pub fn owner(&mut self) -> i64 {
        self.owners += 1;
        self.owners
    }

    /// What `key` stands for among a tenant's, if it is remembered.
    pub fn dedupe(&self, key: &str, tenant: Option<&str>, now: Millis) -> Option<&Dedupe> {
        self.dedupes
            .get(&owned(key, tenant))
            .filter(|dedupe| dedupe.until > now)
    }

    /// Write a message; `dedupe` says what its dedupe key stands for from now on.
    pub fn insert(&mut self, id: i64, draft: Draft, dedupe: Option<Dedupe>, now: Millis) {
        if let (Some(key), Some(dedupe)) = (&draft.dedupe_key, dedupe) {
            let key = owned(key, draft.tenant.as_deref());
            self.dedupes.insert(key, dedupe);
        }
        let message = Message {
            id,
            enqueued_at: now,
            due_at: match draft.due {
                Due::At(at) => at,
                Due::After(delay) => now + delay,
            },
            expires_at: draft.ttl.map(|ttl| now + ttl),
            attempt: 0,
            claims: 0,
            errors: Vec::new(),
            lease: None,
            ended: None,
            waiting: None,
            progress: None,
            join: None,
            claimed_at: None,
            draft,
        };
        self.messages.insert(id, message);
    }

    /// Take a message back: true if nobody has claimed it, and it is gone.
    pub fn retract(&mut self, id: i64, tenant: Option<&str>, now: Millis) -> bool {
        let open = self
            .messages
            .get(&id)
            .is_some_and(|it| it.ended.is_none() && !it.is_leased(now) && it.is_of(tenant));
        if open {
            let join = self.join_of(id);
            self.remove(id);
            self.tally(join.map(|it| (it, (0, 1))).into_iter().collect(), now);
        }
        open
    }

    /// Up to `limit` messages that can be claimed now, the most urgent first: by priority, then by
    /// due time, then in the order they were enqueued in.
    pub fn peek(
        &self,
        limit: usize,
        ordering: Ordering,
        wanted: Wanted<'_>,
        now: Millis,
    ) -> Vec<Message> {
        // A later one may be held: the first was requeued, or passed over, meanwhile.
        let held = self.messages.values().filter(|it| it.is_leased(now));
        let mut busy: HashSet<_> = held.filter_map(ordered).collect();
        let mut found = Vec::new();
        for message in self.messages.values().filter(|it| it.is_wanted(now)) {
            let due = message.due_at <= now && !self.is_paused(message);
            let counts = due || ordering == Ordering::Block;
            let key = ordered(message);
            let first = key.is_none_or(|key| counts && busy.insert(key));
            if first && due && !message.is_leased(now) && wanted.takes(message) {
                found.push(message);
            }
        }
        found.sort_by_key(|it| (u8::MAX - it.draft.priority, it.due_at, it.id));
        found.into_iter().take(limit).cloned().collect()
    }

    /// Give up to `limit` messages to `owner`, for `lease` milliseconds and one more attempt.
    pub fn claim(
        &mut self,
        owner: i64,
        limit: usize,
        lease: Millis,
        ordering: Ordering,
        wanted: Wanted<'_>,
        now: Millis,
    ) -> Vec<Message> {
        self.expire_joins(now);
        let mut claimed = self.peek(limit, ordering, wanted, now);
        for message in &mut claimed {
            message.attempt += 1;
            message.claims += 1;
            message.claimed_at = Some(now);
            message.lease = Some((owner, now + lease));
            self.messages.insert(message.id, message.clone());
        }
        claimed
    }

    /// They are handled. Each of the following tells the ids of those it changed: those that are
    /// still held as their receipts say.
    pub fn ack(&mut self, receipts: &[Receipt], archive: bool, now: Millis) -> Vec<i64> {
        let held = self.held(receipts, now);
        let mut members = Members::new();
        for id in &held {
            if let Some(mut message) = self.messages.remove(id) {
                if let Some(join) = message.join {
                    members.entry(join).or_default().0 += 1;
                }
                let counted = (message.draft.topic.clone(), message.draft.tenant.clone());
                *self.done.entry(counted).or_default() += 1;
                if archive {
                    message.end(Ended::Done, now);
                    self.messages.insert(*id, message);
                }
            }
        }
        self.tally(members, now);
        held
    }

    /// They are to be tried again, each after so many milliseconds.
    pub fn abandon(
        &mut self,
        given: Vec<(Receipt, Millis, Option<String>)>,
        now: Millis,
    ) -> Vec<i64> {
        let change = |message: &mut Message, (delay, error): (Millis, Option<String>)| {
            message.lease = None;
            message.due_at = now + delay;
            if let Some(error) = error {
                message.record(now, error);
            }
        };
        let given = given
            .into_iter()
            .map(|(it, delay, error)| (it, (delay, error)));
        self.change(given, now, change)
    }

    /// They are dead.
    pub fn fail(&mut self, given: Vec<(Receipt, String)>, now: Millis) -> Vec<i64> {
        let dead = self.change(given, now, |message, error| {
            message.end(Ended::Dead, now);
            message.record(now, error);
        });
        self.tally(self.dead_members(&dead), now);
        dead
    }

    /// When a message may become ready that is not now: one that is due later, or that is held.
    pub fn next(&self, tenant: Option<&str>, now: Millis) -> Option<Millis> {
        let messages = self.messages.values().filter(|it| it.is_wanted(now));
        let messages = messages.filter(|it| it.is_of(tenant));
        let times = messages.map(|it| match it.lease {
            Some((_, until)) if until > now => until,
            _ => it.due_at,
        });
        let times = times.filter(|time| *time > now);
        times.chain(self.next_deadline()).min()
    }

    /// They were not begun: the attempt does not count.
    pub fn release(&mut self, receipts: &[Receipt], now: Millis) -> Vec<i64> {
        let given = receipts.iter().map(|receipt| (*receipt, ()));
        self.change(given, now, |message, ()| {
            message.lease = None;
            message.attempt -= 1;
        })
    }

    /// They are held for `lease` milliseconds from now on.
    pub fn extend(&mut self, receipts: &[Receipt], lease: Millis, now: Millis) -> Vec<i64> {
        let given = receipts.iter().map(|receipt| (*receipt, receipt.owner));
        self.change(given, now, |message, owner| {
            message.lease = Some((owner, now + lease));
        })
    }

    /// End what is over: leases and messages with a time to live, of a tenant or of all; joins, dedupe
    /// keys, keys of the inbox.
    pub fn reap(&mut self, tenant: Option<&str>, now: Millis) -> Reaped {
        let mut reaped = Reaped::default();
        let mut expired = Vec::new();
        for message in self.messages.values_mut().filter(|it| it.ended.is_none()) {
            if message.is_leased(now) || !message.is_of(tenant) {
                continue;
            }
            reaped.leases += usize::from(message.lease.take().is_some());
            if !message.is_wanted(now) {
                message.ended = Some((Ended::Dead, now));
                message.record(now, "Expired: nobody handled it in time".to_owned());
                reaped.expired += 1;
                expired.push(message.id);
            }
        }
        self.tally(self.dead_members(&expired), now);
        self.expire_joins(now);
        self.forget_joins(now);
        self.dedupes.retain(|_, dedupe| dedupe.until > now);
        self.inbox.retain(|_, until| *until > now);
        reaped
    }

    /// Up to `limit` messages with ids above `after`, in the order of their ids.
    pub fn list(&self, filter: &Filter<'_>, after: i64, limit: usize, now: Millis) -> Vec<Message> {
        self.messages
            .range(after.saturating_add(1)..)
            .map(|(_, message)| message)
            .filter(|message| filter.takes(message, now))
            .take(limit)
            .cloned()
            .collect()
    }

    /// How many messages there are by topic and status. Those that are done are counted for ever.
    pub fn counts(&self, tenant: Option<&str>, now: Millis) -> BTreeMap<(String, Status), u64> {
        let mut counts = BTreeMap::new();
        for ((topic, whose), count) in &self.done {
            if tenant.is_none() || whose.as_deref() == tenant {
                *counts.entry((topic.clone(), Status::Done)).or_default() += count;
            }
        }
        for message in self.messages.values().filter(|it| it.is_of(tenant)) {
            let mut status = message.status(now);
            if status == Status::Ready && self.is_paused(message) {
                status = Status::Paused;
            }
            if status != Status::Done {
                *counts
                    .entry((message.draft.topic.clone(), status))
                    .or_default() += 1;
            }
        }
        counts
    }

    /// Those that have messages, or had.
    pub fn tenants(&self) -> BTreeSet<String> {
        let there = self.messages.values().map(|it| &it.draft.tenant);
        let were = self.done.keys().map(|(_, tenant)| tenant);
        there.chain(were).flatten().cloned().collect()
    }

    // Its dedupe key goes with it: whoever enqueues it again means it.
    fn remove(&mut self, id: i64) {
        let draft = self.messages.remove(&id).map(|message| message.draft);
        if let Some(draft) = draft
            && let Some(key) = draft.dedupe_key
            && let key = owned(&key, draft.tenant.as_deref())
            && self.dedupes.get(&key).is_some_and(|dedupe| dedupe.id == id)
        {
            self.dedupes.remove(&key);
        }
    }

    fn held(&self, receipts: &[Receipt], now: Millis) -> Vec<i64> {
        let mut held: Vec<_> = receipts
            .iter()
            .filter(|receipt| {
                let message = self.messages.get(&receipt.id);
                message.is_some_and(|message| message.is_held_by(**receipt, now))
            })
            .map(|receipt| receipt.id)
            .collect();
        held.sort_unstable();
        held.dedup();
        held
    }

    pub(super) fn change<T>(
        &mut self,
        given: impl IntoIterator<Item = (Receipt, T)>,
        now: Millis,
        mut change: impl FnMut(&mut Message, T),
    ) -> Vec<i64> {
        let mut changed = HashSet::new();
        for (receipt, with) in given {
            if let Some(message) = self.messages.get_mut(&receipt.id)
                && message.is_held_by(receipt, now)
                && changed.insert(receipt.id)
            {
                change(message, with);
            }
        }
        let mut changed: Vec<_> = changed.into_iter().collect();
        changed.sort_unstable();
        changed
    }
}

/// What a key is known by: one tenant's are not another's.
pub(super) fn owned(key: &str, tenant: Option<&str>) -> (String, String) {
    (key.to_owned(), tenant.unwrap_or_default().to_owned())
}

/// What a message is ordered by, if it is.
fn ordered(message: &Message) -> Option<(&str, Option<&str>)> {
    let key = message.draft.ordering_key.as_deref()?;
    Some((key, message.draft.tenant.as_deref()))
}
