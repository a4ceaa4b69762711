//! anabranch: multi-tenant event pipelines for Python. This crate holds the drivers around the
//! core, `anabranch_core`: native sources, the SQL of the outbox, the wake-up of the driving thread, the monitor, and, with
//! the feature `python`, the extension module.

#[cfg(feature = "python")]
mod clock;
#[cfg(feature = "python")]
mod folders;
pub mod inbox;
pub mod monitor;
pub mod outbox;
#[cfg(feature = "python")]
mod python;
pub mod source;
mod wake;
