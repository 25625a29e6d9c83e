//! The variables of a container as the webhook would change it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::Failure;
use super::super::inject;
use super::super::input::{self, PresetInput};
use crate::clients::Environment;
use crate::inject::workload::workloads;
use crate::manifest;

/// The lists of containers, those first of which one is the default.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Reads a manifest with one pod or workload, injects it, and takes the variables of a container.
pub fn environment(
    file: &Path,
    container: Option<&str>,
    presets: &PresetInput,
) -> Result<Environment, Failure> {
    let files = input::files(&[PathBuf::from(file)])?;
    let lookup = presets.lookup()?;
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for file in &files {
        for result in inject::documents(file, &lookup) {
            match result {
                Ok(injected) => {
                    objects.extend(manifest::documents(&injected.text).iter().filter_map(|d| d.read().ok()?));
                }
                Err(error) => errors.push(error),
            }
        }
    }
    if !errors.is_empty() {
        return Err(Failure::Messages(errors));
    }
    let wrong = |message: String| Failure::Messages(vec![format!("{}: {message}", file.display())]);
    let found: Vec<_> = objects.iter().flat_map(workloads).collect();
    let workload = input::only(&found).map_err(wrong)?;
    let containers: Vec<&Value> =
        LISTS.iter().filter_map(|list| workload.pod["spec"][list].as_array()).flatten().collect();
    let names: Vec<&str> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
    let chosen = match container {
        Some(name) => containers.iter().find(|container| container["name"] == *name).ok_or_else(|| {
            wrong(format!("{} has no container {name}, only {}", workload.reference, names.join(", ")))
        })?,
        None => {
            containers.first().ok_or_else(|| wrong(format!("{} has no containers", workload.reference)))?
        }
    };
    if let ([first, others @ ..], None) = (&names[..], container)
        && !others.is_empty()
    {
        super::super::complain(&format!(
            "note: container {first} of {}; --container chooses another: {}",
            workload.reference,
            others.join(", ")
        ));
    }
    Ok(variables(chosen))
}

/// The variables that have a literal value. Others are left out, and named.
fn variables(container: &Value) -> Environment {
    let mut environment = Environment::default();
    if container["envFrom"].as_array().is_some_and(|sources| !sources.is_empty()) {
        super::super::complain("note: variables from envFrom are not known here and left out");
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let Some(name) = variable["name"].as_str() else { continue };
        if !variable["valueFrom"].is_null() {
            super::super::complain(&format!("note: {name} comes from elsewhere and is left out"));
            continue;
        }
        let value = expand(variable["value"].as_str().unwrap_or_default(), &environment);
        environment.set(name, value);
    }
    environment
}

/// `$(NAME)` is the value of a variable before, `$$` a dollar sign; what is unknown stays as it is
/// (k8s.io/kubernetes third_party/forked/golang/expansion).
fn expand(value: &str, known: &Environment) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = behind;
        } else if let Some((name, behind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match known.get(name) {
                Some(variable) => expanded.push_str(variable.value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = behind;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_from_elsewhere_is_left_out_and_one_from_nowhere_is_none() {
        let env = serde_json::json!({"env": [
            {"name": "a", "value": "1", "valueFrom": null}, {"name": "b", "valueFrom": {}}, {"name": "c"},
        ]});
        assert_eq!(variables(&env), [("a", "1"), ("c", "")].into_iter().collect());
    }

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let known: Environment = [("HOST", "proxy"), ("PORT", "3128")].into_iter().collect();
        for (value, expected) in [
            ("http://$(HOST):$(PORT)", "http://proxy:3128"),
            ("$$(HOST) $(UNKNOWN) $", "$(HOST) $(UNKNOWN) $"),
            ("$(HOST", "$(HOST"),
            ("$x", "$x"),
        ] {
            assert_eq!(expand(value, &known), expected);
        }
    }
}
