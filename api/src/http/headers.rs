//! Headers that every answer has: they forbid browsers and caches what could do harm.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use poem::Request;
use poem::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS,
};
use poem::http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
const A_YEAR: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// Sets what every answer has. What has a policy of its own keeps it.
pub fn protect(headers: &mut HeaderMap, is_https: bool) {
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOTHING);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is_https {
        headers.insert(STRICT_TRANSPORT_SECURITY, A_YEAR);
    }
}

/// Whether the client came by TLS, as the proxy in front of us tells. A client that lies harms only
/// itself.
pub fn is_https(request: &Request) -> bool {
    let told = request.headers().get("x-forwarded-proto").map(HeaderValue::as_bytes);
    told.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

/// The policy of a page that has all its scripts within: those, by their hashes, and no others. The
/// Swagger UI makes style attributes as it goes and draws its icons from `data:`.
pub fn page_policy(html: &str) -> String {
    let hashes: String = inline_scripts(html)
        .map(|script| format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script))))
        .collect();
    format!(
        "default-src 'none'; script-src{hashes}; style-src 'unsafe-inline'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// What stands between the tags. Within a script, `<script` is text.
fn inline_scripts(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        let (_, from_tag) = rest.split_once("<script")?;
        let (_, from_script) = from_tag.split_once('>')?;
        let (script, after) = from_script.split_once("</script>")?;
        rest = after;
        Some(script)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_found_with_all_their_space() {
        let html = "<script a=\"b\">one </script><p><script>\n two '<script>'</script></html>";
        assert_eq!(inline_scripts(html).collect::<Vec<_>>(), ["one ", "\n two '<script>'"]);
    }
}
