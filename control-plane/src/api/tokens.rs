//! API tokens of the caller's team.

use axum::extract::State;
use berth_wire::api::{CreatedToken, NewToken, Problem, Token};
use berth_wire::code::Code;
use berth_wire::id::TokenId;
use http::StatusCode;

use super::extract::{Json, Path};
use super::problem::ApiError;
use crate::access::ApiCaller;
use crate::admin::{AdminError, token_make};
use crate::app::App;
use crate::store::{StoreError, tokens};

/// The team's tokens, oldest first.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, body = [Token])))]
pub async fn list(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
) -> Result<axum::Json<Vec<Token>>, ApiError> {
    Ok(axum::Json(tokens::list(&mut *app.store.read().await?, caller.team).await?))
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = CreatedToken), (status = 422, body = Problem)))]
pub async fn create(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, axum::Json<CreatedToken>), ApiError> {
    let mut tx = app.store.begin().await?;
    let made = token_make(&mut tx, caller.team, &new.name, app.clock.now()).await.map_err(|e| match e {
        AdminError::Store(e) => ApiError::from(e),
        other => ApiError::new(Code::A13, other.to_string()),
    })?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(token = %made.token.id, by = %caller.name, "token created");
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// Deletes a token: it is refused from now on.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub async fn delete(
    State(app): State<App>,
    ApiCaller(caller): ApiCaller,
    Path(id): Path<TokenId>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.store.begin().await?;
    if !tokens::delete(&mut tx, caller.team, id).await? {
        return Err(ApiError::new(Code::A12, format!("there is no token {id}; `berth tokens` lists them")));
    }
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(token = %id, by = %caller.name, "token deleted");
    Ok(StatusCode::NO_CONTENT)
}
