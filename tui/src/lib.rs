//! The command `anabranch`: it lists, shows and steers the pipelines that run on this machine.
//!
//! It knows the protocol and nothing of the engine: what runs is another process.
//!
//! - `cli.rs`: the command line.
//! - `find.rs`: the processes that can be looked at.
//! - `session.rs`: one connection to one of them.
//! - `list.rs`, `once.rs`, `ctl.rs`, `doctor.rs`: what is printed, or done, and over.
//! - `exit.rs`: how the command ends.
//!
//! And the dashboard:
//! - `top.rs`: its loop; `term.rs`: the terminal; `conn.rs`: one actor per process; `record.rs`:
//!   sessions written down, and told again.
//! - `app.rs`: what it knows, and what messages do to that; `store.rs`: what the processes tell.
//! - `view.rs`: the screens, each in a file of its name.
//! - `keymap.rs`, `theme.rs`, `symbols.rs`, `config.rs`, `filter.rs`, `format.rs`.

pub mod app;
mod cli;
pub mod config;
pub mod conn;
mod ctl;
mod doctor;
mod exit;
pub mod filter;
mod find;
pub mod format;
pub mod keymap;
mod list;
mod once;
pub mod record;
mod session;
pub mod store;
pub mod symbols;
mod table;
pub mod term;
pub mod theme;
pub mod top;
pub mod view;

pub use cli::{outbox_arguments, run};
pub use exit::Exit;
pub use find::{Found, directories, processes};
pub use session::{At, Failed, Session};
