//! The rows of a screen, and the one the keys act on.
//!
//! What is selected is kept by its id: rows may come, go and change their order, and the terminal
//! its size, and the cursor stays on what it was on. If that is gone, it is on what took its place.

use anabranch_protocol::Text;

use crate::store::{BranchId, ProcessId};

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RowId {
    /// A pipeline, or a process of which none is known.
    Pipe(ProcessId, Option<u32>),
    /// A branch.
    Branch(BranchId),
    /// The open window of a leg.
    Window(BranchId, u32),
    /// The undo actions of a branch; of the trunk, those of the pipeline.
    Undo(BranchId),
    /// A scope of undo actions, by its number in its pipeline.
    Scope(ProcessId, u32, u64),
    /// An undo action of a scope.
    Action(ProcessId, u32, u64, u64),
    /// An outbox.
    Store(ProcessId, Text),
    /// A dead letter of an outbox.
    Dead(ProcessId, Text, Text),
    /// Errors of one code of a pipeline.
    Error(ProcessId, u32, Text),
    /// An entry of a log.
    Log(ProcessId, u64),
}

/// Rows, a cursor, and what of them is on the screen.
#[derive(Debug, Default, Clone)]
pub struct List {
    rows: Vec<RowId>,
    selected: Option<RowId>,
    at: usize,
    /// The first row on the screen.
    pub offset: usize,
}

impl List {
    /// All rows, in their order.
    pub fn rows(&self) -> &[RowId] {
        &self.rows
    }

    /// The row the keys act on.
    pub const fn selected(&self) -> Option<&RowId> {
        self.selected.as_ref()
    }

    /// Where it is.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The rows on a screen of so many lines.
    pub fn shown(&self, height: u16) -> &[RowId] {
        let from = self.offset.min(self.rows.len());
        let to = from.saturating_add(height.into()).min(self.rows.len());
        &self.rows[from..to]
    }

    /// Takes other rows; the cursor stays on what it was on.
    pub fn replace(&mut self, rows: Vec<RowId>) {
        self.rows = rows;
        let found = match &self.selected {
            // Mostly it is where it was.
            Some(id) if self.rows.get(self.at) == Some(id) => Some(self.at),
            Some(id) => self.rows.iter().position(|it| it == id),
            None => None,
        };
        match found {
            Some(at) => self.at = at,
            None => self.go(self.at),
        }
    }

    /// Puts the cursor on a row; on the last, if there are not so many.
    pub fn go(&mut self, at: usize) {
        self.at = at.min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(self.at).cloned();
    }

    /// Puts the cursor on that row, if it is there.
    pub fn select(&mut self, id: &RowId) -> bool {
        let found = self.rows.iter().position(|it| it == id);
        if let Some(at) = found {
            self.go(at);
        }
        found.is_some()
    }

    /// Moves the cursor down, or up if it is negative.
    pub fn step(&mut self, by: isize) {
        self.go(self.at.saturating_add_signed(by));
    }

    /// Moves what is on the screen so far that the cursor is on it, of so many lines.
    pub fn scroll(&mut self, height: u16) {
        let height = usize::from(height).max(1);
        let most = self.rows.len().saturating_sub(height);
        let low = (self.at + 1).saturating_sub(height);
        self.offset = self.offset.clamp(low, self.at.max(low)).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(ids: &[u32]) -> Vec<RowId> {
        ids.iter().map(|id| RowId::Pipe(*id, None)).collect()
    }

    #[test]
    fn the_cursor_follows_its_row_and_takes_the_place_of_one_that_is_gone() {
        let mut list = List::default();
        list.replace(rows(&[1, 2, 3]));
        list.go(1);
        list.replace(rows(&[3, 1, 9, 2]));
        assert_eq!((list.at(), list.selected()), (3, Some(&rows(&[2])[0])));
        list.replace(rows(&[3, 1]));
        assert_eq!((list.at(), list.selected()), (1, Some(&rows(&[1])[0])));
        list.replace(vec![]);
        assert_eq!((list.at(), list.selected()), (0, None));
    }

    proptest! {
        #[test]
        fn the_cursor_is_always_on_the_screen(
            steps in proptest::collection::vec((-20isize..20, 0u16..12, 0u32..30), 1..40),
        ) {
            let mut list = List::default();
            for (step, height, length) in steps {
                list.replace(rows(&(0..length).collect::<Vec<_>>()));
                list.step(step);
                list.scroll(height);
                let shown = list.shown(height.max(1));
                prop_assert_eq!(list.selected().is_none(), length == 0);
                prop_assert!(list.selected().is_none_or(|it| shown.contains(it)));
                prop_assert!(shown.len() == usize::from(height.max(1)).min(list.rows().len()));
            }
        }
    }
}
