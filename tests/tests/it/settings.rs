//! Settings that cannot be used stop the start with a message that names the variable.

use std::path::Path;
use std::time::Duration;

use tests::{Launch, binaries, scratch_folder};

/// What a program says that must not start with these variables.
pub async fn refusal(
    folder: &Path,
    binary: &str,
    verb: &str,
    variables: &[(&str, &str)],
) -> String {
    let launch = Launch::new(binaries().join(binary), folder.join("log"))
        .args([verb])
        .env("BUFFER_PATH", folder.join("data/buffer.redb").to_string_lossy().into_owned());
    let launch = variables
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(*name, (*value).to_owned()));
    let output = tokio::time::timeout(Duration::from_secs(10), launch.output());
    let refused = output.await.expect("it does not start").expect_err("it does not run");
    format!("{refused:#}")
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_stops_the_start_by_its_name() {
    let folder = scratch_folder("settings");
    for (name, value) in [
        ("SERVER_PORT", "http"),
        ("DB_WRITE_TIMEOUT_MS", "-1"),
        ("DATABASE_URL", "mysql://canary-5d1@h/db"),
        ("REDIS_URL", "canary-5d1"),
        ("JWT_SECRET", "canary-5d1"),
        ("PROVIDER_JWT_SECRET", "canary-5d1"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "!!"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "many"),
        ("RATE_LIMIT_RPS", "-1"),
        ("RATE_LIMIT_ADDRESS_RPS", "1000001"),
        ("LOGIN_RATE_LIMIT_PER_MINUTE", "often"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "ftp://app.example"),
        ("BUFFER_PATH", "/proc/nothing/buffer.redb"),
        ("BUFFER_KEYS", "canary-5d1"),
        ("BUFFER_KEYS", "a:Y2FuYXJ5LTVkMQ=="),
    ] {
        let said = refusal(folder.path(), "holdfast-api", "serve", &[(name, value)]).await;
        assert!(said.contains(name), "{name}: {said}");
        assert!(!said.contains("canary-5d1") && !said.contains("Y2FuYXJ5"), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
    }
    for (name, value) in [
        ("WORKER_PORT", "x"),
        ("MAX_RETRY_ATTEMPTS", "many"),
        ("MIGRATE", "x"),
        ("BUFFER_KEYS", "a:Y2FuYXJ5LTVkMQ=="),
    ] {
        let said = refusal(folder.path(), "holdfast-worker", "run", &[(name, value)]).await;
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn every_setting_stands_in_the_example() {
    let example = include_str!("../../../.env.example");
    let sources = [
        include_str!("../../../shared/src/settings.rs"),
        include_str!("../../../api/src/settings.rs"),
        include_str!("../../../worker/src/settings.rs"),
    ];
    let mut names = 0;
    for source in sources {
        for group in source.split("#[serde(default)]\npub struct ").skip(1) {
            let fields = group.split("\n}").next().unwrap_or_default();
            for name in fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
                let variable = name.split(':').next().unwrap_or_default().to_uppercase();
                let stands = example
                    .lines()
                    .any(|line| line.trim_start_matches("# ").starts_with(&format!("{variable}=")));
                assert!(stands, "{variable} is not in .env.example");
                names += 1;
            }
        }
    }
    assert!(names > 30, "only {names} settings were found");
}

#[test]
fn the_table_of_settings_has_the_names_and_defaults_of_the_example() {
    let example = include_str!("../../../.env.example");
    let of_example: Vec<(&str, &str, bool)> = example
        .lines()
        .filter_map(|line| {
            let (name, value) = line.trim_start_matches("# ").split_once('=')?;
            let is_name = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            is_name.then_some((name, value, line.starts_with('#')))
        })
        .collect();
    let table = include_str!("../../../docs/settings.md");
    let of_table: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split(" | ").next()?)))
        .collect();
    for (name, value, has_no_default) in &of_example {
        let defaults = of_table.iter().filter(|row| row.0 == *name).map(|row| row.1);
        let [default] = defaults.collect::<Vec<_>>()[..] else {
            panic!("{name} does not stand in docs/settings.md once");
        };
        // A line that is commented out has an example: what the default is, the table says in words.
        let in_words = *has_no_default && !default.starts_with('`');
        assert!(in_words || default == format!("`{value}`"), "{name}: {default}, not {value}");
    }
    for (name, _) in &of_table {
        assert!(of_example.iter().any(|row| row.0 == *name), "{name} is not in .env.example");
    }
    assert!(of_table.len() > 30, "only {} settings were found", of_table.len());
}
