//! Who is asking: the bearer token of a request, made an actor.

use poem::Request;
use poem_openapi::SecurityScheme;
use poem_openapi::auth::Bearer;
use shared::domain::Actor;

use super::error::ApiError;
use crate::state::State;

/// A request by a known user.
#[derive(SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", checker = "check", rename = "bearer")]
pub struct Authenticated(pub Actor);

async fn check(request: &Request, bearer: Bearer) -> poem::Result<Actor> {
    let state = request.data::<State>().ok_or(ApiError::INTERNAL)?;
    state.tokens.verify(&bearer.token).map_err(|denied| {
        metrics::counter!("auth_failures_total", "reason" => "token").increment(1);
        tracing::debug!(%denied, "a bearer token was refused");
        ApiError::UNAUTHORIZED.into()
    })
}
