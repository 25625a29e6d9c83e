//! CEL rules of a schema, evaluated for an object (`x-kubernetes-validations` of a CRD).
//!
//! kube-cel compiles the rules and has the functions of Kubernetes, and an evaluator too; but that has each `matches` compile its
//! regular expression anew, which takes many times as long as all the rest, and turns an object into CEL once for each of its
//! levels. A rule here has a message and is about an object as it is: no `messageExpression`, no `oldSelf`, no `fieldPath`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value as Cel};
use kube_cel::{CompiledSchema, KubeCelExt as _};
use regex::Regex;
use serde_json::Value;

use super::validate::FieldError;

thread_local! {
    // `Context` is `Send` but not `Sync`.
    static FUNCTIONS: Context<'static> = {
        let mut functions = Context::default().with_all();
        functions.add_function("matches", matches);
        functions
    };
}

/// The regular expressions of all rules.
static EXPRESSIONS: LazyLock<RwLock<HashMap<Arc<String>, Regex>>> = LazyLock::new(RwLock::default);

/// Adds what the rules have against an object, in the order of its fields.
pub fn check(schema: &CompiledSchema, object: &Value, errors: &mut Vec<FieldError>) {
    FUNCTIONS.with(|functions| walk(functions, schema, object, "", errors));
}

fn walk(
    functions: &Context<'_>,
    schema: &CompiledSchema,
    value: &Value,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if !schema.validations.is_empty() {
        let mut scope = functions.new_inner_scope();
        scope.add_variable_from_value("self", cel(value));
        for rule in &schema.validations {
            let message = match rule.as_ref().map(|rule| (rule, rule.program.execute(&scope))) {
                Ok((_, Ok(Cel::Bool(true)))) => continue,
                Ok((rule, Ok(_))) => rule.rule.message.clone().unwrap_or_else(|| rule.rule.rule.clone()),
                // The error would show values.
                Ok((rule, Err(_))) => format!("the rule {:?} cannot be evaluated", rule.rule.rule),
                Err(error) => error.to_string(),
            };
            errors.push(FieldError { path: path.to_owned(), message });
        }
    }
    match value {
        Value::Object(members) => {
            for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                let additional = schema.additional_properties.as_deref();
                if let Some(schema) = schema.properties.get(key).or(additional) {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(functions, schema, value, &path, errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (index, value) in items.iter().enumerate() {
                    walk(functions, schema, value, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

/// A value of JSON as one of CEL. A member that is `null` is absent: the API server prunes it before it looks.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(cel).collect())),
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(key, value)| (Key::String(Arc::new(key.clone())), cel(value)));
            Cel::Map(Map { map: Arc::new(members.collect()) })
        }
    }
}

/// `matches` of CEL, with each expression compiled once.
fn matches(
    context: &FunctionContext<'_, '_>,
    This(text): This<Arc<String>>,
    expression: Arc<String>,
) -> Result<bool, ExecutionError> {
    let known = EXPRESSIONS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(&expression) {
        return Ok(known.is_match(&text));
    }
    drop(known);
    let compiled = Regex::new(&expression).map_err(|error| context.error(error.to_string()))?;
    let is_match = compiled.is_match(&text);
    let mut known = EXPRESSIONS.write().unwrap_or_else(PoisonError::into_inner);
    known.insert(expression, compiled);
    Ok(is_match)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::validate::validate;
    use crate::api::{PresetKind, crd};
    use serde_json::json;

    #[test]
    fn null_is_absent() {
        let preset =
            |env: Value| json!({"spec": {"env": env, "volumes": null, "selector": {"matchLabels": null}}});
        let both = json!([{"name": "A", "value": "b", "valueFrom": null, "separator": null}]);
        assert_eq!(validate(PresetKind::Namespaced, &preset(both)), []);
        let errors = validate(PresetKind::Namespaced, &preset(Value::Null));
        assert!(errors.len() == 1 && errors[0].message.starts_with("the preset is empty"), "{errors:?}");
    }

    /// What the evaluator here leaves out is in no rule.
    #[test]
    fn the_rules_of_the_crds_compile_and_have_a_message_and_nothing_else() {
        fn rules(schema: &Value, found: &mut usize) {
            match schema {
                Value::Object(members) => {
                    for rule in
                        members.get(crate::api::rules::KEY).and_then(Value::as_array).into_iter().flatten()
                    {
                        *found += 1;
                        let keys: Vec<&str> = rule.as_object().unwrap().keys().map(String::as_str).collect();
                        assert!(keys == ["message", "rule"], "{rule}");
                        assert!(!rule["rule"].as_str().unwrap().contains("oldSelf"), "{rule}");
                    }
                    members.values().for_each(|member| rules(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
                _ => {}
            }
        }
        fn compiled(schema: &CompiledSchema) -> usize {
            assert!(schema.compilation_errors().is_empty());
            let branches = [&schema.all_of, &schema.one_of, &schema.any_of].into_iter().flatten();
            assert_eq!(branches.map(compiled).sum::<usize>(), 0);
            let below = schema
                .properties
                .values()
                .chain(schema.items.as_deref())
                .chain(schema.additional_properties.as_deref());
            schema.validations.len() + below.map(compiled).sum::<usize>()
        }
        for kind in PresetKind::ALL {
            let schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
            let mut found = 0;
            rules(&schema, &mut found);
            assert!(found > 10);
            assert_eq!(
                compiled(&kube_cel::compile_schema(&schema)),
                found,
                "none is below what is not walked"
            );
        }
    }
}
