//! The variables of a container as the webhook would change it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::Failure;
use super::super::inject;
use super::super::input::{self, PresetInput};
use crate::clients::Environment;
use crate::expansion::expand;
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
        let written = variable["value"].as_str().unwrap_or_default();
        let value = expand(written, |name| environment.get(name).map(|variable| variable.value));
        environment.set(name, value);
    }
    environment
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
}
