//! References to other variables in values of a container, as the kubelet replaces them.

use std::collections::BTreeSet;

/// `$(NAME)` is what `known` has for it, `$$` a dollar sign; what is unknown stays as it is
/// (k8s.io/kubernetes third_party/forked/golang/expansion).
pub fn expand<'v>(value: &str, mut known: impl FnMut(&str) -> Option<&'v str>) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = behind;
        } else if let Some((name, behind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match known(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = behind;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

/// The variables that a value refers to.
pub fn references(value: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    expand(value, |name| {
        names.insert(name.to_owned());
        None
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let known = |name: &str| match name {
            "HOST" => Some("proxy"),
            "PORT" => Some("3128"),
            _ => None,
        };
        for (value, expected) in [
            ("http://$(HOST):$(PORT)", "http://proxy:3128"),
            ("$$(HOST) $(UNKNOWN) $", "$(HOST) $(UNKNOWN) $"),
            ("$(HOST", "$(HOST"),
            ("$x", "$x"),
        ] {
            assert_eq!(expand(value, known), expected);
        }
        assert_eq!(references("$(B)$$(C)$(A)$(B)"), ["A".to_owned(), "B".to_owned()].into());
    }
}
