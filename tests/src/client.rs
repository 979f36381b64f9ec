//! A client of the API: one user's requests, and what was answered.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// Sends requests as one user, or as nobody. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// A client of the API at `base`, with this bearer token.
    #[must_use]
    pub fn new(http: reqwest::Client, base: impl Into<String>, token: Option<String>) -> Self {
        Self { http, base: base.into(), token }
    }

    /// The bearer token.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// GET.
    ///
    /// # Panics
    /// Like all of these: when there is no answer at all.
    pub async fn get(&self, path: &str) -> Answer {
        self.answered(Method::GET, path, None).await
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.answered(Method::POST, path, Some(body)).await
    }

    /// PUT of a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.answered(Method::PUT, path, Some(body)).await
    }

    /// PATCH with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.answered(Method::PATCH, path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.answered(Method::DELETE, path, None).await
    }

    /// Any request; an error when there was no answer, as when the api is killed meanwhile.
    ///
    /// # Errors
    /// What the connection came to.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<Answer> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        Answer::to(request).await
    }

    /// A request with the token, to be given headers and a body of its own: see [`Answer::to`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn answered(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        match self.send(method.clone(), path, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path} got no answer: {error:?}"),
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; a string if it is not JSON, null if it is empty.
    pub body: Value,
    /// From the first byte sent to the last byte received.
    pub took: Duration,
}

impl Answer {
    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// What the connection came to.
    pub async fn to(request: RequestBuilder) -> reqwest::Result<Self> {
        let started = Instant::now();
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let took = started.elapsed();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| text())
        };
        Ok(Self { status, headers, body, took })
    }

    /// Insists on a status.
    ///
    /// # Panics
    /// With the whole answer, when it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// The value at a JSON pointer such as `/data/id`; null when there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at a JSON pointer.
    ///
    /// # Panics
    /// With the whole answer, when there is none.
    #[must_use]
    #[track_caller]
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_else(|| panic!("no text at {pointer}: {self:#?}"))
    }

    /// A header's text; empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
