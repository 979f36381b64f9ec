//! Is a server up? Asked over its own protocol, so that the answer is the one a client gets.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const POLL_EVERY: Duration = Duration::from_millis(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// A question to a server on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// PostgreSQL finishes a start-up exchange, down to `ReadyForQuery`.
    Postgres(u16),
    /// Redis answers `PING` with `PONG`.
    Redis(u16),
    /// `GET /live` answers 200.
    Live(u16),
}

impl Probe {
    /// Asks once; a refusal, an error answer and silence for a second all mean no.
    pub async fn answers(self) -> bool {
        let asked = async {
            match self {
                Self::Postgres(port) => ask_postgres(port).await,
                Self::Redis(port) => ask(port, b"PING\r\n", b"+PONG").await,
                Self::Live(port) => {
                    let request =
                        b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
                    ask(port, request, b"HTTP/1.1 200").await
                }
            }
        };
        matches!(tokio::time::timeout(ATTEMPT_TIMEOUT, asked).await, Ok(Ok(true)))
    }

    /// Asks until the answer is yes; answers the moment it was.
    ///
    /// # Errors
    /// When the deadline passes, or `still_possible` says that there is no use in waiting.
    pub async fn wait(
        self,
        deadline: Duration,
        mut still_possible: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Instant> {
        let started = Instant::now();
        loop {
            if self.answers().await {
                return Ok(Instant::now());
            }
            still_possible().with_context(|| format!("{self:?} will not answer"))?;
            if started.elapsed() > deadline {
                bail!("{self:?} did not answer within {deadline:?}");
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

async fn ask(port: u16, request: &[u8], expected: &[u8]) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request).await?;
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer == expected)
}

async fn ask_postgres(port: u16) -> io::Result<bool> {
    const PROTOCOL_3: i32 = 196_608;
    const PARAMETERS: &[u8] = b"user\0holdfast\0database\0holdfast\0\0";
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let length = i32::try_from(8 + PARAMETERS.len()).map_err(io::Error::other)?;
    let startup = [&length.to_be_bytes(), &PROTOCOL_3.to_be_bytes(), PARAMETERS].concat();
    stream.write_all(&startup).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = u64::try_from(stream.read_i32().await?).map_err(io::Error::other)?;
        match kind {
            b'Z' => {
                stream.write_all(&[b'X', 0, 0, 0, 4]).await?;
                return Ok(true);
            }
            b'E' => return Ok(false),
            _ => {
                let body = length.saturating_sub(4);
                tokio::io::copy(&mut (&mut stream).take(body), &mut tokio::io::sink()).await?;
            }
        }
    }
}
