//! Stacks: the base images that apps are built and run on.

use axum::extract::State;
use berth_wire::api::{Problem, Stack, StackImage};
use berth_wire::code::Code;

use super::extract::{Json, Path};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::app::App;
use crate::registry::Repository;
use crate::store::{StoreError, stacks};

/// Every stack, newest first.
#[utoipa::path(get, path = "/v1/stacks", tag = "stacks", responses((status = 200, body = [Stack])))]
pub async fn list(State(app): State<App>, _: ApiCaller) -> Result<axum::Json<Vec<Stack>>, ApiError> {
    Ok(axum::Json(stacks::list(&mut *app.store.read().await?).await?))
}

/// Makes a name stand for an image that is in the registry. Later builds use it.
#[utoipa::path(put, path = "/v1/stacks/{name}", tag = "stacks", params(("name" = String, Path)),
    request_body = StackImage, responses((status = 200, body = Stack), (status = 422, body = Problem)))]
pub async fn put(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(name): Path<String>,
    Json(stack): Json<StackImage>,
) -> Result<axum::Json<Stack>, ApiError> {
    let valid = (1..=40).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !valid {
        return Err(ApiError::new(Code::A13, "a stack's name has 1 to 40 of a-z, 0-9 and -, e.g. berth-13"));
    }
    if stack.image.repository != format!("stacks/{name}") {
        let detail = format!("the image must be in the repository stacks/{name}; push it there first");
        return Err(ApiError::new(Code::A13, detail));
    }
    let (links, digest) = (app.registry.links().clone(), stack.image.digest.clone());
    let repository = Repository::Stack(name.clone());
    let stored = tokio::task::spawn_blocking(move || links.digests(&repository).contains(&digest)).await;
    if !stored.map_err(|e| ApiError::internal(&e))? {
        let detail = format!(
            "the registry has no {} in stacks/{name}; push the image there first",
            stack.image.digest
        );
        return Err(ApiError::new(Code::A12, detail));
    }
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    stacks::put(&mut tx, &name, &stack.image, now).await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(stack = %name, by = %caller.name, "stack imported");
    app.wakes.plan();
    Ok(axum::Json(Stack { name, image: stack.image, imported_at: now }))
}
