//! What `noProxyFrom` of presets asks for, and what it gets.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::network::{Facts, Limited};
use super::services::{Made, Services};
use crate::api::NoProxySource;
use crate::inject::preset::Preset;
use crate::telemetry::SourceMetrics;

/// Names that a warning shows. It is for a person; the metric has the number.
const EXAMPLES: usize = 5;

/// A part of the cluster that can be watched for entries of `no_proxy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Watched {
    /// Services, for `Services` and `AllServices`
    Services,
    /// ServiceCIDRs, networks of Nodes, kubeadm's ConfigMap and the Service kubernetes, for `ClusterNetwork`
    ClusterNetwork,
    /// Nodes, for `Nodes`
    Nodes,
}

/// Where entries come from beside presets.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Watched.
    pub watched: Vec<Watched>,
    /// Networks that the command line gives.
    pub given: Facts,
}

/// What became of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Entries taken.
    taken: usize,
    /// Entries beyond a limit.
    over: usize,
    /// Namespaces that have some of those; empty when they are of no namespace.
    over_in: BTreeSet<Box<str>>,
    /// `namespace/name` of Services that are left out because of their name.
    top_level: BTreeSet<Box<str>>,
    /// Why it gives nothing.
    missing: Option<String>,
}

/// What became of each source that presets ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts(Vec<(NoProxySource, Account)>);

/// The sources that presets ask for.
pub fn asked<'p>(presets: impl Iterator<Item = &'p Preset>) -> BTreeSet<NoProxySource> {
    presets.flat_map(Preset::no_proxy_from).copied().collect()
}

/// The name of a source in the API.
#[must_use]
pub fn name(source: NoProxySource) -> &'static str {
    match source {
        NoProxySource::Services => "Services",
        NoProxySource::AllServices => "AllServices",
        NoProxySource::ClusterNetwork => "ClusterNetwork",
        NoProxySource::Nodes => "Nodes",
    }
}

// === impl Watched ===

impl Watched {
    /// What is watched for a source.
    #[must_use]
    pub fn of(source: NoProxySource) -> Self {
        match source {
            NoProxySource::Services | NoProxySource::AllServices => Self::Services,
            NoProxySource::ClusterNetwork => Self::ClusterNetwork,
            NoProxySource::Nodes => Self::Nodes,
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::ClusterNetwork => "cluster-network",
            Self::Nodes => "nodes",
        }
    }
}

// === impl Sources ===

impl Sources {
    /// Whether the networks of the cluster are watched.
    #[must_use]
    pub fn watches_networks(&self) -> bool {
        self.watched.contains(&Watched::ClusterNetwork)
    }

    /// Why a source gives nothing here, if nobody watches what it needs.
    #[must_use]
    pub fn missing(&self, source: NoProxySource) -> Option<String> {
        let watched = Watched::of(source);
        let is_given = source == NoProxySource::ClusterNetwork && !self.given.is_empty();
        (!is_given && !self.watched.contains(&watched))
            .then(|| format!("start reach with --no-proxy-from={} (chart: noProxyFrom)", watched.flag()))
    }
}

// === impl Account ===

impl Account {
    /// Of the lists of namespaces.
    #[must_use]
    pub fn services(services: &Services) -> Self {
        let mut account = Self::default();
        for (namespace, made) in services.made() {
            account.taken += made.taken;
            account.over += made.left_out.over;
            if made.left_out.over > 0 {
                account.over_in.insert(namespace.into());
            }
            account.top_level.extend(made.left_out.top_level.iter().cloned());
        }
        account
    }

