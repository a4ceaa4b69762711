//! `anabranch outbox`: what can be asked for. Databases are Python's to work on, by its drivers: so the
//! arguments are only read here, beside those of the other commands, and told as JSON.

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

#[derive(Debug, Args, Serialize)]
pub(super) struct Outbox {
    #[command(subcommand)]
    #[serde(flatten)]
    verb: Verb,
}

#[derive(Debug, Subcommand, Serialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
enum Verb {
    /// Make the tables of outboxes, or bring them to this version
    Migrate(Stores),
    /// Count messages by topic and status, and tell what is paused
    Status(Stores),
    /// List messages
    List(List),
    /// Show messages with what they hold
    Show {
        #[command(flatten)]
        #[serde(flatten)]
        stores: Stores,
        /// The message
        #[arg(long, value_name = "ID", required = true)]
        id: Vec<i64>,
    },
    /// List dead messages with what went wrong
    Dead(Page),
    /// Make dead messages ready again
    Requeue(Change),
    /// Make messages dead that nobody has begun with
    Cancel {
        #[command(flatten)]
        #[serde(flatten)]
        change: Change,
        /// What is kept with them
        #[arg(long, value_name = "TEXT", default_value = "by an operator")]
        reason: String,
    },
    /// Remove messages that have ended, for ever
    Purge {
        #[command(flatten)]
        #[serde(flatten)]
        change: Change,
        /// Which: dead, or done where those are archived
        #[arg(long, value_enum)]
        status: Ended,
        /// Only those that ended so long ago: 90s, 30min, 12h, 7d
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = age)]
        older_than: f64,
    },
    /// Let no worker claim messages of topics
    Pause(Topics),
    /// Let them go on
    Resume(Topics),
    /// List who works on outboxes
    Workers(Stores),
    /// Tell what is wrong with outboxes, and what to do
    Doctor(Stores),
    /// Run a worker until it is told to stop: the first Ctrl-C drains, the second stops at once
    Work {
        /// Where it is, as in shop.jobs:worker
        #[arg(value_name = "MODULE:WORKER")]
        worker: String,
        /// Claim once from each outbox, handle that, and end
        #[arg(long)]
        once: bool,
    },
}

/// The outboxes that are meant.
#[derive(Debug, Args, Serialize)]
struct Stores {
    /// `postgresql://…`, `sqlite:///…`, or `env:NAME` for the URL in that environment variable
    #[arg(value_name = "URL", required = true)]
    url: Vec<String>,
    /// What their tables' names begin with
    #[arg(long, value_name = "NAME", default_value = "outbox_")]
    prefix: String,
    /// The schema of `PostgreSQL` their tables are in
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
    /// Only the messages of this tenant, of a table that holds those of many
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args, Serialize)]
struct List {
    #[command(flatten)]
    #[serde(flatten)]
    page: Page,
    /// Only those of this status
    #[arg(long, value_enum)]
    status: Option<Status>,
}

/// A part of the messages, in the order of their ids.
#[derive(Debug, Args, Serialize)]
struct Page {
    #[command(flatten)]
    #[serde(flatten)]
    stores: Stores,
    /// Only those of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those with a higher id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    after: i64,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// The messages that something is done to.
#[derive(Debug, Args, Serialize)]
#[group(required = true, multiple = true)]
struct Choice {
    /// This message
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    id: Vec<i64>,
    /// Those of this topic
    #[arg(long, value_name = "TOPIC", conflicts_with = "all")]
    topic: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args, Serialize)]
struct Change {
    #[command(flatten)]
    #[serde(flatten)]
    stores: Stores,
    #[command(flatten)]
    #[serde(flatten)]
    choice: Choice,
    /// Do not ask, whatever it is
    #[arg(long)]
    yes: bool,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args, Serialize)]
struct Topics {
    #[command(flatten)]
    #[serde(flatten)]
    stores: Stores,
    /// A topic, or the beginning of topics and `*`; all of them by default
    #[arg(long, value_name = "TOPIC", default_value = "*")]
    topic: String,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ready,
    Scheduled,
    Leased,
    Dead,
    Done,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Ended {
    Dead,
    Done,
}

/// Reads an age as seconds: `90s`, `30min`, `12h`, `7d`, or a number of seconds.
fn age(text: &str) -> Result<f64, String> {
    let units = [("min", 60.0), ("d", 86_400.0), ("h", 3600.0), ("s", 1.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1.0));
    let seconds = number.parse::<f64>().ok().map(|number| number * unit);
    seconds
        .filter(|it| it.is_finite() && *it >= 0.0)
        .ok_or_else(|| format!("must be a time, as in 90s, 30min, 12h or 7d, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, outbox_arguments};
    use super::age;

    fn told(line: &str) -> serde_json::Value {
        let arguments = line.split(' ').map(Into::into).collect();
        serde_json::from_str(&outbox_arguments(arguments).unwrap()).unwrap()
    }

    #[test]
    fn d2_what_is_asked_for_is_told_as_json() {
        let purge = told("anabranch outbox purge sqlite:///a.db --status dead --topic mail --yes");
        assert_eq!(
            purge,
            serde_json::json!({
                "verb": "purge", "url": ["sqlite:///a.db"], "prefix": "outbox_", "schema": null,
                "tenant": null, "json": false, "id": [], "topic": "mail", "all": false, "yes": true,
                "dry_run": false, "status": "dead", "older_than": 0.0,
            })
        );
        let list = told("anabranch outbox list a b --schema acme --status done --json");
        assert_eq!(list["url"], serde_json::json!(["a", "b"]));
        assert_eq!(
            (&list["status"], &list["limit"]),
            (&"done".into(), &100.into())
        );
        assert_eq!(told("anabranch outbox pause a")["topic"], "*");
        assert_eq!(told("anabranch outbox work shop:worker")["once"], false);
    }

    #[test]
    fn d2_what_is_done_to_all_must_be_said() {
        for line in [
            "outbox requeue a",
            "outbox requeue a --all --topic mail",
            "outbox purge a --all",
            "outbox show a",
            "outbox status",
        ] {
            let line = ["anabranch"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(line).is_err());
        }
    }

    #[test]
    fn ages_have_units() {
        assert_eq!(age("90s"), Ok(90.0));
        assert_eq!(age("90"), Ok(90.0));
        assert_eq!(age("30min"), Ok(1800.0));
        assert_eq!(age("0.5h"), Ok(1800.0));
        assert_eq!(age("7d"), Ok(604_800.0));
        for odd in ["", "d", "-1s", "inf", "NaN", "1w"] {
            assert!(age(odd).is_err(), "{odd:?}");
        }
    }
}
