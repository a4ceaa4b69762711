//! The outbox on databases: the one source of their SQL.
//!
//! A message is enqueued over the caller's own connection, by whatever driver made it; so the SQL
//! goes out as text, and drivers that are not ours run it. What runs it elsewhere takes it from here
//! as well: the SQLite store runs it through the interpreter's own `sqlite3`, because two copies of
//! SQLite in one process drop each other's locks on a file.
//!
//! - `schema/`: the tables of each dialect, by version.
//! - `statements/`: what is done with them.
//! - `script.rs`: reads both.

mod script;

use anabranch_core::outbox::{JOIN_KEPT, MOST_ERRORS};
pub use script::{Migration, Script};

/// The version of the tables this build works on.
pub const VERSION: u32 = 2;

/// What is added to the due time of messages that are paused: 31 000 years, in milliseconds.
const FAR: &str = "1000000000000000";

/// How many letters of a name `PostgreSQL` takes.
const LONGEST_NAME: usize = 63;

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `PostgreSQL`, from 13 on.
    Postgres,
    /// SQLite, from 3.35 on.
    Sqlite,
}

impl Dialect {
    /// The dialect with that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "postgres" => Some(Self::Postgres),
            "sqlite" => Some(Self::Sqlite),
            _ => None,
        }
    }

    /// Its SQL, for tables whose names begin with `prefix`, in a schema if one is named: `SQLite` has
    /// none. The caller has checked both. With `of_tenant` they work on the rows of the tenant that is
    /// given as `:tenant`, and on no others.
    pub fn script(self, prefix: &str, schema: Option<&str>, of_tenant: bool) -> Script {
        let (tables_of, statements) = match self {
            Self::Postgres => (
                include_str!("outbox/schema/postgres.sql"),
                include_str!("outbox/statements/postgres.sql"),
            ),
            Self::Sqlite => (
                include_str!("outbox/schema/sqlite.sql"),
                include_str!("outbox/statements/sqlite.sql"),
            ),
        };
        let (most_errors, join_kept) = (MOST_ERRORS.to_string(), JOIN_KEPT.to_string());
        let (tables, channel) = match schema {
            Some(schema) => (
                format!("\"{schema}\".{prefix}"),
                format!("{schema}.{prefix}"),
            ),
            None => (prefix.to_owned(), prefix.to_owned()),
        };
        let (mine, whose) = match (self, of_tenant) {
            (Self::Postgres, true) => ("m.tenant = :tenant", "cast(:tenant as text)"),
            (Self::Sqlite, true) => ("m.tenant = :tenant", ":tenant"),
            (_, false) => ("true", "''"),
        };
        // Two that share a channel, because their names begin alike, wake each other for nothing.
        let channel: String = format!("{channel}message")
            .chars()
            .take(LONGEST_NAME)
            .collect();
        Script::read(
            tables_of,
            statements,
            &[
                ("prefix", prefix),
                ("schema", schema.unwrap_or_default()),
                ("tables", &tables),
                ("channel", &channel),
                ("mine", mine),
                ("whose", whose),
                ("far", FAR),
                ("most_errors", &most_errors),
                ("join_kept", &join_kept),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D1: versions count from 1 without a gap, up to the one this build works on.
    #[test]
    fn d1_every_version_has_its_migration() {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let script = dialect.script("mail_", None, false);
            let versions: Vec<_> = script.migrations.iter().map(|it| it.version).collect();
            assert_eq!(versions, (1..=VERSION).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let script = dialect.script("mail_", None, false);
            let schema = script.migrations.iter().flat_map(|it| &it.statements);
            for text in schema.chain(script.statements.values()) {
                assert!(!text.contains("{prefix}") && !text.contains("--"), "{text}");
                assert!(!text.is_empty());
            }
            assert!(script.statements["claim"].contains("update mail_message"));
        }
    }

    /// D1: with a schema no table is looked for where the connection's search path leads.
    #[test]
    fn d1_every_table_is_named_with_its_schema() {
        let script = Dialect::Postgres.script("mail_", Some("acme"), false);
        let schema = script.migrations.iter().flat_map(|it| &it.statements);
        for text in schema.chain(script.statements.values()) {
            let rest = text
                .replace("\"acme\".mail_", "")
                .replace("acme.mail_message", "");
            let rest = rest.replace("create index mail_", "");
            let rest = rest.replace("drop constraint mail_", "");
            assert!(!rest.contains("mail_"), "{text}");
        }
    }

    /// X9: a tenant's outbox reads, claims and changes no message without its name; what is held is
    /// known by its receipt, and upkeep is everybody's.
    #[test]
    fn x9_a_tenants_statements_name_it() {
        let held = "ack_delete ack_archive abandon fail divide release extend \
            inline_delete inline_archive inline_hold";
        let of_all = "channel tenants dead_rows subscribe wait_no_more";
        let of_joins = "join_states join_mark join_tally join_overdue join_followed";
        let exempt: Vec<_> = [held, of_all, of_joins]
            .into_iter()
            .flat_map(str::split_whitespace)
            .collect();
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let script = dialect.script("mail_", None, true);
            for (name, text) in &script.statements {
                if text.contains("mail_message") && !exempt.contains(&name.as_str()) {
                    let inserts = text.contains('?');
                    assert!(inserts || text.contains(":tenant"), "{name}: {text}");
                }
            }
        }
    }

    /// D1: what `PostgreSQL` would refuse, or cut, is cut beforehand.
    #[test]
    fn d1_a_channel_is_no_longer_than_a_name() {
        let script = Dialect::Postgres.script(&"p".repeat(31), Some(&"s".repeat(63)), false);
        assert_eq!(script.statements["channel"], "s".repeat(63));
    }
}
