//! What a client is told at a tick, and how it goes on with a long table.

use std::time::Duration;

use anabranch_protocol::MAX_LINE;
use anabranch_protocol::message::{Log, Lost, Tick, Topic};

use super::super::outboxes::Outboxes;
use super::super::sums;
use super::super::topics;
use super::{ENTRIES, Peer, World};

impl Peer {
    /// Time has passed.
    pub(in crate::monitor) fn tick_if_due(&mut self, world: &mut World<'_>, now: Duration) {
        let Some(due) = self.next_tick.filter(|due| *due <= now) else {
            return;
        };
        // A server that was held up does not make up for it.
        self.next_tick = Some((due + self.tick()).max(now + self.tick() / 2));
        if !self.out.is_empty() {
            self.skipped += 1;
            return;
        }
        let bulk = self.next_bulk <= now;
        if bulk {
            self.next_bulk = now + self.bulk();
        }
        self.tell(world, bulk, now);
    }

    pub(super) fn tell(&mut self, world: &mut World<'_>, bulk: bool, now: Duration) {
        self.told_at = now;
        let topics = std::mem::take(&mut self.sub.topics);
        let wants = |topic| topics.contains(&topic);
        for pipe in self.seen.pipes(world.pipelines) {
            self.say(pipe, now);
        }
        if bulk && wants(Topic::Stages) {
            let stages = self.seen.stages(world.pipelines);
            if !stages.r.is_empty() {
                self.say(stages, now);
            }
        }
        if bulk && wants(Topic::Windows) {
            self.say(topics::windows(world.pipelines), now);
        }
        if bulk && wants(Topic::Errors) {
            self.say(topics::errors(world.pipelines), now);
        }
        if bulk && wants(Topic::Comp) {
            self.say(topics::undo(world.pipelines), now);
        }
        if bulk && wants(Topic::Outbox) {
            self.tell_outboxes(world.outboxes, now);
        }
        let detail = self
            .sub
            .detail
            .and_then(|key| topics::detail(world.pipelines, key));
        if let Some(detail) = detail.filter(|_| bulk) {
            self.say(detail, now);
        }
        if wants(Topic::Log) {
            self.tell_log(world, now);
        }
        self.sub.topics = topics;
        if bulk {
            // It is read from a file.
            self.rss = (world.rss)();
        }
        self.tell_tick(world, now);
        if bulk && self.sub.topics.contains(&Topic::Branches) {
            self.seen.begin(false);
        }
        self.go_on(world, now);
    }

    /// The outboxes were told of.
    pub(in crate::monitor) fn hear_of_outboxes(&mut self, world: &World<'_>, now: Duration) {
        if self.looks_at_outboxes() && self.out.is_empty() {
            self.tell_outboxes(world.outboxes, now);
        }
    }

    fn tell_outboxes(&mut self, outboxes: &Outboxes, now: Duration) {
        let version = outboxes.version();
        if version == self.outbox {
            return;
        }
        let outbox = outboxes.outbox();
        self.letters
            .retain(|store, _| outbox.r.iter().any(|it| *it.store == **store));
        self.say(outbox, now);
        let new = outboxes.letters(|store| self.letters.get(store).copied().unwrap_or(0));
        for (letters, version) in new {
            if self.out.len() >= MAX_LINE {
                // The rest at the next bulk.
                return;
            }
            let store = letters.store.as_deref().unwrap_or_default().to_owned();
            self.letters.insert(store, version);
            self.say(letters, now);
        }
        self.outbox = version;
    }

    fn tell_log(&mut self, world: &World<'_>, now: Duration) {
        let (entries, lost) = world.journal.since(self.entry, ENTRIES);
        if let Some(last) = entries.last() {
            self.entry = last.n + 1;
            self.lost += lost;
            let level = self.level;
            let r: Vec<_> = entries.into_iter().filter(|it| it.level >= level).collect();
            if !r.is_empty() || lost > 0 {
                self.say(Log { r, lost }, now);
            }
        }
    }

    fn tell_tick(&mut self, world: &World<'_>, now: Duration) {
        let totals = self.sub.topics.contains(&Topic::Totals);
        let tot = if totals {
            world.pipelines.iter().map(|it| sums::totals(it)).collect()
        } else {
            Vec::new()
        };
        let visible = &self.sub.visible;
        let (names, rows) = self.seen.visible(world.pipelines, visible, &self.columns);
        if !names.r.is_empty() {
            self.say(names, now);
        }
        self.seq += 1;
        let tick = Tick {
            seq: self.seq,
            ts: world.unix_ms,
            sub: self.sub.id,
            tot,
            r: rows,
            gone: Vec::new(),
            skipped: self.skipped,
            lost: Lost { log: self.lost },
            rss: self.rss,
        };
        self.say(tick, now);
    }

    /// Says more of the table under way, once all before was read.
    pub(in crate::monitor) fn go_on(&mut self, world: &World<'_>, now: Duration) {
        // The first piece may follow what was just said: together they are below the limit.
        while self.seen.is_passing() && self.out.len() < MAX_LINE / 4 {
            let Some(piece) = self.seen.next(world.pipelines, &self.columns) else {
                return;
            };
            if !piece.names.r.is_empty() {
                self.say(piece.names, now);
            }
            if self.out.is_empty() {
                self.since = now;
            }
            self.out.extend_from_slice(&piece.rows);
        }
    }
}
