//! The core of anabranch: pure state machines, joined by a sans-IO engine.
//!
//! Nothing here calls Python, spawns a task, reads a clock or draws a random number: `now` is an
//! argument, seeds are arguments, and what the outside must do comes back as a value.
//!
//! # Layout
//! - [`clock`]: a point in time, as the engine sees it.
//! - [`error`]: what is wrong with a plan.
//! - [`retry`]: whether a failed attempt is tried again, and when.
//! - [`plan`]: the builder's plan: validated, named, drawn.
//! - [`framing`]: bytes into lines.
//! - [`channel`]: a bounded queue with a close.
//! - [`merge`]: which of many sources is read next.
//! - [`throttle`]: how fast items go on.
//! - [`window`]: cutting a stream by size, age, silence and bytes.
//! - [`compensation`]: scopes of undo actions and their playback.
//! - [`report`]: the counts of a run, which always add up.
//! - [`branch`]: one tenant's course through the stages behind the fan-out.
//! - [`outbox`]: messages, who holds them, and what may be claimed next.
//! - [`engine`]: items in, work out, results back.

pub mod branch;
pub mod channel;
pub mod clock;
pub mod compensation;
pub mod engine;
pub mod error;
pub mod framing;
pub mod merge;
pub mod outbox;
pub mod plan;
pub mod report;
pub mod retry;
pub mod throttle;
pub mod window;
