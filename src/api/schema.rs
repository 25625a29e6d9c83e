//! Small steps through a JSON schema, for the bounds that reach adds to the schemas of core/v1 types.

use schemars::Schema;
use serde_json::{Map, Value};

/// The object at a path of keys below a schema.
///
/// # Panics
/// If the path is not there: the schemas are compiled in, so that is a mistake in reach that the
/// first test run shows.
pub fn at<'a>(schema: &'a mut Schema, path: &[&str]) -> &'a mut Map<String, Value> {
    child(schema.ensure_object(), path)
}

/// The object at a path of keys below an object.
///
/// # Panics
/// As [`at`].
pub fn child<'a>(mut object: &'a mut Map<String, Value>, path: &[&str]) -> &'a mut Map<String, Value> {
    for key in path {
        object = object
            .get_mut(*key)
            .and_then(Value::as_object_mut)
            .unwrap_or_else(|| panic!("no `{key}` in the schema"));
    }
    object
}

/// The names of the properties of a schema.
#[must_use]
pub fn properties(schema: &Schema) -> Vec<String> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}
