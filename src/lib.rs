//! anabranch: multi-tenant event pipelines for Python. This crate holds the drivers around the
//! core, `anabranch_core`: native sources, the wake-up of the driving thread, and, with the
//! feature `python`, the extension module.

#[cfg(feature = "python")]
mod clock;
pub mod inbox;
#[cfg(feature = "python")]
mod python;
pub mod source;
#[cfg(feature = "python")]
mod wake;
