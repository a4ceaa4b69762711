//! Native sources: those that run on tokio and deliver batches into an [`Inbox`](crate::inbox::Inbox).
//!
//! # Layout
//! - [`tcp`]: a server that takes lines from many connections.
//! - [`client`]: a client that takes lines from one server, and comes back to it.
//! - [`tail`]: what is appended to a file.
//! - [`owner`]: what they have in common.

pub mod client;
pub mod owner;
mod read;
pub mod tail;
pub mod tcp;
