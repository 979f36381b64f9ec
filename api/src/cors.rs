//! Which pages of other origins may call from a browser (CORS).
//!
//! poem's middleware is not used: it leaves `Vary` out, refuses pages of our own origin, and does
//! not see the answers that are made around it.

use std::net::Ipv6Addr;

use poem::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    ORIGIN, VARY,
};
use poem::http::{HeaderMap, HeaderValue, Method, StatusCode};
use poem::{Request, Response};
use shared::settings::SettingsError;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, If-Match, Idempotency-Key, X-Request-ID, traceparent",
);
const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "X-Request-ID, ETag, Location, Retry-After, X-Data-Source, Idempotency-Replayed",
);
/// Seconds for which a browser may remember a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may call. With none, `Origin` is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
}

/// What a request's `Origin` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No browser, a page of our own, or nobody asked us to tell.
    Unremarkable,
    /// A page that may call, and its origin.
    Allowed(HeaderValue),
    /// A page that may not.
    Refused,
}

impl Cors {
    /// Reads `CORS_ORIGINS`: origins as browsers write them, with commas between.
    ///
    /// # Errors
    /// If one is not the origin that a browser would send.
    pub fn new(origins: &str) -> Result<Self, SettingsError> {
        let parse = |text: &str| {
            HeaderValue::from_str(text).ok().filter(|_| is_origin(text)).ok_or_else(|| {
                SettingsError::Unusable {
                    variable: "CORS_ORIGINS",
                    problem: "expected origins as browsers send them (https://app.example, \
                              http://localhost:3000), with commas between; no *, path, trailing \
                              slash, capitals or default port"
                        .to_owned(),
                }
            })
        };
        let texts = origins.split(',').map(str::trim);
        let origins = match origins.trim() {
            "" => Vec::new(),
            _ => texts.map(parse).collect::<Result<_, _>>()?,
        };
        Ok(Self { origins })
    }

    /// Who is calling.
    #[must_use]
    pub fn caller(&self, request: &Request) -> Caller {
        let mut origins = request.headers().get_all(ORIGIN).iter();
        match (self.origins.is_empty(), origins.next(), origins.next()) {
            (true, _, _) | (false, None, _) => Caller::Unremarkable,
            (false, Some(_), Some(_)) => Caller::Refused,
            (false, Some(origin), None) if self.origins.contains(origin) => {
                Caller::Allowed(origin.clone())
            }
            (false, Some(origin), None) if is_own(origin, request) => Caller::Unremarkable,
            (false, Some(_), None) => Caller::Refused,
        }
    }

    /// Tells the browser that the page may read an answer, if it may.
    pub fn mark(&self, caller: Caller, headers: &mut HeaderMap) {
        if !self.origins.is_empty() {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Caller::Allowed(origin) = caller {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        }
    }
}

/// The answer to the question of an allowed page's browser whether it may send a request; none if
/// that is not what is asked.
#[must_use]
pub fn preflight(caller: &Caller, request: &Request) -> Option<Response> {
    let asked = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    match caller {
        Caller::Allowed(_) if asked => Some(
            Response::builder()
                .status(StatusCode::NO_CONTENT)
                .header(ACCESS_CONTROL_ALLOW_METHODS, METHODS)
                .header(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS)
                .header(ACCESS_CONTROL_MAX_AGE, MAX_AGE)
                .finish(),
        ),
        Caller::Allowed(_) | Caller::Unremarkable | Caller::Refused => None,
    }
}

/// Whether a browser could send this: scheme, host and port in their one canonical form.
fn is_origin(text: &str) -> bool {
    let (authority, default_port) = match text.split_once("://") {
        Some(("https", authority)) => (authority, 443),
        Some(("http", authority)) => (authority, 80),
        Some(_) | None => return false,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    let is_canonical = |text: &str| {
        text.parse::<u16>().is_ok_and(|port| port != default_port && port.to_string() == text)
    };
    is_host(host) && port.is_none_or(is_canonical)
}

fn is_host(host: &str) -> bool {
    let known = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_')
    };
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|a| a.to_string() == address),
        None => !host.is_empty() && host.bytes().all(known),
    }
}

/// Whether a page of our own is calling. The scheme is not compared: TLS ends before us.
fn is_own(origin: &HeaderValue, request: &Request) -> bool {
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let own = |authority: &str| {
        host.is_some_and(|host| !host.is_empty() && host.eq_ignore_ascii_case(authority.as_bytes()))
    };
    let origin = origin.to_str().unwrap_or_default();
    ["https://", "http://"].into_iter().filter_map(|scheme| origin.strip_prefix(scheme)).any(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_would_send_is_an_origin() {
        for good in [
            "",
            " ",
            "https://app.example",
            "http://localhost:3000",
            "https://a.example, https://b.example:8443",
            "http://[::1]:3000",
            "http://127.0.0.1",
        ] {
            Cors::new(good).unwrap();
        }
        for bad in [
            "*",
            "https://*.example",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?x",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:",
            "https://app.example:port",
            "https://app.example:99999",
            "https://user@app.example",
            "https://",
            "https://:8443",
            "app.example",
            "ftp://app.example",
            "null",
            "https://a.example,",
            "https://a.example https://b.example",
            "https://ä.example",
        ] {
            let refused = Cors::new(bad).map(|_| ()).unwrap_err().to_string();
            assert!(refused.starts_with("CORS_ORIGINS"), "{bad}: {refused}");
        }
    }
}
