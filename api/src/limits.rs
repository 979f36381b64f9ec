//! How often one client may ask, by user and by address.
//!
//! Each limit is a token bucket for each key, in memory: a restart forgets it, and each api process
//! of a host counts for itself. Buckets that have filled up again are dropped every second, and
//! there is a limit on how many there may be in between.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use poem::Addr;
use shared::settings::SettingsError;
use thiserror::Error;
use uuid::Uuid;

use crate::metric;
use crate::settings::LimitSettings;

/// Keys of one limit that are remembered at once. A client needs another key (an address block, a
/// signed token) for each, so more than this within a second is an attack; until the next sweep,
/// all are refused then.
const KEYS: usize = 100_000;
/// Pause between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Beyond a million in a second, the pause between two requests is too short to be counted.
const MAX_RATE: u32 = 1_000_000;

/// Somebody who asks too often.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("too many requests")]
pub struct Limited {
    /// Seconds after which the same will be let in; 1 at the least.
    pub retry_after_seconds: u64,
}

/// The limits of this process.
#[derive(Debug)]
pub struct Limits {
    user: Option<Limit<Uuid>>,
    address: Option<Limit<IpAddr>>,
    login: Option<Limit<IpAddr>>,
}

impl Limits {
    /// Limits as the settings have them.
    ///
    /// # Errors
    /// If one is too high to be counted.
    pub fn new(settings: &LimitSettings) -> Result<Self, SettingsError> {
        let user = rate("RATE_LIMIT_RPS", settings.rate_limit_rps)?;
        let address = rate("RATE_LIMIT_ADDRESS_RPS", settings.rate_limit_address_rps)?;
        let login = rate("LOGIN_RATE_LIMIT_PER_MINUTE", settings.login_rate_limit_per_minute)?;
        let Some(user) = user else {
            return Ok(Self { user: None, address: None, login: None });
        };
        let with_burst = |rate: NonZeroU32| {
            Quota::per_second(rate)
                .allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1)))
        };
        Ok(Self {
            user: Some(Limit::new("user", with_burst(user))),
            address: address.map(|rate| Limit::new("address", with_burst(rate))),
            login: login.map(|rate| Limit::new("login", Quota::per_minute(rate))),
        })
    }

    /// Counts a request of a user.
    ///
    /// # Errors
    /// If the user asks too often.
    pub fn check_user(&self, user: Uuid) -> Result<(), Limited> {
        self.user.as_ref().map_or(Ok(()), |limit| limit.check(&user))
    }

    /// Counts a request from a peer.
    ///
    /// # Errors
    /// If its address asks too often.
    pub fn check_address(&self, peer: &Addr) -> Result<(), Limited> {
        self.address.as_ref().map_or(Ok(()), |limit| limit.check(&block(peer)))
    }

    /// Counts an attempt to log in, or to refresh a token, from a peer.
    ///
    /// # Errors
    /// If its address tries too often.
    pub fn check_login(&self, peer: &Addr) -> Result<(), Limited> {
        self.login.as_ref().map_or(Ok(()), |limit| limit.check(&block(peer)))
    }

    /// Forgets, again and again, whom no limit holds back any more. Never returns.
    pub async fn keep_sweeping(&self) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        self.user.iter().for_each(Limit::sweep);
        self.address.iter().for_each(Limit::sweep);
        self.login.iter().for_each(Limit::sweep);
    }
}

#[derive(Debug)]
struct Limit<K: Hash + Eq + Clone> {
    name: &'static str,
    buckets: DefaultKeyedRateLimiter<K>,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(name: &'static str, quota: Quota) -> Self {
        Self { name, buckets: RateLimiter::keyed(quota) }
    }

    fn check(&self, key: &K) -> Result<(), Limited> {
        let wait = if self.buckets.len() >= KEYS {
            SWEEP_INTERVAL
        } else {
            match self.buckets.check_key(key) {
                Ok(()) => return Ok(()),
                Err(until) => until.wait_time_from(DefaultClock::default().now()),
            }
        };
        metrics::counter!(metric::HTTP_RATE_LIMITED.name, "limit" => self.name).increment(1);
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Err(Limited { retry_after_seconds: whole.max(1) })
    }

    fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// A rate, or none for 0.
fn rate(variable: &'static str, rate: u32) -> Result<Option<NonZeroU32>, SettingsError> {
    if rate > MAX_RATE {
        let problem = format!("must be {MAX_RATE} at the most");
        return Err(SettingsError::Unusable { variable, problem });
    }
    Ok(NonZeroU32::new(rate))
}

/// Whom an address is counted as. Anybody with an IPv6 address has the /64 it is in.
fn block(peer: &Addr) -> IpAddr {
    // We listen on TCP alone, so there is always an address.
    let address = peer.as_socket_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip());
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user: u32, address: u32, login: u32) -> Limits {
        Limits::new(&LimitSettings {
            rate_limit_rps: user,
            rate_limit_address_rps: address,
            login_rate_limit_per_minute: login,
        })
        .unwrap()
    }

    fn peer(text: &str) -> Addr {
        Addr::SocketAddr(text.parse().unwrap())
    }

    #[test]
    fn logins_of_one_address_are_limited_and_told_when_to_come_back() {
        let limits = limits(1000, 0, 3);
        let (one, other) = (peer("192.0.2.1:1000"), peer("192.0.2.2:1000"));
        for _ in 0..3 {
            limits.check_login(&one).unwrap();
        }
        let limited = limits.check_login(&peer("192.0.2.1:2000")).unwrap_err();
        assert_eq!(limited.retry_after_seconds, 20);
        limits.check_login(&other).unwrap();
        limits.check_address(&one).unwrap();
    }

    #[test]
    fn addresses_are_counted_by_what_one_client_has() {
        for (address, counted_as) in [
            ("192.0.2.1:1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
            ("[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::"),
            ("[2001:db8:1:2::]:1", "2001:db8:1:2::"),
            ("[2001:db8:1:3::1]:1", "2001:db8:1:3::"),
        ] {
            assert_eq!(block(&peer(address)).to_string(), counted_as);
        }
    }

    #[test]
    fn zero_users_per_second_turns_all_limits_off() {
        let limits = limits(0, 1, 1);
        for _ in 0..100 {
            limits.check_login(&peer("192.0.2.1:1")).unwrap();
            limits.check_address(&peer("192.0.2.1:1")).unwrap();
        }
    }

    #[test]
    fn keys_are_forgotten_and_never_more_than_the_limit() {
        let limits = limits(1000, 0, 0);
        let limit = limits.user.as_ref().unwrap();
        let refused = (0..KEYS as u128 + 10).filter(|n| limit.check(&Uuid::from_u128(*n)).is_err());
        let refused = refused.count();
        assert_eq!((refused, limit.buckets.len()), (10, KEYS));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !limit.buckets.is_empty() {
            limits.sweep();
            assert!(std::time::Instant::now() < deadline, "{} keys", limit.buckets.len());
        }
        limit.check(&Uuid::nil()).unwrap();
    }
}
