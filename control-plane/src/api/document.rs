//! What the generated OpenAPI document needs beside what the handlers say: names that are unique, the one way to sign
//! in, and the body of every error.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
};

use super::query;

/// Name of the security scheme.
const TOKEN: &str = "token";

/// The document before any handler is in it.
pub fn start() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Berth")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Push, run and watch apps. Errors are RFC 9457 problem documents with a stable code.",
        ))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// The document when all handlers are in it.
pub fn finish(mut document: OpenApi) -> OpenApi {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("berth_…").build();
    document
        .components
        .get_or_insert_with(Components::new)
        .add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
    document.security = Some(vec![SecurityRequirement::new::<_, _, String>(TOKEN, [])]);
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
            &mut item.head,
            &mut item.options,
            &mut item.trace,
        ];
        operations.into_iter().flatten().for_each(finish_operation);
    }
    document
}

/// Handlers are named for their verb only, as their file names the resource; here both are needed.
fn finish_operation(operation: &mut Operation) {
    let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
    let verb = operation.operation_id.take().unwrap_or_default();
    operation.operation_id = Some(format!("{tag}_{verb}"));
    let has_query = !query::names(operation).is_empty();
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response
            && let Some(content) = response.content.shift_remove("application/json")
        {
            let is_problem = content == RefOr::T(problem.clone());
            let kind = if is_problem { "application/problem+json" } else { "application/json" };
            response.content.insert(kind.to_owned(), content);
        }
    }
    let response = |description: &str| {
        let content = problem.clone();
        let response = ResponseBuilder::new().description(description);
        RefOr::T(response.content("application/problem+json", content).build())
    };
    let responses = &mut operation.responses.responses;
    if has_query {
        responses.insert(
            "400".to_owned(),
            response("A query parameter that there is not, or its value cannot be"),
        );
    }
    responses.insert("default".to_owned(), response("What went wrong, with a stable code"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_must_have_a_name_of_its_own_and_say_how_it_fails() {
        let document = crate::router::document();
        let document = serde_json::to_value(&document).unwrap();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{path} has no name"));
                assert!(names.insert(name.to_owned()), "{path}: {name} is taken");
                assert!(operation["responses"]["default"].is_object(), "{path}");
            }
            assert!(crate::access::access_of(path).is_some(), "{path} is open to nobody");
        }
        assert!(names.contains("apps_create"), "{names:?}");
    }
}
