//! The table of branches: positional rows, whose columns `welcome` names.
//!
//! Ten thousand branches as objects are 2.2 MB a second, as arrays half of that, and a client that
//! names the columns it wants gets just those. A column that one side does not know is skipped.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Text;

words! {
    /// What a branch is doing.
    State {
        /// It takes items.
        Run = "run",
        /// It takes items, and there has been nothing to do for a while.
        Idle = "idle",
        /// Its queue is full: it holds up what feeds it.
        Full = "full",
        /// Its units wait for a `resume`.
        Paused = "pause",
        /// It finishes what is inside.
        Draining = "drain",
        /// It waits, and opens again.
        Restarting = "restart",
        /// It takes nothing until it is restarted.
        Failed = "fail",
        /// It was idle, and opens again for the next item.
        Evicted = "evict",
        /// It was removed.
        Removed = "remove",
    }
}

/// One value of a row.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum Cell {
    /// Nothing to tell.
    #[default]
    Null,
    /// A count, an id, or a time.
    Number(u64),
    /// A word, or a name.
    Text(Text),
}

impl Cell {
    /// The number, if it is one.
    pub const fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyCell)
    }
}

struct AnyCell;

impl<'de> Visitor<'de> for AnyCell {
    type Value = Cell;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a cell")
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Number(u64::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Number(u64::try_from(value).unwrap_or(0)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates: whoever sends fractions is newer, and whole ones are all we show"
    )]
    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Number(value as u64))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell::Text(Text::new(value)))
    }

    // What a newer version may put into a column that is not known here.
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        while seq.next_element::<de::IgnoredAny>()?.is_some() {}
        Ok(Cell::Null)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map
            .next_entry::<de::IgnoredAny, de::IgnoredAny>()?
            .is_some()
        {}
        Ok(Cell::Null)
    }
}

/// A branch within a process: `[pipeline, branch]` on the wire. Branch 0 of a pipeline is its
/// trunk, the course before the fan-out.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct BranchKey(pub u32, pub u32);

