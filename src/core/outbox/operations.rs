//! What operators do with messages: let topics rest, bring dead letters back, remove what has ended.

use std::collections::BTreeMap;

use super::{Ended, Filter, Memory, Message, Millis};

/// Since when the first messages wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// When the one that was due first, and could be handled, was due.
    pub ready: Option<Millis>,
    /// When the one that is held longest was claimed.
    pub held: Option<Millis>,
}

impl Memory {
    /// Nobody claims messages of these topics any more: a topic, or the beginning of topics and `*`;
    /// those of a tenant, or of all.
    pub fn pause(&mut self, pattern: &str, tenant: Option<&str>, now: Millis) {
        let what = (pattern.to_owned(), tenant.map(str::to_owned));
        self.pauses.entry(what).or_insert(now);
    }

    /// They may be claimed again: true if they were paused.
    pub fn resume(&mut self, pattern: &str, tenant: Option<&str>) -> bool {
        let what = (pattern.to_owned(), tenant.map(str::to_owned));
        self.pauses.remove(&what).is_some()
    }

    /// What is paused for a tenant, or for all, and since when.
    pub fn pauses(&self, tenant: Option<&str>) -> BTreeMap<String, Millis> {
        let mut paused = BTreeMap::new();
        for ((pattern, whose), since) in &self.pauses {
            if whose.is_none() || whose.as_deref() == tenant {
                let first = paused.entry(pattern.clone()).or_insert(*since);
                *first = (*first).min(*since);
            }
        }
        paused
    }

    pub(super) fn is_paused(&self, message: &Message) -> bool {
        let (topic, tenant) = (&message.draft.topic, &message.draft.tenant);
        self.pauses.keys().any(|(pattern, whose)| {
            (whose.is_none() || whose == tenant)
                && match pattern.strip_suffix('*') {
                    Some(beginning) => topic.starts_with(beginning),
                    None => topic == pattern,
                }
        })
    }

    /// Since when the first messages wait, and the longest lease lasts.
    pub fn ages(&self, tenant: Option<&str>, now: Millis) -> Ages {
        let open = self.messages.values().filter(|it| it.is_wanted(now));
        let open = open.filter(|it| it.is_of(tenant));
        let (held, free): (Vec<_>, Vec<_>) = open.partition(|it| it.is_leased(now));
        let ready = free
            .iter()
            .filter(|it| it.due_at <= now && !self.is_paused(it));
        Ages {
            ready: ready.map(|it| it.due_at).min(),
            held: held.iter().filter_map(|it| it.claimed_at).min(),
        }
    }

    /// How many messages something may be done to: those that ended so, or, of the others, those
    /// that nobody has begun with.
    pub fn chosen(&self, ended: Option<Ended>, filter: &Filter<'_>, now: Millis) -> usize {
        self.choose(ended, filter, now).count()
    }

    /// Up to `limit` dead messages are ready again, as if they had never been tried; what went wrong
    /// is kept.
    pub fn requeue(&mut self, filter: &Filter<'_>, limit: usize, now: Millis) -> usize {
        self.alter(Some(Ended::Dead), filter, limit, now, |message| {
            message.ended = None;
            message.expires_at = None;
            message.attempt = 0;
            message.progress = None;
            // It was counted there when it died.
            message.join = None;
            message.due_at = now;
        })
        .len()
    }

    /// Up to `limit` messages that nobody has begun with are dead.
    pub fn cancel(&mut self, filter: &Filter<'_>, error: &str, limit: usize, now: Millis) -> usize {
        let dead = self.alter(None, filter, limit, now, |message| {
            message.end(Ended::Dead, now);
            message.record(now, error.to_owned());
        });
        self.tally(self.dead_members(&dead), now);
        dead.len()
    }

    /// Remove up to `limit` messages that ended so.
    pub fn purge(&mut self, ended: Ended, filter: &Filter<'_>, limit: usize, now: Millis) -> usize {
        let gone: Vec<_> = self.choose(Some(ended), filter, now).take(limit).collect();
        for id in &gone {
            self.messages.remove(id);
        }
        gone.len()
    }

    fn choose(
        &self,
        ended: Option<Ended>,
        filter: &Filter<'_>,
        now: Millis,
    ) -> impl Iterator<Item = i64> {
        let is_such = move |message: &&Message| match ended {
            Some(how) => message.ended.is_some_and(|(it, _)| it == how),
            None => message.ended.is_none() && !message.is_leased(now),
        };
        self.messages
            .values()
            .filter(is_such)
            .filter(move |message| filter.takes(message, now))
            .map(|message| message.id)
    }

    fn alter(
        &mut self,
        ended: Option<Ended>,
        filter: &Filter<'_>,
        limit: usize,
        now: Millis,
        alter: impl Fn(&mut Message),
    ) -> Vec<i64> {
        let chosen: Vec<_> = self.choose(ended, filter, now).take(limit).collect();
        for id in &chosen {
            if let Some(message) = self.messages.get_mut(id) {
                alter(message);
            }
        }
        chosen
    }
}
