//! Native sources: those that run on tokio and deliver batches into an [`Inbox`](crate::inbox::Inbox).
//!
//! # Layout
//! - [`framing`]: bytes into lines; no I/O.
//! - [`tcp`]: a server that takes lines from many connections.

pub mod framing;
pub mod tcp;
