//! Logs and metrics of a process, and the signal that ends it.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, LogSettings, SettingsError};

/// How often metrics are condensed.
const UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of all durations (seconds).
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the buckets of batch sizes.
const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Starts writing logs to standard error and keeping metrics. Once per process.
///
/// # Errors
/// If `RUST_LOG` cannot be read, or logs or metrics were started before.
pub fn start(settings: &LogSettings) -> Result<PrometheusHandle, SettingsError> {
    let unusable = |variable, problem: String| SettingsError::Unusable { variable, problem };
    let filter = settings.rust_log.as_deref().unwrap_or("info");
    let filter =
        EnvFilter::try_new(filter).map_err(|error| unusable("RUST_LOG", error.to_string()))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match settings.log_format {
        LogFormat::Json => logs.json().try_init(),
        LogFormat::Pretty => logs.try_init(),
    };
    started.map_err(|_| unusable("LOG_FORMAT", "logging was started before".to_owned()))?;
    let already = |_| unusable("LOG_FORMAT", "metrics were started before".to_owned());
    PrometheusBuilder::new()
        .set_buckets(&SECONDS)
        .and_then(|builder| {
            let sizes = metrics_exporter_prometheus::Matcher::Suffix("_size".to_owned());
            builder.set_buckets_for_metric(sizes, &SIZES)
        })
        .map_err(already)?
        .install_recorder()
        .map_err(already)
}

/// Condenses metrics every few seconds, whether or not anybody reads them: samples would pile up.
pub async fn keep_condensing(metrics: &PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// Ends a process: with exit code 1 and the error, with its sources, on one line of standard error, if
/// there is one.
pub fn exit_code<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns when the process is asked to end: SIGTERM or SIGINT.
pub async fn shutdown() {
    let stream = |kind| {
        signal(kind).inspect_err(|error| tracing::error!(%error, "a signal cannot be waited for"))
    };
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (stream(SignalKind::terminate()), stream(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to end");
}
