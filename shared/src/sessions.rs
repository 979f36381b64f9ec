//! Sessions: a login opens one, a refresh renews it, a logout ends it. They live in Redis, with an
//! expiry. Of the tokens that clients hold, Redis has only hashes.
//!
//! A refresh token is `session.family.secret`. All refresh tokens of a session have the same id and
//! family. The secret is new in each. So Redis can tell apart two kinds of tokens that are not the
//! newest one:
//!
//! - If the family is right and the secret is not, the token was used before. It may have been stolen, so
//!   its session ends.
//! - If the family is wrong, the token was made up. It is refused, and the session goes on. So nobody
//!   can end a session by knowing its id.
//!
//! Redis runs each script as a whole: of several refreshes with one token, exactly one succeeds.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use redis::Script;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::{Actor, Role};
use crate::redis::{Redis, RedisAway};

/// Sessions of one user at the most; the oldest makes room for a new one.
const SESSIONS_PER_USER: usize = 50;
/// Random bytes in each half of a refresh token.
const SECRET_BYTES: usize = 32;

/// ARGV: session, role, family hash, secret hash, now (ms), lifetime (ms), most sessions, key prefix.
const OPEN: &str = r"
redis.call('HSET', KEYS[1], 'user', ARGV[9], 'role', ARGV[2], 'family', ARGV[3], 'secret', ARGV[4],
    'created_at', ARGV[5], 'used_at', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', tonumber(ARGV[5]) - tonumber(ARGV[6]))
while redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[7]) do
    local oldest = redis.call('ZPOPMIN', KEYS[2])
    redis.call('DEL', ARGV[8] .. oldest[1])
end
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1";

/// ARGV: family hash, secret hash, next secret hash, now (ms), session, prefix of users' keys.
const ROTATE: &str = r"
local session = redis.call('HMGET', KEYS[1], 'family', 'secret', 'user', 'role')
if not session[1] or session[1] ~= ARGV[1] then return {'unknown'} end
if session[2] ~= ARGV[2] then
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', ARGV[6] .. session[3], ARGV[5])
    return {'reused', session[3]}
end
redis.call('HSET', KEYS[1], 'secret', ARGV[3], 'used_at', ARGV[4])
return {'renewed', session[3], session[4]}";

const OWNER: &str = r"
return redis.call('HGET', KEYS[1], 'user')";

/// ARGV: session, user.
const REVOKE: &str = r"
local user = redis.call('HGET', KEYS[1], 'user')
if not user then return 'absent' end
if user ~= ARGV[2] then return 'foreign' end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 'revoked'";

/// ARGV: key prefix.
const REVOKE_ALL: &str = r"
for _, session in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('DEL', ARGV[1] .. session)
end
return redis.call('DEL', KEYS[1])";

/// ARGV: key prefix.
const LIST: &str = r"
local found = {}
for _, session in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
    local times = redis.call('HMGET', ARGV[1] .. session, 'created_at', 'used_at')
    if times[1] then
        table.insert(found, {session, times[1], times[2]})
    else
        redis.call('ZREM', KEYS[1], session)
    end
end
return found";

const SESSION: &str = "holdfast:session:";
const SESSIONS_OF: &str = "holdfast:sessions:";

/// A refresh token, as its client holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    session_id: Uuid,
    family: String,
    secret: String,
}

impl RefreshToken {
    fn first(session_id: Uuid) -> Self {
        Self { session_id, family: random(), secret: random() }
    }

    fn next(&self) -> Self {
        Self { secret: random(), ..self.clone() }
    }

    /// Reads what a client sent; `None` if it cannot be one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (session, family, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = |part: &str| URL_SAFE_NO_PAD.decode(part).is_ok_and(|b| b.len() == SECRET_BYTES);
        if parts.next().is_some() || !fits(family) || !fits(secret) {
            return None;
        }
        let session_id = Uuid::try_parse(session).ok()?;
        Some(Self { session_id, family: family.to_owned(), secret: secret.to_owned() })
    }

    /// The session it belongs to, if it is genuine.
    #[must_use]
    pub fn session_id(&self) -> Uuid {
        self.session_id
    }

    /// What the client is given.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}.{}.{}", self.session_id, self.family, self.secret)
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshToken({})", self.session_id)
    }
}

/// A session with the refresh token that continues it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Whose it is, in which role, by the identity provider's word.
    pub actor: Actor,
    /// What continues it.
    pub refresh: RefreshToken,
}

/// What a refresh came to.
#[derive(Clone, Debug)]
pub enum Renewal {
    /// The session goes on with a new refresh token.
    Renewed(Opened),
    /// The token had been used before: its session, of this user, has ended.
    Reused(Uuid),
    /// There is no such token (any more).
    Unknown,
}

/// What revoking a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It has ended.
    Revoked,
    /// There was none (any more).
    Absent,
    /// It is somebody else's, and goes on.
    Foreign,
}

/// A session as its user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimes {
    /// Its id.
    pub id: Uuid,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it was last renewed.
    pub used_at: DateTime<Utc>,
}

/// The sessions of all users. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    redis: Redis,
}

