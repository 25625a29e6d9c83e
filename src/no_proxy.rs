//! One `no_proxy` list: how it is read, united and written.
//!
//! The variable has no standard. [`portable`] writes a list so that it means the same to every client that it
//! can; [`Union`] is for those who want what they wrote.

use std::collections::HashSet;

pub mod entry;
pub mod portable;

/// Above this many entries a set is quicker than comparing with each one.
const LINEAR: usize = 24;

/// The entries of a list as written: split at commas and white space, trimmed, without empty ones.
///
/// White space separates because people write it (and curl before 8.9 read it so); it is never emitted,
/// since most clients do not.
pub fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty())
}

/// The union of lists: entries in the order in which they were first seen, each once without regard to
/// ASCII case, in the spelling in which it was first seen. Only references to variables, `$(NAME)`, have a case.
#[derive(Clone, Debug, Default)]
pub struct Union<'a> {
    entries: Vec<&'a str>,
    // Lower-case entries, kept only once there are more than `LINEAR`.
    seen: HashSet<Box<str>>,
}

impl<'a> Union<'a> {
    /// Adds the entries of a list as written.
    pub fn add(&mut self, list: &'a str) {
        for entry in entries(list) {
            self.insert(entry);
        }
    }

    fn insert(&mut self, entry: &'a str) {
        if self.entries.len() < LINEAR {
            if self.entries.iter().any(|known| is_same(known, entry)) {
                return;
            }
        } else {
            if self.seen.is_empty() {
                self.seen = self.entries.iter().map(|known| lower(known)).collect();
            }
            if !self.seen.insert(lower(entry)) {
                return;
            }
        }
        self.entries.push(entry);
    }

    /// The list as it is emitted: commas, no white space.
    #[must_use]
    pub fn join(&self) -> String {
        self.entries.join(",")
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) && (one == other || !has_reference(one))
}

/// The same for all entries that are the same.
fn lower(entry: &str) -> Box<str> {
    if has_reference(entry) { entry.into() } else { entry.to_ascii_lowercase().into_boxed_str() }
}

fn has_reference(entry: &str) -> bool {
    entry.contains("$(")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn union(lists: &[&str]) -> String {
        let mut union = Union::default();
        for list in lists {
            union.add(list);
        }
        union.join()
    }

    #[test]
    fn commas_and_white_space_separate_and_only_commas_are_written() {
        assert_eq!(
            union(&[" .svc, .cluster.local\t10.0.0.0/8\n,, mysql "]),
            ".svc,.cluster.local,10.0.0.0/8,mysql"
        );
    }

    #[test]
    fn duplicates_go_without_regard_to_case_and_the_first_spelling_stays() {
        assert_eq!(union(&[".SVC,mysql", ".svc,MySQL,redis"]), ".SVC,mysql,redis");
        // Names of variables have a case.
        assert_eq!(union(&["$(extra).X", "$(EXTRA).X,$(extra).X"]), "$(extra).X,$(EXTRA).X");
    }

    #[test]
    fn long_lists_follow_the_same_rules() {
        let long: Vec<String> = (0..100).map(|n| format!("Host{n}")).collect();
        let long = long.join(",");
        assert_eq!(union(&[&long, &long.to_lowercase()]), long);
        let referring = format!("{long},$(Extra)");
        assert_eq!(union(&[&referring, "$(EXTRA),$(Extra)"]), format!("{referring},$(EXTRA)"));
    }

    #[test]
    fn a_united_list_united_again_stays_as_it_is() {
        let once = union(&["b, a", "c b"]);
        assert_eq!(union(&["b, a", &once]), once);
    }
}
