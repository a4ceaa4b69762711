//! The command line: what can be asked for, and with which options.
//!
//! - `cli/whom.rs`: the processes that are meant.
//! - `cli/top.rs`: `top` and `replay`, on a terminal or printed.
//! - `cli/ctl.rs`: what is done to pipelines and their branches.
//! - `cli/outbox.rs`: what is done to outboxes, by Python.

mod ctl;
mod outbox;
mod top;
mod whom;

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, SystemTime};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{Exit, config, doctor, list};

/// Multi-tenant event pipelines: look at those that run on this machine.
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the processes with pipelines
    #[command(visible_alias = "ps")]
    Ls(Ls),
    /// Show the pipelines of processes, and their branches: the dashboard, or a table
    Top(top::Top),
    /// Show a recording of the dashboard
    Replay(top::Replay),
    /// Pause, drain, throttle, … a branch or a pipeline
    Ctl(ctl::Ctl),
    /// Look after the outboxes of databases, or work on them
    // Python's, too: only its arguments are read here.
    Outbox(outbox::Outbox),
    /// Tell whether processes can be found here, and why not
    Doctor,
    /// Print what completes this command in a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print a configuration
    Config {
        /// The one that holds where nothing else was chosen
        #[arg(value_enum)]
        which: Which,
    },
    // Python's: it never gets here from the package's own script.
    #[command(about = "Run a gateway for many tenants on loopback, into SQLite")]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _arguments: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct Ls {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Default,
}

/// Reads the arguments of `anabranch outbox`, the program's name first, and tells them as JSON.
///
/// # Errors
/// There is nothing to do any more: help was printed, or what is wrong with them.
pub fn outbox_arguments(arguments: Vec<OsString>) -> Result<String, Exit> {
    match read(arguments)?.verb {
        Some(Verb::Outbox(outbox)) => serde_json::to_string(&outbox).map_err(|error| {
            complain(&error.to_string());
            Exit::Failed
        }),
        _ => Err(Exit::Usage),
    }
}

fn read(arguments: Vec<OsString>) -> Result<Cli, Exit> {
    let verbs = verbs(&arguments);
    Cli::try_parse_from(arguments).map_err(|error| {
        if !error.use_stderr() {
            return say(&error.to_string());
        }
        complain(&mistake(&error, &verbs));
        Exit::Usage
    })
}

/// Runs the command with the arguments of a process, the program's name first.
pub fn run(arguments: Vec<OsString>) -> Exit {
    let cli = match read(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let done = match cli.verb {
        Some(Verb::Ls(ls)) => Ok(list::run(ls.json, unix_ms())),
        Some(Verb::Top(top)) => top.run(),
        Some(Verb::Replay(replay)) => replay.run(),
        Some(Verb::Ctl(ctl)) => ctl.run(),
        Some(Verb::Doctor) => Ok(doctor::run()),
        Some(Verb::Completions { shell }) => Ok(completions(shell)),
        Some(Verb::Config {
            which: Which::Default,
        }) => Ok(say(&config::default_text())),
        Some(Verb::Outbox(_)) => Err(Complaint::new(
            Exit::Usage,
            "outboxes are part of the Python package: python -m anabranch.cli outbox",
        )),
        Some(Verb::Demo { .. }) => Err(Complaint::new(
            Exit::Usage,
            "the demo is part of the Python package: python -m anabranch.cli demo",
        )),
        None => Err(Complaint::new(
            Exit::Usage,
            "no command given (see anabranch --help)",
        )),
    };
    done.unwrap_or_else(|complaint| {
        complain(&complaint.what);
        complaint.exit
    })
}

/// The command that was begun: `anabranch ctl throttle`.
fn verbs(arguments: &[OsString]) -> String {
    let mut command = Cli::command();
    let mut verbs = command.get_name().to_owned();
    for word in arguments.iter().skip(1).map(|it| it.to_string_lossy()) {
        let Some(next) = command.find_subcommand(&*word).cloned() else {
            break;
        };
        verbs = format!("{verbs} {}", next.get_name());
        command = next;
    }
    verbs
}

/// What is wrong with the arguments, in one line, and where to read on.
fn mistake(error: &clap::Error, verbs: &str) -> String {
    let message = error.to_string();
    let what = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "no command given".to_owned()
    } else {
        joined(&message)
    };
    format!("{what} (see {verbs} --help)")
}