    /// Of the list of all Services.
    #[must_use]
    pub fn all_services(made: &Made) -> Self {
        Self {
            taken: made.taken,
            over: made.left_out.over,
            top_level: made.left_out.top_level.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Of a list with a limit.
    #[must_use]
    pub fn limited(limited: &Limited) -> Self {
        Self { taken: limited.taken, over: limited.over, ..Self::default() }
    }

    /// The same, and why it gives nothing.
    #[must_use]
    pub fn or_missing(mut self, missing: Option<String>) -> Self {
        self.missing = missing;
        self
    }
}

// === impl Accounts ===

impl Accounts {
    /// Those of the sources that are asked for.
    pub fn new(asked: &BTreeSet<NoProxySource>, mut account: impl FnMut(NoProxySource) -> Account) -> Self {
        Self(asked.iter().map(|source| (*source, account(*source))).collect())
    }

    /// What a person should know, one sentence each. What they say does not change with every object.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (source, account) in &self.0 {
            let source = name(*source);
            if let Some(missing) = &account.missing {
                warnings.push(format!("noProxyFrom {source} of a preset adds nothing: {missing}"));
            }
            if account.over > 0 {
                let mut warning = format!("noProxyFrom {source}: entries beyond the limit are left out");
                if !account.over_in.is_empty() {
                    let _ = write!(warning, " in namespace {}", examples(&account.over_in));
                }
                warnings.push(warning);
            }
            if !account.top_level.is_empty() {
                warnings.push(format!(
                    "noProxyFrom {source}: left out, since clients would take the entry for a top-level domain: Service {}",
                    examples(&account.top_level)
                ));
            }
        }
        warnings
    }

    /// Logs what was not said before, and sets the metrics.
    pub fn tell(&self, before: &Self, metrics: &SourceMetrics) {
        if self != before {
            let said = before.warnings();
            for warning in self.warnings().iter().filter(|warning| !said.contains(warning)) {
                tracing::warn!("{warning}");
            }
        }
        let none = Account::default();
        for source in NoProxySource::ALL {
            let account =
                self.0.iter().find(|(other, _)| *other == source).map_or(&none, |(_, account)| account);
            let top_level = account.top_level.len();
            metrics.set(name(source), account.taken, account.over, top_level, account.missing.is_some());
        }
    }
}

/// The first few names, and how many more there are.
fn examples(names: &BTreeSet<Box<str>>) -> String {
    let shown: Vec<&str> = names.iter().take(EXAMPLES).map(|name| &**name).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_say_what_is_missing_and_what_was_left_out() {
        let mut services = Services::default();
        for name in ["app", "mysql"] {
            services.insert("shop", name);
        }
        for number in 0..7 {
            services.insert(&format!("ns-{number}"), "dev");
            services.update(&format!("ns-{number}"));
        }
        for number in 0..=super::super::services::MAX_SERVICES {
            services.insert("full", &format!("service-{number:04}"));
        }
        services.update("shop");
        services.update("full");
        let sources = Sources::default();
        let asked = BTreeSet::from(NoProxySource::ALL);
        let accounts = Accounts::new(&asked, |source| match source {
            NoProxySource::Services => Account::services(&services),
            NoProxySource::AllServices => Account::all_services(&services.all()),
            _ => Account::default().or_missing(sources.missing(source)),
        });
        assert_eq!(
            accounts.warnings(),
            [
                "noProxyFrom Services: entries beyond the limit are left out in namespace full",
                "noProxyFrom Services: left out, since clients would take the entry for a top-level domain: \
                 Service ns-0/dev, ns-1/dev, ns-2/dev, ns-3/dev, ns-4/dev and 3 more",
                "noProxyFrom AllServices: entries beyond the limit are left out",
                "noProxyFrom ClusterNetwork of a preset adds nothing: start reach with --no-proxy-from=cluster-network (chart: noProxyFrom)",
                "noProxyFrom Nodes of a preset adds nothing: start reach with --no-proxy-from=nodes (chart: noProxyFrom)",
            ]
        );
        let given = Sources {
            given: Facts::given(&["10.96.0.0/12".parse().expect("a network")]),
            watched: vec![Watched::Services],
        };
        assert!(given.missing(NoProxySource::ClusterNetwork).is_none());
        assert!(given.missing(NoProxySource::AllServices).is_none());
        assert!(given.missing(NoProxySource::Nodes).is_some());
    }
}
