//! The `holdfast-api` binary: `serve` (the default), `token`, `openapi`, `metrics`.

use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;

use anyhow::Context;
use api::metric::METRICS;
use clap::{Parser, Subcommand};
use shared::domain::{Actor, Role};
use shared::metric::{COMMON, table};
use shared::settings::{BufferSettings, LogSettings, load};
use shared::telemetry;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

/// Many small allocations on several threads: the system's allocator is the slowest part of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks and profiles over HTTP, with a buffer for when the database is away. Settings come from
/// the environment: see .env.example.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Print a bearer token for development, signed with the secret beside the buffer file.
    Token {
        /// The user's id; a new one if not given.
        #[arg(long)]
        user: Option<Uuid>,
        /// user, operator or admin.
        #[arg(long, default_value = "user")]
        role: String,
        /// Seconds until it expires.
        #[arg(long, default_value_t = 7 * 24 * 3600)]
        lifetime: u64,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Print the tables of metrics, in Markdown: those of this process alone, and those of both.
    Metrics,
}

fn main() -> ExitCode {
    telemetry::exit_code(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            refuse_huge_pages();
            runtime()?.block_on(serve())
        }
        Command::Token { user, role, lifetime } => print(&token(user, &role, lifetime)?),
        Command::Openapi => print(&api::http::openapi_yaml()),
        Command::Metrics => print(&format!("{}\n{}", table(&METRICS), table(&COMMON))),
    }
}

/// One core is left to the thread that commits to the buffer, which is as busy in an outage as all of
/// these: with a thread for each core they keep it waiting, and it them. `TOKIO_WORKER_THREADS` sets
/// another number, as in all programs on tokio.
fn runtime() -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        builder.worker_threads(cores.saturating_sub(1).max(1));
    }
    builder.enable_all().build()
}

/// Where the system hands out huge pages to who asks, the allocator does, and holds a fifth more memory
/// for no gain in speed. Before there are threads: they inherit it.
fn refuse_huge_pages() {
    // Without it there is just that much more memory.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

async fn serve() -> anyhow::Result<()> {
    let metrics = telemetry::start(&load::<LogSettings>()?, &METRICS)?;
    let (state, store_settings) = api::open(metrics).await?;
    let listener = api::listen(&state.server)?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    api::run(listener, state, &store_settings, telemetry::shutdown()).await
}

fn token(user: Option<Uuid>, role: &str, lifetime: u64) -> anyhow::Result<String> {
    let role = Role::parse(role).context("--role")?;
    let actor = Actor { user_id: user.unwrap_or_else(Uuid::now_v7), role, session_id: None };
    let path = load::<BufferSettings>()?.buffer_path;
    Ok(api::tokens::mint_local(&load()?, &path, actor, lifetime)?)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
}