/// The first line of a message, with what is missing, allowed or meant: it stands in lines of its own.
fn joined(message: &str) -> String {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    let mut what = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    let told = lines.take_while(|it| !it.starts_with("Usage:"));
    for (number, line) in told.filter(|it| it.starts_with("  ")).enumerate() {
        what += match number {
            0 if what.ends_with(':') => " ",
            0 => "; ",
            _ => ", ",
        };
        what += line.trim();
    }
    what
}

/// Why a command was not begun, and how it ends therefore.
#[derive(Debug)]
struct Complaint {
    exit: Exit,
    what: String,
}

impl Complaint {
    fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
        }
    }
}

fn completions(shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "anabranch", &mut script);
    say(&String::from_utf8_lossy(&script))
}

/// Reads a time: `100ms`, `2s`, or a number of seconds.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().map_or(-1.0, |number| number * unit);
    let time = Duration::try_from_secs_f64(seconds).ok();
    let allowed = Duration::from_millis(50)..=Duration::from_secs(60);
    time.filter(|it| allowed.contains(it))
        .ok_or_else(|| format!("must be a time from 50ms to 60s, got {text:?}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a process is up is told by the calendar"
)]
fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

fn unix_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// A name that no other run of the command has: it tells its orders from those of others.
fn session() -> String {
    format!("{}-{}", std::process::id(), since_1970().as_nanos())
}

/// Prints what was asked for. Whoever reads may have gone: then there is nobody to tell.
pub(crate) fn say(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        // Whoever reads has seen enough, as `head` does: that is nobody's mistake to be told of.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Failed,
        Err(error) => {
            complain(&format!("what was to be printed could not be: {error}"));
            Exit::Failed
        }
    }
}

/// Prints what went wrong.
pub(crate) fn complain(what: &str) {
    // If this cannot be told, nothing can.
    let _ = writeln!(std::io::stderr().lock(), "anabranch: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::At;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn v6_a_mistake_tells_where_its_own_help_is() {
        let told = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            let verbs = verbs(&arguments);
            let error = Cli::try_parse_from(arguments).err();
            error.map_or_else(String::new, |it| mistake(&it, &verbs))
        };
        let table = [
            (
                "anabranch ctl throttle a --rate nan",
                "anabranch ctl throttle",
            ),
            ("anabranch top --filter st:bogus", "anabranch top"),
            ("anabranch ps --odd", "anabranch ls"),
            ("anabranch ctl", "anabranch ctl"),
            ("anabranch odd", "anabranch"),
        ];
        for (line, verbs) in table {
            let told = told(line);
            assert!(told.ends_with(&format!("(see {verbs} --help)")), "{told}");
        }
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(time("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(time("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(time("0.5"), Ok(Duration::from_millis(500)));
        for odd in ["", "ms", "10ms", "61s", "-1s", "NaN", "inf", "1h", "1e400"] {
            assert!(time(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn places_are_told_apart() {
        assert_eq!(At::parse("unix:/a"), Ok(At::Unix("/a".into())));
        assert_eq!(At::parse("/a"), Ok(At::Unix("/a".into())));
        assert!(matches!(At::parse("tcp:127.0.0.1:80"), Ok(At::Tcp(..))));
        assert!(matches!(At::parse("tcp:[::1]:80"), Ok(At::Tcp(..))));
        for odd in ["", "unix:", "tcp:", "tcp:localhost", "pipe:7"] {
            assert!(At::parse(odd).is_err(), "{odd:?}");
        }
    }
}
