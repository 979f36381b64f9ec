//! The user's own profile. Only the preferences can be written here.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Serialize};
use shared::domain::{self, Actor, Change, Preferences};
use shared::store::Entity;

use super::auth::Authenticated;
use super::body::JsonBody;
use super::envelope::{ReadMeta, WriteMeta};
use super::error::ApiError;
use super::ready::Ready;
use super::shell::{RequestId, Traceparent};
use super::written::{Accepted, Buffered, Changed, operation, submit};
use crate::permission::Permission;
use crate::reads;
use crate::shapes::{JsonObject, ProfileView};
use crate::state::State;

/// The fields of a profile that its user can write.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct ProfileChange {
    /// Any JSON object of up to 8 KiB. It replaces the one before as a whole.
    preferences: JsonObject,
}

impl ProfileChange {
    fn parse(self) -> Result<Preferences, ApiError> {
        Preferences::try_from(self.preferences.0)
            .map_err(|invalid| ApiError::field("preferences", invalid.to_string()))
    }
}

/// A profile after a write.
#[derive(Serialize, Object)]
pub struct ProfileWritten {
    /// The profile.
    data: ProfileView,
    /// About the answer.
    meta: WriteMeta,
}

/// A profile, as it was read.
#[derive(Serialize, Object)]
pub struct ProfileRead {
    /// The profile.
    data: ProfileView,
    /// About the answer.
    meta: ReadMeta,
}

/// What a read is answered with.
#[derive(ApiResponse)]
pub enum Read {
    /// The profile.
    #[oai(status = 200)]
    Found(Ready<ProfileRead>, #[oai(header = "X-Data-Source")] String),
}

/// The routes of the profile.
pub struct ProfileApi;

#[OpenApi(prefix_path = "/api/v1")]
impl ProfileApi {
    /// Read your profile.
    #[oai(path = "/profile", method = "get", operation_id = "readProfile")]
    async fn read(
        &self,
        #[oai(scope = "Permission::ProfileRead")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Read, ApiError> {
        let found = reads::profile(&state, user.0.user_id).await?;
        let meta = ReadMeta::now(request.0, found.source, found.stale);
        let source = found.source.as_str().to_owned();
        Ok(Read::Found(ProfileRead { data: found.view, meta }.into(), source))
    }

    /// Replace the fields of your profile that you can write.
    #[oai(path = "/profile", method = "put", operation_id = "replaceProfile")]
    async fn replace(
        &self,
        #[oai(scope = "Permission::ProfileWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        body: JsonBody<ProfileChange>,
    ) -> Result<Changed<ProfileWritten>, ApiError> {
        let change = Change::Profile(domain::ProfileChange::Put { preferences: body.0.parse()? });
        write(&state, user.0, change, request, trace).await
    }

    /// Change the fields of your profile that the body names.
    #[oai(path = "/profile", method = "patch", operation_id = "changeProfile")]
    async fn change(
        &self,
        #[oai(scope = "Permission::ProfileWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        body: JsonBody<ProfileChange>,
    ) -> Result<Changed<ProfileWritten>, ApiError> {
        let change = Change::Profile(domain::ProfileChange::Patch { preferences: body.0.parse()? });
        write(&state, user.0, change, request, trace).await
    }
}

async fn write(
    state: &State,
    actor: Actor,
    change: Change,
    request: RequestId,
    trace: Traceparent,
) -> Result<Changed<ProfileWritten>, ApiError> {
    let operation = operation(state, actor, change, request, trace);
    let asked = ProfileView::asked(&operation);
    Ok(match submit(state, operation).await? {
        Accepted::Committed { entity, meta } | Accepted::Repeated { entity, meta } => {
            let profile = entity.and_then(Entity::into_profile);
            let data = profile.as_ref().map_or(asked, ProfileView::of);
            Changed::Committed(ProfileWritten { data, meta }.into())
        }
        Accepted::Buffered(Buffered { location, meta, .. }) => {
            Changed::Buffered(ProfileWritten { data: asked, meta }.into(), location)
        }
    })
}
