//! Names of Services as entries of `no_proxy`.
//!
//! An entry for a Service is the pair `.mysql,mysql`: the name itself, and the pods of a headless Service under it
//! (`mysql-0.mysql`). Services of type ExternalName are among them: a proxy cannot resolve their names either.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use crate::no_proxy::portable::{Author, List};

/// Most Services of one namespace. More than nearly every namespace has, and a variable of that length is still one
/// that a person can read.
pub const MAX_SERVICES: usize = 500;
/// Most characters that one source adds to a variable. A variable is written in two letter cases into each container, and a
/// patch has at most 256 KiB: seven containers have room for the longest list of one source (five with options of a JVM), and a pod
/// with more does without such lists. The most for one variable in Linux is 128 KiB.
pub const MAX_CHARACTERS: usize = 16 * 1024;

/// Names that clients would read as a whole top-level domain.
static TOP_LEVEL_DOMAINS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let lines = include_str!("top_level_domains.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).collect()
});

/// The Services of a cluster by namespace, and the lists made of them.
#[derive(Debug, Default)]
pub struct Services {
    names: Names,
    made: HashMap<Box<str>, Made>,
}

/// Names of Services by namespace.
pub type Names = BTreeMap<Box<str>, BTreeSet<Box<str>>>;

/// A list, and what is not in it.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// The list.
    pub list: Arc<List>,
    /// How many entries were taken.
    pub taken: usize,
    /// What was left out.
    pub left_out: LeftOut,
}

/// What is left out of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Entries beyond a limit.
    pub over: usize,
    /// `namespace/name` of Services whose entry would be read as a domain under which others register theirs.
    pub top_level: Vec<Box<str>>,
}

/// A list while it is made.
#[derive(Debug)]
struct Builder {
    text: String,
    characters: usize,
    most: usize,
    made: Made,
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether a name is a top-level domain. Clients read an entry as the end of a name, so that `app` lets every host under
/// `.app` past the proxy.
#[must_use]
pub fn is_top_level(name: &str) -> bool {
    name.starts_with("xn--") || TOP_LEVEL_DOMAINS.contains(name)
}

/// Whether `service.namespace` is one of those names under which countries register domains, such as `co.uk`. Any other
/// one is at most the domain of one owner, and pods find the Service under that name before they would find that domain.
fn is_second_level(name: &str, namespace: &str) -> bool {
    namespace.len() == 2 && is_top_level(namespace) && is_top_level(name)
}

// === impl Services ===

impl Services {
    /// Adds a Service; returns whether it was not there.
    ///
    /// What is no label of the DNS (RFC 1123) is no name of a Service, and would be something else as an entry.
    pub fn insert(&mut self, namespace: &str, name: &str) -> bool {
        if !is_label(namespace) || !is_label(name) {
            return false;
        }
        if let Some(names) = self.names.get_mut(namespace) {
            return names.insert(name.into());
        }
        self.names.insert(namespace.into(), BTreeSet::from([name.into()]));
        true
    }

    /// Removes a Service; returns whether it was there.
    pub fn remove(&mut self, namespace: &str, name: &str) -> bool {
        let Some(names) = self.names.get_mut(namespace) else { return false };
        let removed = names.remove(name);
        if names.is_empty() {
            self.names.remove(namespace);
        }
        removed
    }

    /// Takes over all names; returns the namespaces in which something is different.
    pub fn replace(&mut self, names: Names) -> Vec<Box<str>> {
        let old = std::mem::replace(&mut self.names, names);
        let gone = old.keys().filter(|namespace| !self.names.contains_key(*namespace)).cloned();
        let other = self.names.iter().filter(|(namespace, names)| old.get(*namespace) != Some(names));
        gone.chain(other.map(|(namespace, _)| namespace.clone())).collect()
    }

    /// Makes the list of a namespace anew.
    pub fn update(&mut self, namespace: &str) {
        match self.names.get(namespace) {
            None => {
                self.made.remove(namespace);
            }
            Some(names) => {
                self.made.insert(namespace.into(), of_namespace(namespace, names));
            }
        }
    }

    /// The list of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Arc<List> {
        self.made.get(namespace).map(|made| Arc::clone(&made.list)).unwrap_or_default()
    }

    /// What was made, by namespace.
    pub fn made(&self) -> impl Iterator<Item = (&str, &Made)> {
        self.made.iter().map(|(namespace, made)| (&**namespace, made))
    }

