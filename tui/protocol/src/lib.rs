//! What a monitor and those who look at it say to each other, and how they find each other.
//!
//! The monitor sits in the process that runs the pipelines; the dashboard, `anabranch ls` and
//! `anabranch.attach()` are its clients. They talk in lines of JSON over a socket, one object per
//! line, so that a session can be read with `nc -U` and recorded as it is. This crate holds what
//! both sides must agree on, and nothing that does I/O beyond looking at a directory.
//!
//! # A session
//! ```text
//! client                          monitor
//! hello  ------------------------>
//!        <------------------------ welcome, or refuse
//! sub    ------------------------>
//!        <------------------------ pipe, names, rows(full) ..., then tick after tick
//! cmd    ------------------------>
//!        <------------------------ ack, prog ..., done
//!        <------------------------ bye
//! ```
//!
//! # Guarantees
//! - Numbers are absolute: whoever misses a tick loses resolution, never truth. Only the log may
//!   lose entries, and says how many.
//! - Unknown fields, message types, columns and words are ignored, so that both sides may be
//!   newer than the other within one protocol version.
//! - No line is longer than [`MAX_LINE`]; tables come in pieces.
//! - Text that comes from a process is [`Text`]: what could steer a terminal is taken out where it
//!   is read, once.
//!
//! # Layout
//! - [`message`]: what is said, by whom.
//! - [`row`]: the table of branches: positional rows, columns by name.
//! - [`codec`]: bytes into lines, and back.
//! - [`version`]: which protocol both sides can speak.
//! - [`text`]: text without what could steer a terminal.
//! - [`histogram`]: latencies in powers of two.
//! - [`place`]: the directory where processes are found, and the names in it.

#[macro_use]
mod words;

pub mod codec;
pub mod histogram;
pub mod message;
pub mod place;
pub mod row;
pub mod text;
pub mod version;

pub use codec::{Decoder, Malformed, TooLong, encode};
pub use message::{Client, Server};
pub use text::Text;
pub use version::{SUPPORTED, Versions, negotiate};

/// The longest line either side sends, its end included, in bytes.
pub const MAX_LINE: usize = 256 * 1024;

/// Rows in one message at most: a table comes in pieces.
pub const MAX_ROWS: usize = 512;

/// The shortest time between two ticks, in milliseconds; the monitor goes no faster.
pub const MIN_TICK_MS: u64 = 50;
