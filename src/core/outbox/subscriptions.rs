//! Who hears of which topics, in the store that is nothing but memory.

use super::{Division, Ended, Memory, Millis, Receipt, Subscription};

impl Memory {
    /// Some of their subscribers are done, and others are not.
    pub fn divide(&mut self, given: Vec<(Receipt, Division)>, now: Millis) -> Vec<i64> {
        let divided = self.change(given, now, |message, division| {
            match division.delay {
                Some(delay) => {
                    message.lease = None;
                    message.due_at = now + delay;
                }
                None => message.end(Ended::Dead, now),
            }
            message.waiting = division.waiting;
            message.progress = division.progress;
            if let Some(error) = division.error {
                message.record(now, error);
            }
            message.attempt -= u32::from(!division.counts);
        });
        self.tally(self.dead_members(&divided), now);
        divided
    }

    /// From now on that subscriber hears of the topics of these patterns, and of no others.
    pub fn subscribe(&mut self, subscriber: &str, patterns: &[String]) {
        let before = self.subscriptions.clone();
        self.subscriptions
            .retain(|it| it.subscriber != subscriber || patterns.contains(&it.pattern));
        for pattern in patterns {
            let known = |it: &Subscription| it.subscriber == subscriber && it.pattern == *pattern;
            if !self.subscriptions.iter().any(known) {
                self.subscriptions.push(Subscription {
                    subscriber: subscriber.to_owned(),
                    pattern: pattern.clone(),
                    since: self.ids,
                });
            }
        }
        self.version += i64::from(before != self.subscriptions);
    }

    /// That subscriber is no more: true if it was there. No message waits for it any longer.
    pub fn unsubscribe(&mut self, subscriber: &str, now: Millis) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|it| it.subscriber != subscriber);
        let gone = self.subscriptions.len() < before;
        self.version += i64::from(gone);
        for message in self.messages.values_mut() {
            if message.ended.is_none()
                && let Some(waiting) = &mut message.waiting
                && waiting.iter().any(|it| it == subscriber)
            {
                waiting.retain(|it| it != subscriber);
                message.due_at = message.due_at.min(now);
            }
        }
        gone
    }

    /// Who hears of what, and the version of that.
    pub fn subscriptions(&self) -> (i64, &[Subscription]) {
        (self.version, &self.subscriptions)
    }
}
