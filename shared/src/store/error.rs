//! What can go wrong with PostgreSQL, classified once: by the kind of failure and the SQLSTATE,
//! never by text.

use sea_orm::sqlx;
use sea_orm::{DbErr, RuntimeErr, SqlxError};
use thiserror::Error;

/// A five-character SQLSTATE (PostgreSQL manual, appendix A).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState(pub [u8; 5]);

impl std::fmt::Display for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl std::fmt::Debug for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Why PostgreSQL did not do what it was asked for. Carries no text of PostgreSQL's: that may hold
/// what a client wrote.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// No connection could be had: nothing was sent.
    #[error("PostgreSQL cannot be reached")]
    Unreachable,
    /// The connection broke while an answer was awaited.
    #[error("the connection to PostgreSQL broke")]
    Broken,
    /// No answer came in time.
    #[error("PostgreSQL did not answer in time")]
    TimedOut,
    /// A statement began after its deadline, and did nothing: it was held up on its way, or a clock was
    /// set.
    #[error("a statement reached PostgreSQL too late")]
    Late,
    /// PostgreSQL answered with an error.
    #[error("PostgreSQL refused with SQLSTATE {0}")]
    Refused(SqlState),
    /// Other writers changed the same entities again and again.
    #[error("other writers kept changing the same entities")]
    Contended,
    /// An answer does not have the shape this program knows.
    #[error("PostgreSQL answered in an unknown shape")]
    Shape,
}

/// What to do about a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// PostgreSQL takes no writes now; nothing was done.
    Unavailable,
    /// Whether it was done is not known; the ledger will tell.
    Unknown,
    /// It may well go through at once.
    Transient,
    /// The schema does not fit this program.
    Schema,
    /// This program is not let in.
    Auth,
    /// PostgreSQL refuses this data, now and ever.
    Data,
    /// PostgreSQL failed at this statement in a way that nobody foresaw; others may go through.
    Internal,
}

impl Class {
    /// The name used in logs and in the published status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Transient => "transient",
            Self::Schema => "schema",
            Self::Auth => "auth",
            Self::Data => "data",
            Self::Internal => "internal",
        }
    }

    /// True if other statements are likely to fail as well, so that asking again is of no use now.
    #[must_use]
    pub const fn breaks_the_link(self) -> bool {
        match self {
            Self::Unavailable | Self::Unknown | Self::Schema | Self::Auth => true,
            Self::Transient | Self::Data | Self::Internal => false,
        }
    }
}

impl StoreError {
    /// lock_not_available: somebody held on to a row for longer than we wait for locks.
    pub const LOCKED: Self = Self::Refused(SqlState(*b"55P03"));

    /// unique_violation: a row that was to be inserted is there.
    pub const THERE: Self = Self::Refused(SqlState(*b"23505"));

    /// foreign_key_violation: a row that another is to refer to is not there.
    pub const ORPHAN: Self = Self::Refused(SqlState(*b"23503"));

    /// What to do about it.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            // A probe reads PostgreSQL's clock anew.
            Self::Unreachable | Self::Late => Class::Unavailable,
            Self::Broken | Self::TimedOut => Class::Unknown,
            Self::Refused(state) => state.class(),
            // Of one row that this program does not understand: others may well be understood.
            Self::Shape => Class::Internal,
            Self::Contended => Class::Transient,
        }
    }
}

impl SqlState {
    /// What to do about it.
    const fn class(self) -> Class {
        match &self.0 {
            // transaction_resolution_unknown, statement_completion_unknown
            b"08007" | b"40003" => Class::Unknown,
            b"40001" | b"40P01" | b"55P03" | b"57014" => Class::Transient,
            // read_only_sql_transaction
            b"25006" => Class::Unavailable,
            // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped, idle timeout
            [b'5', b'7', b'P', ..] => Class::Unavailable,
            // connection exception, insufficient resources, system error (I/O, no space)
            [b'0', b'8', ..] | [b'5', b'3', ..] | [b'5', b'8', ..] => Class::Unavailable,
            // invalid authorization, invalid catalog name (no such database), insufficient_privilege
            [b'2', b'8', ..] | [b'3', b'D', ..] | b"42501" => Class::Auth,
            // syntax error or undefined object, invalid schema name, feature not supported
            [b'4', b'2', ..] | [b'3', b'F', ..] | [b'0', b'A', ..] => Class::Schema,
            // data exception, integrity constraint violation, check option, raised by a trigger
            [b'2', b'2', ..] | [b'2', b'3', ..] | [b'4', b'4', ..] | b"P0001" => Class::Data,
            [_, _, _, _, _] => Class::Internal,
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::ConnectionAcquire(_) => Self::Unreachable,
            // Met while connecting, nothing is a fault of the data: a database that is closed for
            // maintenance answers with a state (55000) that says nothing of the kind by itself.
            DbErr::Conn(RuntimeErr::SqlxError(error)) => match refusal(&error) {
                Some(state) if state.class().breaks_the_link() => Self::Refused(state),
                Some(_) | None => Self::Unreachable,
            },
            DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)) => match error.as_ref() {
                SqlxError::Io(_) | SqlxError::Protocol(_) | SqlxError::WorkerCrashed => {
                    Self::Broken
                }
                SqlxError::Tls(_) | SqlxError::PoolTimedOut | SqlxError::PoolClosed => {
                    Self::Unreachable
                }
                error => refusal(error).map_or(Self::Shape, Self::Refused),
            },
            // sea-orm's own complaints (its error is open-ended) are about shapes of rows and types.
            _ => Self::Shape,
        }
    }
}

fn refusal(error: &sqlx::Error) -> Option<SqlState> {
    let state = error.as_database_error()?.code()?;
    Some(SqlState(state.as_bytes().try_into().unwrap_or(*b"XX000")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_the_class_the_contract_gives_it() {
        let table: [(&[u8; 5], Class); 24] = [
            (b"08007", Class::Unknown),
            (b"40003", Class::Unknown),
            (b"08006", Class::Unavailable),
            (b"53300", Class::Unavailable),
            (b"53100", Class::Unavailable),
            (b"57P01", Class::Unavailable),
            (b"57P03", Class::Unavailable),
            (b"25006", Class::Unavailable),
            (b"40001", Class::Transient),
            (b"40P01", Class::Transient),
            (b"55P03", Class::Transient),
            (b"57014", Class::Transient),
            (b"42P01", Class::Schema),
            (b"42703", Class::Schema),
            (b"28P01", Class::Auth),
            (b"28000", Class::Auth),
            (b"42501", Class::Auth),
            (b"3D000", Class::Auth),
            (b"22001", Class::Data),
            (b"22P05", Class::Data),
            (b"23505", Class::Data),
            (b"23503", Class::Data),
            (b"23514", Class::Data),
            (b"XX000", Class::Internal),
        ];
        for (state, class) in table {
            assert_eq!(
                StoreError::Refused(SqlState(*state)).class(),
                class,
                "{}",
                SqlState(*state)
            );
        }
    }
}