    /// `service.namespace` of the Services of every namespace: by namespace, then by name, the rest left out.
    #[must_use]
    pub fn all(&self) -> Made {
        let mut builder = Builder::new(usize::MAX);
        for (namespace, names) in &self.names {
            for name in names {
                let is_public = is_second_level(name, namespace);
                builder.add(&format!("{name}.{namespace}"), is_public.then_some((&**namespace, &**name)));
            }
        }
        builder.finish()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// The Services of one namespace: by name, the rest left out.
fn of_namespace(namespace: &str, names: &BTreeSet<Box<str>>) -> Made {
    let mut builder = Builder::new(MAX_SERVICES);
    for name in names {
        // A name of digits only looks like the beginning of an address.
        if name.bytes().any(|byte| !byte.is_ascii_digit()) {
            builder.add(name, is_top_level(name).then_some((namespace, &**name)));
        }
    }
    builder.finish()
}

// === impl Builder ===

impl Builder {
    fn new(most: usize) -> Self {
        Self { text: String::new(), characters: 0, most, made: Made::default() }
    }

    fn add(&mut self, entry: &str, public: Option<(&str, &str)>) {
        if let Some((namespace, name)) = public {
            self.made.left_out.top_level.push(format!("{namespace}/{name}").into());
            return;
        }
        // `.x,x` and a comma.
        let characters = 2 * entry.len() + 3;
        // Nothing shorter slips in behind the first one that is too much: what is dropped does not depend on lengths.
        let is_full = self.made.left_out.over > 0
            || self.made.taken == self.most
            || self.characters + characters > MAX_CHARACTERS;
        if is_full {
            self.made.left_out.over += 1;
            return;
        }
        self.characters += characters;
        self.made.taken += 1;
        self.text.push_str(entry);
        self.text.push(',');
    }

    fn finish(self) -> Made {
        Made { list: Arc::new(List::parse(&self.text, Author::Preset)), ..self.made }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::no_proxy::portable::unite;

    fn services(services: &[(&str, &str)]) -> Services {
        let mut known = Services::default();
        for (namespace, name) in services {
            known.insert(namespace, name);
            known.update(namespace);
        }
        known
    }

    fn text(list: &List) -> String {
        list.texts().collect::<Vec<_>>().join(",")
    }

    #[test]
    fn services_of_a_namespace_are_pairs_sorted_by_name() {
        let known =
            services(&[("shop", "web-1"), ("shop", "mysql"), ("default", "kubernetes"), ("shop", "db")]);
        assert_eq!(text(&known.of("shop")), ".db,db,.mysql,mysql,.web-1,web-1");
        assert_eq!(text(&known.of("default")), ".kubernetes,kubernetes");
        assert_eq!(text(&known.of("other")), "");
        assert_eq!(
            text(&known.all().list),
            ".db.shop,db.shop,.kubernetes.default,kubernetes.default,.mysql.shop,mysql.shop,.web-1.shop,web-1.shop"
        );
        assert_eq!(unite([&*known.of("shop")].into_iter()).split(',').count(), 6 + 2, "and loopback");
    }

    #[test]
    fn what_changes_and_what_does_not_is_told() {
        let mut known = services(&[("shop", "mysql"), ("web", "front")]);
        assert!(!known.insert("shop", "mysql"));
        assert!(["", "a,b", "*", "corp.example", "Web"].iter().all(|name| !known.insert("shop", name)));
        assert!(!known.insert("", "mysql"));
        assert!(known.insert("shop", "redis"));
        assert!(!known.remove("shop", "memcached") && !known.remove("nowhere", "mysql"));
        assert!(known.remove("shop", "redis"));
        let names = |pairs: &[(&str, &str)]| services(pairs).names;
        assert_eq!(known.replace(names(&[("shop", "mysql"), ("web", "front")])), []);
        assert_eq!(known.replace(names(&[("shop", "mysql"), ("new", "a")])), ["web".into(), "new".into()]);
        known.update("web");
        assert_eq!(text(&known.of("web")), "");
        assert!(known.remove("shop", "mysql") && known.remove("new", "a") && known.is_empty());
    }

    #[test]
    fn names_that_clients_read_as_a_top_level_domain_are_left_out() {
        for name in ["app", "dev", "com", "io", "ai", "shop", "local", "internal", "xn--p1ai"] {
            assert!(is_top_level(name), "{name}");
        }
        for name in ["mysql", "db", "web", "api", "redis", "cache", "kubernetes", "auth", "ui", "test", "#"] {
            assert!(!is_top_level(name), "{name}");
        }
        let known = services(&[
            ("stage", "app"),
            ("stage", "mysql"),
            ("dev", "mysql"),
            ("stage", "10"),
            ("uk", "co"),
            ("uk", "web"),
        ]);
        let made = of_namespace("stage", &known.names["stage"]);
        assert_eq!((text(&made.list).as_str(), made.taken), (".mysql,mysql", 1));
        assert_eq!(made.left_out, LeftOut { over: 0, top_level: vec!["stage/app".into()] });
        // Behind a namespace, the name of a Service is no top-level domain any more.
        let all = known.all();
        let pairs = [".app.stage,app.stage", ".mysql.dev,mysql.dev", ".web.uk,web.uk"];
        assert!(pairs.iter().all(|pair| text(&all.list).contains(pair)), "{all:?}");
        assert_eq!(all.left_out, LeftOut { over: 0, top_level: vec!["uk/co".into()] });
        assert_eq!(text(&known.of("dev")), ".mysql,mysql");
    }

    #[test]
    fn beyond_the_limits_the_last_names_are_left_out() {
        let many: BTreeSet<Box<str>> = (0..MAX_SERVICES + 3).map(|n| format!("s{n:04}").into()).collect();
        let made = of_namespace("shop", &many);
        assert_eq!((made.taken, made.left_out.over), (MAX_SERVICES, 3));
        assert!(made.list.texts().last() == Some(".s0499,s0499"));

        let long = "x".repeat(55);
        let mut many: BTreeSet<Box<str>> = (0..200).map(|n| format!("{long}-{n:03}").into()).collect();
        many.insert("z".into());
        let made = of_namespace("shop", &many);
        assert!(text(&made.list).len() <= MAX_CHARACTERS);
        assert!(text(&made.list).len() > MAX_CHARACTERS - 200, "nearly all of the room is used");
        assert_eq!(made.taken + made.left_out.over, many.len());
        assert_eq!(made.list.texts().count(), made.taken);
        assert!(!text(&made.list).contains(",z"), "the last one does not slip in");
    }
}
