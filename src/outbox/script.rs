//! Reads the files of SQL: named statements with fragments, and versions of the tables.

use std::collections::BTreeMap;

/// The SQL of one dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// How the tables come to be, version by version.
    pub migrations: Vec<Migration>,
    /// What is done with them, by name. Parameters are written `:name`.
    pub statements: BTreeMap<String, String>,
}

/// What leads to one version of the tables from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// The version it leads to; the first is 1.
    pub version: u32,
    /// What to run, in this order and in one transaction.
    pub statements: Vec<String>,
}

impl Script {
    pub(super) fn read(schema: &str, statements: &str, given: &[(&str, &str)]) -> Self {
        let given: Vec<_> = given
            .iter()
            .map(|(name, text)| (format!("{{{name}}}"), (*text).to_owned()))
            .collect();
        let migrations = sections(schema)
            .filter_map(|(head, text)| {
                let version = head.strip_prefix("version ")?.parse().ok()?;
                let statements = text.split(";\n").map(|it| it.trim().trim_end_matches(';'));
                Some(Migration {
                    version,
                    statements: statements
                        .filter(|it| !it.is_empty())
                        .map(|it| filled(it, &given))
                        .collect(),
                })
            })
            .collect();
        let mut fragments = Vec::new();
        let mut named = BTreeMap::new();
        for (head, text) in sections(statements) {
            if let Some(name) = head.strip_prefix("fragment ") {
                fragments.push((format!("{{{name}}}"), text.trim().to_owned()));
            } else if let Some(name) = head.strip_prefix("statement ") {
                named.insert(name.to_owned(), text.trim().to_owned());
            }
        }
        // A fragment may contain those before it.
        fragments.reverse();
        fragments.extend(given);
        for text in named.values_mut() {
            *text = filled(text, &fragments);
        }
        Self {
            migrations,
            statements: named,
        }
    }
}

/// What stands between one headline and the next, without its comments.
fn sections(file: &str) -> impl Iterator<Item = (String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in file.lines() {
        if let Some(comment) = line.strip_prefix("-- ") {
            if ["version ", "fragment ", "statement "]
                .iter()
                .any(|head| comment.starts_with(head))
            {
                sections.push((comment.to_owned(), String::new()));
            }
        } else if line != "--"
            && let Some((_, text)) = sections.last_mut()
        {
            text.push_str(line);
            text.push('\n');
        }
    }
    sections.into_iter()
}

fn filled(text: &str, fragments: &[(String, String)]) -> String {
    fragments
        .iter()
        .fold(text.to_owned(), |text, (name, with)| {
            text.replace(name, with)
        })
}
