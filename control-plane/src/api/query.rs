//! Query parameters that there are not: refused, so that `?limt=5` is not taken for no limit. Which there are is the
//! document's word; what a value may be is its handler's.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use berth_wire::code::Code;
use http::Method;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::problem::ApiError;

/// The names of the parameters of each documented route and method.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Arc<HashMap<(String, Method), Vec<String>>>);

impl Parameters {
    /// Those of a document.
    pub fn of(document: &OpenApi) -> Self {
        let mut all = HashMap::new();
        for (path, item) in &document.paths.paths {
            let operations = [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in operations {
                if let Some(operation) = operation {
                    all.insert((path.clone(), method), names(operation));
                }
            }
        }
        Self(Arc::new(all))
    }

    fn refusal(&self, request: &Request) -> Option<ApiError> {
        let path = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let known = self.0.get(&(path, method))?;
        let Ok(Query(asked)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
            return Some(ApiError::new(Code::A21, "the query is not of the form name=value&name=value"));
        };
        let (unknown, _) = asked.into_iter().find(|(name, _)| !known.contains(name))?;
        let unknown: String = unknown.chars().take(40).collect();
        let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Some(ApiError::new(Code::A21, format!("there is no parameter {unknown:?} here; there is: {there}")))
    }
}

/// The names of an operation's query parameters.
pub fn names(operation: &Operation) -> Vec<String> {
    let named = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
        _ => None,
    };
    operation.parameters.iter().flatten().filter_map(named).collect()
}

/// The layer below authorisation.
pub async fn check(State(parameters): State<Parameters>, request: Request, next: Next) -> Response {
    match parameters.refusal(&request) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}
