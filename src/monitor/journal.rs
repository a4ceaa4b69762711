//! The log of the process: what was logged, what operators did, and what has happened; bounded.

use std::collections::VecDeque;
use std::sync::Mutex;

use anabranch_protocol::message::LogEntry;

use super::locked;

/// Entries kept.
const KEPT: usize = 4096;

/// A ring of entries, each with its number.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    /// The number of the next one.
    next: u64,
}

impl Journal {
    /// Adds an entry, which gets its number here.
    pub(super) fn add(&self, entry: LogEntry) {
        let mut ring = locked(&self.0);
        let n = ring.next;
        ring.next += 1;
        if ring.entries.len() == KEPT {
            ring.entries.pop_front();
        }
        ring.entries.push_back(LogEntry { n, ..entry });
    }

    /// So many entries were lost before they came here: whoever reads on is told.
    pub(super) fn lose(&self, entries: u64) {
        let mut ring = locked(&self.0);
        ring.next += entries;
    }

    /// The number of the next entry.
    pub(super) fn next(&self) -> u64 {
        locked(&self.0).next
    }

    /// The entries from a number on, at most so many, and how many of them are lost.
    pub(super) fn since(&self, from: u64, most: usize) -> (Vec<LogEntry>, u64) {
        let ring = locked(&self.0);
        let first = ring.entries.partition_point(|entry| entry.n < from);
        let entries: Vec<_> = ring.entries.range(first..).take(most).cloned().collect();
        // What is lost has a number, too.
        let end = entries.last().map_or(from, |last| last.n + 1);
        let lost = (end - from) - entries.len() as u64;
        (entries, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboard_1_a_reader_is_told_how_many_entries_it_has_missed() {
        let journal = Journal::default();
        for at in 0..KEPT as u64 + 10 {
            journal.add(LogEntry {
                at,
                ..LogEntry::default()
            });
        }
        let (entries, lost) = journal.since(3, 2);
        assert_eq!(
            (entries.len(), entries[0].n, entries[0].at, lost),
            (2, 10, 10, 7)
        );
        let (entries, lost) = journal.since(KEPT as u64 + 9, 100);
        assert_eq!((entries.len(), lost), (1, 0));
        assert_eq!(journal.since(journal.next(), 9), (Vec::new(), 0));
        let from = journal.next();
        journal.lose(3);
        assert_eq!(
            journal.since(from, 9),
            (Vec::new(), 0),
            "it is told with the next"
        );
        journal.add(LogEntry::default());
        let (entries, lost) = journal.since(from, 9);
        assert_eq!((entries.len(), lost), (1, 3));
    }
}
