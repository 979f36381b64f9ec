//! Logs and metrics of a process, and the signal that ends it.

use std::backtrace::Backtrace;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::guard;
use crate::metric::{COMMON, Metric};
use crate::settings::{LogFormat, LogSettings, SettingsError};

/// How often metrics are condensed.
const UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of all durations (seconds).
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the buckets of batch sizes.
const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Starts writing logs to standard error, and keeping metrics: those of both processes and `own`. Once per
/// process.
///
/// # Errors
/// If `RUST_LOG` cannot be read, or logs or metrics were started before.
pub fn start(settings: &LogSettings, own: &[Metric]) -> Result<PrometheusHandle, SettingsError> {
    let unusable = |variable, problem: String| SettingsError::Unusable { variable, problem };
    let filter = settings.rust_log.as_deref().unwrap_or("info");
    let filter =
        EnvFilter::try_new(filter).map_err(|error| unusable("RUST_LOG", error.to_string()))?;
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = match settings.log_format {
        LogFormat::Json => logs.json().boxed(),
        LogFormat::Pretty => logs.boxed(),
    };
    let logs = logs.with_filter(filter.and(filter_fn(is_told)));
    let started = tracing_subscriber::registry().with(logs).try_init();
    started.map_err(|_| unusable("LOG_FORMAT", "logging was started before".to_owned()))?;
    std::panic::set_hook(Box::new(tell_panic));
    guard::install();
    let already = |_| unusable("LOG_FORMAT", "metrics were started before".to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets(&SECONDS)
        .and_then(|builder| {
            let sizes = metrics_exporter_prometheus::Matcher::Suffix("_size".to_owned());
            builder.set_buckets_for_metric(sizes, &SIZES)
        })
        .map_err(already)?
        .install_recorder()
        .map_err(already)?;
    COMMON.iter().chain(own).for_each(Metric::describe);
    Ok(handle)
}

/// Whether `RUST_LOG` may ask for this. Libraries show at their lower levels what passes through them
/// (statements, frames, headers), and what an error of the database or of Redis says may hold what a
/// client wrote or a password: whatever is asked for, the former say no more than what concerns
/// everybody, and the latter nothing, since we tell of their errors by their kind.
fn is_told(event: &Metadata<'_>) -> bool {
    let target = event.target().split("::").next().unwrap_or_default();
    match target {
        "api" | "holdfast_api" | "worker" | "holdfast_worker" | "shared" | "migration" => true,
        "redis" | "sea_orm" | "sea_orm_migration" | "sqlx" | "sqlx_core" | "sqlx_postgres" => false,
        _ => *event.level() <= Level::INFO,
    }
}

/// Tells where a panic was, and not what it said: that may be made of what a client wrote.
fn tell_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let backtrace = Backtrace::capture();
    tracing::error!(%backtrace, "panicked at {place}: this is a mistake of this program");
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

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_tells_its_place_and_not_what_it_said() {
        let written = Written::default();
        let sink = written.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || sink.clone()).finish();
        let before = take_hook();
        set_hook(Box::new(tell_panic));
        tracing::subscriber::with_default(logs, || {
            let title = "canary-51f";
            let _ = catch_unwind(|| panic!("a task called {title}"));
        });
        set_hook(before);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("panicked at") && text.contains("telemetry.rs"), "{text}");
        assert!(!text.contains("canary-51f"), "{text}");
    }
}
