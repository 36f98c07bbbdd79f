//! Query parameters: each known, and there once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::refused::Refused;

/// The names that each verb takes in its query, as the description has them.
pub(super) struct Taken(BTreeMap<(String, Method), BTreeSet<String>>);

impl Taken {
    pub(super) fn of(description: &OpenApi) -> Self {
        let names = |operation: &Operation| {
            let parameters = operation.parameters.iter().flatten();
            let written_here = parameters.filter_map(|parameter| match parameter {
                RefOr::T(parameter) => Some(parameter),
                RefOr::Ref(_) => None,
            });
            let in_query = written_here.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
            in_query.map(|parameter| parameter.name.clone()).collect()
        };
        let verbs = description.paths.paths.iter().flat_map(|(path, item)| {
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::DELETE, &item.delete),
            ];
            let there = operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)));
            there.map(|(method, operation)| ((path.clone(), method), names(operation)))
        });
        Self(verbs.collect())
    }

    fn takes(&self, path: &str, method: &Method, name: &str) -> bool {
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        self.0.get(&(path.to_owned(), method)).is_some_and(|names| names.contains(name))
    }
}

/// Refuses what no verb reads: whoever sends it believes that it says which account, or that nothing is to be done.
pub(super) async fn known_only(
    State(taken): State<Arc<Taken>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if let (Some(path), Some(query)) = (&path, request.uri().query()) {
        let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        if !names.all(|name| taken.takes(path.as_str(), request.method(), &name)) {
            return Err(Refused::ParameterInvalid("of this request"));
        }
    }
    Ok(next.run(request).await)
}

/// The parameters of a query, decoded, of those in `names`.
///
/// # Errors
/// [`Refused::ParameterInvalid`] where one is unknown or there twice.
pub(super) fn parameters(
    query: Option<&str>,
    names: &[&'static str],
) -> Result<BTreeMap<&'static str, String>, Refused> {
    let mut found = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let known = names.iter().find(|known| **known == name);
        let known = *known.ok_or(Refused::ParameterInvalid("of this request"))?;
        if found.insert(known, value.into_owned()).is_some() {
            return Err(Refused::ParameterInvalid(known));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_and_there_once() {
        let read = |query| parameters(query, &["from", "to"]).ok();
        assert_eq!(read(None), Some(BTreeMap::new()));
        assert_eq!(read(Some("fr%6fm=a+b")), Some(BTreeMap::from([("from", "a b".to_owned())])));
        for query in ["from=a&from=a", "from=a&%66rom=b", "other=1", "From=a"] {
            assert_eq!(read(Some(query)), None, "{query}");
        }
    }
}
