//! Joins, in the store that is nothing but memory: what follows when enough messages have ended.

use std::collections::{BTreeMap, HashSet};

use super::{Draft, Ended, JOIN_KEPT, Memory, Millis, Status};

/// A join that is not written yet; whoever offers it has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinDraft {
    /// How many members it will have.
    pub expected: u32,
    /// How many of them complete it.
    pub quorum: u32,
    /// Whether members that are dead complete it like those that are done.
    pub tolerates: bool,
    /// After how many milliseconds it is over.
    pub deadline: Option<Millis>,
    /// What is enqueued when it is complete.
    pub then: Draft,
    /// What is enqueued when it cannot be complete any more.
    pub otherwise: Option<Draft>,
    /// Whose it is, where one store holds the joins of many.
    pub tenant: Option<String>,
}

/// How a join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Enough of its members have ended well.
    Done,
    /// Too many of them have not.
    Failed,
    /// Its time was over before.
    Expired,
    /// Somebody has cancelled it.
    Cancelled,
}

impl Outcome {
    /// The number it has in a table; 0 is a join that is open.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 1,
            Self::Failed => 2,
            Self::Expired => 3,
            Self::Cancelled => 4,
        }
    }
}

/// A join in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// What was asked for.
    pub draft: JoinDraft,
    /// Its members, handled or not.
    pub members: HashSet<i64>,
    /// How many of them are done.
    pub done: u32,
    /// How many are dead, or were taken back.
    pub failed: u32,
    /// When it is over.
    pub deadline: Option<Millis>,
    /// How and when it ended, if it did.
    pub ended: Option<(Outcome, Millis)>,
}

impl Join {
    fn is_of(&self, tenant: Option<&str>) -> bool {
        tenant.is_none() || self.draft.tenant.as_deref() == tenant
    }

    fn outcome(&self, now: Millis) -> Option<Outcome> {
        let draft = &self.draft;
        let good = self.done + if draft.tolerates { self.failed } else { 0 };
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            Some(Outcome::Expired)
        } else if good >= draft.quorum {
            Some(Outcome::Done)
        } else if !draft.tolerates && self.failed > draft.expected - draft.quorum {
            Some(Outcome::Failed)
        } else {
            None
        }
    }
}

/// What became of messages that may be members: of each join, how many are done, and how many not.
pub(super) type Members = BTreeMap<i64, (u32, u32)>;

impl Memory {
    /// A number for a join.
    pub fn reserve_join(&mut self) -> i64 {
        self.join_ids += 1;
        self.join_ids
    }

    /// Write a join.
    pub fn insert_join(&mut self, id: i64, draft: JoinDraft, now: Millis) {
        let join = Join {
            members: HashSet::new(),
            done: 0,
            failed: 0,
            deadline: draft.deadline.map(|after| now + after),
            ended: None,
            draft,
        };
        self.joins.insert(id, join);
    }

    /// The join with that id, if it is a tenant's, or whosever it is.
    pub fn join(&self, id: i64, tenant: Option<&str>) -> Option<&Join> {
        self.joins.get(&id).filter(|join| join.is_of(tenant))
    }

    /// The join that a message is a member of, until it is counted there.
    pub fn join_of(&self, message: i64) -> Option<i64> {
        self.messages.get(&message)?.join
    }

    /// Make messages members of a join. One that has ended, or was taken back, counts at once.
    pub fn attach(&mut self, id: i64, messages: &[i64], retracted: &[i64], now: Millis) {
        let Some(join) = self.joins.get_mut(&id) else {
            return;
        };
        let mut counted = (0, 0);
        for message in messages {
            if !join.members.insert(*message) {
                continue;
            }
            match self.messages.get_mut(message) {
                Some(open) if open.ended.is_none() => open.join = Some(id),
                Some(dead) if dead.status(now) == Status::Dead => counted.1 += 1,
                None if retracted.contains(message) => counted.1 += 1,
                _ => counted.0 += 1,
            }
        }
        self.tally(Members::from([(id, counted)]), now);
    }

    /// Nothing follows any more: true if the join was open.
    pub fn cancel_join(&mut self, id: i64, tenant: Option<&str>, now: Millis) -> bool {
        if self.join(id, tenant).is_none() {
            return false;
        }
        self.tally(Members::from([(id, (0, 0))]), now);
        let open = self.joins.get_mut(&id).filter(|join| join.ended.is_none());
        open.map(|join| join.ended = Some((Outcome::Cancelled, now)))
            .is_some()
    }

    /// Up to `limit` joins with ids above `after`.
    pub fn joins(&self, after: i64, tenant: Option<&str>, limit: usize) -> Vec<(i64, Join)> {
        let joins = self.joins.range(after.saturating_add(1)..);
        let joins = joins.filter(|(_, join)| join.is_of(tenant)).take(limit);
        joins.map(|(id, join)| (*id, join.clone())).collect()
    }

    /// End the joins whose time is over; return how many those were.
    pub fn expire_joins(&mut self, now: Millis) -> usize {
        let open = self.joins.iter().filter(|(_, join)| join.ended.is_none());
        let over = open.filter(|(_, join)| join.deadline.is_some_and(|deadline| deadline <= now));
        let over: Members = over.map(|(id, _)| (*id, (0, 0))).collect();
        let count = over.len();
        self.tally(over, now);
        count
    }

    /// When the first of the joins is over.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let open = self.joins.values().filter(|join| join.ended.is_none());
        open.filter_map(|join| join.deadline).min()
    }

    pub(super) fn forget_joins(&mut self, now: Millis) {
        self.joins
            .retain(|_, join| join.ended.is_none_or(|(_, at)| at + JOIN_KEPT > now));
    }

    /// Count members that have ended, each once, and let follow what follows.
    pub(super) fn tally(&mut self, members: Members, now: Millis) {
        for (id, (done, failed)) in members {
            let Some(join) = self.joins.get_mut(&id) else {
                continue;
            };
            join.done += done;
            join.failed += failed;
            if join.ended.is_some() {
                continue;
            }
            let Some(outcome) = join.outcome(now) else {
                continue;
            };
            join.ended = Some((outcome, now));
            let follows = match outcome {
                Outcome::Done => Some(join.draft.then.clone()),
                _ => join.draft.otherwise.clone(),
            };
            if let Some(draft) = follows {
                let id = self.reserve();
                self.insert(id, draft, None, now);
            }
        }
    }

    /// Which of these messages are members, and dead.
    pub(super) fn dead_members(&self, messages: &[i64]) -> Members {
        let mut members = Members::new();
        for id in messages {
            if let Some(message) = self.messages.get(id)
                && let (Some(join), Some((Ended::Dead, _))) = (message.join, message.ended)
            {
                members.entry(join).or_default().1 += 1;
            }
        }
        members
    }
}