macro_rules! columns {
    ($( $(#[$doc:meta])* $field:ident: $kind:ident = $name:literal, )+) => {
        /// One branch, as its columns tell. A column that did not come keeps its default.
        #[derive(Debug, Default, Clone, PartialEq)]
        pub struct Branch {
            $( $(#[$doc])* pub $field: kind!($kind), )+
        }

        /// The columns that are known here, in the order of their own.
        pub const COLUMNS: &[&str] = &[$($name),+];

        impl Branch {
            /// The value of a column; `Null` for one that is not known here.
            pub fn cell(&self, column: &str) -> Cell {
                place(column).map_or(Cell::Null, |it| self.value(it))
            }

            fn value(&self, column: usize) -> Cell {
                let mut index = 0;
                $(
                    if column == index {
                        return cell!($kind, self.$field);
                    }
                    index += 1;
                )+
                let _ = index;
                Cell::Null
            }

            fn write(&self, column: usize, out: &mut Vec<u8>) {
                let mut index = 0;
                $(
                    if column == index {
                        return write!($kind, self.$field, out);
                    }
                    index += 1;
                )+
                let _ = index;
            }

            fn set(&mut self, column: usize, cell: &Cell) {
                let mut index = 0;
                $(
                    if column == index {
                        read!($kind, self.$field, cell);
                        return;
                    }
                    index += 1;
                )+
                let _ = index;
            }
        }
    };
}

macro_rules! kind {
    (count) => { u64 };
    (id) => { u32 };
    (maybe) => { Option<u64> };
    (state) => { State };
    (text) => { Option<Text> };
}

macro_rules! cell {
    (count, $value:expr) => {
        Cell::Number($value)
    };
    (id, $value:expr) => {
        Cell::Number(u64::from($value))
    };
    (maybe, $value:expr) => {
        $value.map_or(Cell::Null, Cell::Number)
    };
    (state, $value:expr) => {
        Cell::Text(Text::new($value.word()))
    };
    (text, $value:expr) => {
        $value.clone().map_or(Cell::Null, Cell::Text)
    };
}

macro_rules! write {
    (count, $value:expr, $out:expr) => {
        write_number($value, $out)
    };
    (id, $value:expr, $out:expr) => {
        write_number(u64::from($value), $out)
    };
    (maybe, $value:expr, $out:expr) => {
        match $value {
            Some(value) => write_number(value, $out),
            None => $out.extend_from_slice(b"null"),
        }
    };
    (state, $value:expr, $out:expr) => {
        write_json($value.word(), $out)
    };
    (text, $value:expr, $out:expr) => {
        write_json(&$value, $out)
    };
}

/// Most numbers of a row are zero, or small.
fn write_number(value: u64, out: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => write_json(&value, out),
    }
}

fn write_json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    // Writing to memory does not fail, and these are numbers and strings.
    let _ = serde_json::to_writer(out, value);
}

macro_rules! read {
    (count, $place:expr, $cell:expr) => {
        $place = $cell.number().unwrap_or(0)
    };
    (id, $place:expr, $cell:expr) => {
        $place = $cell
            .number()
            .and_then(|it| u32::try_from(it).ok())
            .unwrap_or(0)
    };
    (maybe, $place:expr, $cell:expr) => {
        $place = $cell.number()
    };
    (state, $place:expr, $cell:expr) => {
        $place = State::from_word($cell.text().unwrap_or(""))
    };
    (text, $place:expr, $cell:expr) => {
        $place = $cell.text().map(Text::new)
    };
}

columns! {
    /// Its pipeline, by number.
    pipeline: id = "p",
    /// Its number within the pipeline; 0 is the trunk.
    id: id = "id",
    /// How often it has been opened again: what a command is checked against.
    generation: id = "gen",
    /// What it is doing.
    state: state = "st",
    /// Items that came.
    received: count = "in",
    /// Items handled to the end.
    committed: count = "out",
    /// Items failed for good.
    failed: count = "err",
    /// Items given up by policy, or filtered out.
    dropped: count = "drop",
    /// Items that wait in its queues.
    queued: count = "q",
    /// Items that may wait there.
    capacity: count = "qcap",
    /// Items in its open window, of its first leg that has one.
    window: maybe = "win",
    /// Items that fill that window.
    window_size: maybe = "wcap",
    /// How old the first of them is, in milliseconds.
    window_age_ms: maybe = "wage",
    /// How old it may become, in milliseconds.
    window_max_age_ms: maybe = "wint",
    /// How long it has held up what feeds it, in all, in milliseconds.
    blocked_ms: count = "blk",
    /// Units with a handler, in back-off, or being undone.
    in_flight: count = "run",
    /// Attempts after the first, in units.
    retried: count = "retry",
    /// Undo actions that are pending.
    compensations: count = "comp",
    /// Undo actions that have run.
    compensated: count = "undone",
    /// Items handed to a dead-letter target.
    dead_lettered: count = "dl",
    /// Windows that have left.
    windows: count = "wins",
    /// Code of the last failure.
    last_error: text = "lerr",
    /// When that was, in milliseconds since 1970.
    last_error_at: maybe = "lat",
    /// Since when nothing has changed, in milliseconds since 1970.
    since: count = "since",
    /// Since when it has been in its state, in milliseconds since 1970.
    entered: count = "ent",
    /// Half of its units took no longer, in microseconds. Only while somebody looks at the branch.
    p50: maybe = "p50",
    /// 99 of 100 took no longer, in microseconds. Only while somebody looks at the branch.
    p99: maybe = "p99",
    /// Undo actions that could not be done, and wait for an operator.
    stuck: count = "stuck",
}

fn place(column: &str) -> Option<usize> {
    COLUMNS.iter().position(|it| **it == *column)
}

impl Branch {
    /// Where it belongs.
    pub const fn key(&self) -> BranchKey {
        BranchKey(self.pipeline, self.id)
    }
}

/// Which cell of a row is which column.
///
/// ```
/// use anabranch_protocol::row::{Cell, Columns};
///
/// let columns = Columns::new(["id", "mood", "q"]);
/// let branch = columns.read(&[Cell::Number(7), Cell::Null, Cell::Number(3)]);
/// assert_eq!((branch.id, branch.queued), (7, 3));
/// ```
#[derive(Debug, Clone)]
pub struct Columns {
    names: Vec<Text>,
    /// The index into [`COLUMNS`] of each, if it is known.
    known: Vec<Option<usize>>,
}

impl Default for Columns {
    fn default() -> Self {
        Self::new(COLUMNS)
    }
}

impl Columns {
    /// Columns in the order of a row's cells.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<_> = names
            .into_iter()
            .map(|it| Text::name(it.as_ref()))
            .collect();
        let known = names.iter().map(|name| place(name));
        Self {
            known: known.collect(),
            names,
        }
    }

    /// Their names.
    pub fn names(&self) -> &[Text] {
        &self.names
    }

    /// What a row tells; too few cells, or too many, are no error.
    pub fn read(&self, cells: &[Cell]) -> Branch {
        let mut branch = Branch::default();
        for (column, cell) in self.known.iter().zip(cells) {
            if let Some(column) = column {
                branch.set(*column, cell);
            }
        }
        branch
    }

    /// The row of a branch.
    pub fn write(&self, branch: &Branch) -> Vec<Cell> {
        let known = self.known.iter();
        let cells = known.map(|column| column.map_or(Cell::Null, |it| branch.value(it)));
        cells.collect()
    }
}

/// The line of a [`Rows`](crate::message::Rows) message under construction: the same as that message
/// encoded, without a cell for each value on the way.
///
/// ```
/// use anabranch_protocol::Server;
/// use anabranch_protocol::row::{Branch, Columns, RowsLine};
///
/// let columns = Columns::default();
/// let mut line = RowsLine::new(3, false);
/// line.push(&columns, &Branch { id: 7, ..Branch::default() });
/// let Ok(Server::Rows(rows)) = Server::decode(&line.finish(true)) else { panic!() };
/// assert_eq!((rows.seq, rows.more, columns.read(&rows.r[0]).id), (3, true, 7));
/// ```
#[derive(Debug)]
pub struct RowsLine {
    line: Vec<u8>,
    /// Where it says whether more rows follow, which is known at the end.
    more: usize,
    /// Where the rows begin.
    rows: usize,
    count: usize,
}

impl RowsLine {
    /// A line without rows.
    pub fn new(seq: u64, full: bool) -> Self {
        let mut line = format!(r#"{{"t":"rows","seq":{seq},"full":{full},"more":"#).into_bytes();
        let more = line.len();
        line.extend_from_slice(br#"false,"r":["#);
        Self {
            more,
            rows: line.len(),
            line,
            count: 0,
        }
    }

    /// Adds a row.
    pub fn push(&mut self, columns: &Columns, branch: &Branch) {
        if self.count > 0 {
            self.line.push(b',');
        }
        self.count += 1;
        self.line.reserve(16 * columns.known.len());
        self.line.push(b'[');
        for (place, column) in columns.known.iter().enumerate() {
            if place > 0 {
                self.line.push(b',');
            }
            match column {
                Some(column) => branch.write(*column, &mut self.line),
                None => self.line.extend_from_slice(b"null"),
            }
        }
        self.line.push(b']');
    }

    /// Rows so far.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of rows so far.
    pub const fn size(&self) -> usize {
        self.line.len() - self.rows
    }

    /// The line, with its end.
    pub fn finish(mut self, more: bool) -> Vec<u8> {
        if more {
            // As long as what stands there: JSON allows a space.
            self.line[self.more..self.more + 5].copy_from_slice(b"true ");
        }
        self.line.extend_from_slice(b"]}\n");
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_every_column_comes_back_as_it_was_written() {
        let branch = Branch {
            pipeline: 1,
            id: 2,
            generation: 3,
            state: State::Paused,
            received: 4,
            committed: 5,
            failed: 6,
            dropped: 7,
            queued: 8,
            capacity: 9,
            window: Some(10),
            window_size: Some(11),
            window_age_ms: Some(12),
            window_max_age_ms: Some(13),
            blocked_ms: 14,
            in_flight: 15,
            retried: 16,
            compensations: 17,
            compensated: 18,
            dead_lettered: 19,
            windows: 20,
            last_error: Some(Text::new("store.timeout")),
            last_error_at: Some(21),
            since: 22,
            entered: 23,
            p50: Some(24),
            p99: Some(25),
            stuck: 26,
        };
        let columns = Columns::default();
        let row = columns.write(&branch);
        assert!(
            !row.contains(&Cell::Null),
            "a column is not written: {row:?}"
        );
        let wire = serde_json::to_string(&row).unwrap();
        let row: Vec<Cell> = serde_json::from_str(&wire).unwrap();
        assert_eq!(columns.read(&row), branch);
        let mut line = RowsLine::new(1, true);
        line.push(&Columns::new(["mood"]), &branch);
        line.push(&columns, &branch);
        assert_eq!(line.count(), 2);
        assert_eq!(line.size(), format!("[null],{wire}").len());
        let begin = r#"{"t":"rows","seq":1,"full":true,"more":"#;
        let end = format!(r#","r":[[null],{wire}]}}"#) + "\n";
        let text = String::from_utf8(line.finish(true)).unwrap();
        assert_eq!(text, format!("{begin}true {end}"));
    }

    #[test]
    fn unknown_columns_and_odd_cells_are_skipped() {
        let columns = Columns::new(["new", "id", "st", "win"]);
        let wire = r#"[{"a":[1]},-4,"dozing",[1,[2]],"more"]"#;
        let row: Vec<Cell> = serde_json::from_str(wire).unwrap();
        let branch = columns.read(&row);
        assert_eq!(branch, Branch::default());
        assert_eq!(columns.read(&[]), Branch::default());
    }
}