impl Sessions {
    /// The sessions in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Opens a session that ends by itself after `lifetime`.
    ///
    /// # Errors
    /// If Redis does not take it.
    pub async fn open(
        &self,
        user_id: Uuid,
        role: Role,
        lifetime: Duration,
    ) -> Result<Opened, RedisAway> {
        let id = Uuid::now_v7();
        let refresh = RefreshToken::first(id);
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let script = Script::new(OPEN);
        let mut call = script.key(format!("{SESSION}{id}"));
        call.key(format!("{SESSIONS_OF}{user_id}"))
            .arg(id.to_string())
            .arg(role.as_str())
            .arg(hash(&refresh.family))
            .arg(hash(&refresh.secret))
            .arg(Utc::now().timestamp_millis())
            .arg(lifetime)
            .arg(SESSIONS_PER_USER)
            .arg(SESSION)
            .arg(user_id.to_string());
        self.redis.run::<i64>(&call).await?;
        Ok(Opened { actor: Actor { user_id, role, session_id: Some(id) }, refresh })
    }

    /// Whose session it is, if it goes on.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn owner(&self, session_id: Uuid) -> Result<Option<Uuid>, RedisAway> {
        let script = Script::new(OWNER);
        let call = script.key(format!("{SESSION}{session_id}"));
        let user: Option<String> = self.redis.run(&call).await?;
        Ok(user.and_then(|user| Uuid::try_parse(&user).ok()))
    }

    /// Renews a session: `token` has been used up then.
    ///
    /// # Errors
    /// If Redis does not answer; the token may have been used up all the same.
    pub async fn renew(&self, token: &RefreshToken) -> Result<Renewal, RedisAway> {
        let (id, refresh) = (token.session_id, token.next());
        let script = Script::new(ROTATE);
        let mut call = script.key(format!("{SESSION}{id}"));
        call.arg(hash(&token.family))
            .arg(hash(&token.secret))
            .arg(hash(&refresh.secret))
            .arg(Utc::now().timestamp_millis())
            .arg(id.to_string())
            .arg(SESSIONS_OF);
        let answer: Vec<String> = self.redis.run(&call).await?;
        let answer: Vec<&str> = answer.iter().map(String::as_str).collect();
        Ok(match answer.as_slice() {
            ["renewed", user, role] => match (Uuid::try_parse(user), Role::parse(role)) {
                (Ok(user_id), Ok(role)) => {
                    let actor = Actor { user_id, role, session_id: Some(id) };
                    Renewal::Renewed(Opened { actor, refresh })
                }
                (Err(_), _) | (_, Err(_)) => Renewal::Unknown,
            },
            ["reused", user] => Uuid::try_parse(user).map_or(Renewal::Unknown, Renewal::Reused),
            _ => Renewal::Unknown,
        })
    }

    /// Whether a session goes on.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn goes_on(&self, session_id: Uuid) -> Result<bool, RedisAway> {
        self.redis.exists(&format!("{SESSION}{session_id}")).await
    }

    /// Ends a session of a user.
    ///
    /// # Errors
    /// If Redis does not answer; the session may have ended all the same.
    pub async fn revoke(&self, user_id: Uuid, id: Uuid) -> Result<Revocation, RedisAway> {
        let script = Script::new(REVOKE);
        let mut call = script.key(format!("{SESSION}{id}"));
        call.key(format!("{SESSIONS_OF}{user_id}")).arg(id.to_string()).arg(user_id.to_string());
        let answer: String = self.redis.run(&call).await?;
        Ok(match answer.as_str() {
            "revoked" => Revocation::Revoked,
            "foreign" => Revocation::Foreign,
            _ => Revocation::Absent,
        })
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// If Redis does not answer; they may have ended all the same.
    pub async fn revoke_all(&self, user_id: Uuid) -> Result<(), RedisAway> {
        let script = Script::new(REVOKE_ALL);
        let mut call = script.key(format!("{SESSIONS_OF}{user_id}"));
        call.arg(SESSION);
        self.redis.run::<i64>(&call).await.map(drop)
    }

    /// A user's sessions, the newest first.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn of_user(&self, user_id: Uuid) -> Result<Vec<SessionTimes>, RedisAway> {
        let script = Script::new(LIST);
        let mut call = script.key(format!("{SESSIONS_OF}{user_id}"));
        call.arg(SESSION);
        let found: Vec<(String, i64, i64)> = self.redis.run(&call).await?;
        let moment = |at: i64| DateTime::from_timestamp_millis(at).unwrap_or_default();
        let session = |(id, created, used): (String, i64, i64)| {
            Some(SessionTimes {
                id: Uuid::try_parse(&id).ok()?,
                created_at: moment(created),
                used_at: moment(used),
            })
        };
        Ok(found.into_iter().filter_map(session).collect())
    }
}

fn random() -> String {
    // UUIDs of version 4 come from the operating system's generator, 122 bits each.
    let halves = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()];
    URL_SAFE_NO_PAD.encode(halves.as_flattened())
}

/// SHA-256 without a salt: what is hashed has 244 random bits.
fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_read_as_it_was_given_and_nothing_else_is_one() {
        let token = RefreshToken::first(Uuid::now_v7());
        let text = token.reveal();
        assert_eq!(RefreshToken::parse(&text), Some(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        let (id, rest) = text.split_once('.').unwrap();
        let long = format!("{text}.x");
        for wrong in ["", ".", "a.b.c", id, rest, &text[..text.len() - 1], long.as_str()] {
            assert_eq!(RefreshToken::parse(wrong), None, "{wrong}");
        }
    }
}
