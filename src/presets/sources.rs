//! What `noProxyFrom` of presets asks for, and what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use super::network::{Facts, Limited};
use super::services::{Made, Services};
use crate::api::NoProxySource;
use crate::inject::preset::Preset;
use crate::inject::snapshot::ClusterLists;
use crate::no_proxy::portable::List;
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
pub struct Accounts(BTreeMap<NoProxySource, Account>);

/// What presets get: the lists that are the same in every namespace, and what became of each source.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// The lists.
    pub of_cluster: Arc<ClusterLists>,
    /// What became of each source.
    pub accounts: Accounts,
}

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
    fn services(services: &Services) -> Self {
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
    fn all_services(made: &Made) -> Self {
        Self {
            taken: made.taken,
            over: made.left_out.over,
            top_level: made.left_out.top_level.iter().cloned().collect(),
            ..Self::default()
        }
    }

    /// Of a list with a limit.
    fn limited(limited: &Limited) -> Self {
        Self { taken: limited.taken, over: limited.over, ..Self::default() }
    }

    /// Entries taken.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }
}

// === impl Lists ===

impl Lists {
    /// Makes anew what is asked for and has changed, or was not asked for before. What nobody asks for is empty. Returns
    /// whether any list differs from before.
    pub fn update(
        &mut self,
        asked: &BTreeSet<NoProxySource>,
        has_changed: impl Fn(NoProxySource) -> bool,
        services: &Services,
        cluster_network: impl Fn() -> Limited,
        nodes: impl Fn() -> Limited,
    ) -> bool {
        let accounts = &mut self.accounts.0;
        accounts.retain(|source, _| asked.contains(source) && !has_changed(*source));
        let mut lists = ClusterLists::clone(&self.of_cluster);
        for source in NoProxySource::ALL {
            if accounts.contains_key(&source) {
                continue;
            }
            let (account, list) = match source {
                _ if !asked.contains(&source) => (None, List::default()),
                // Each namespace has its own.
                NoProxySource::Services => (Some(Account::services(services)), List::default()),
                NoProxySource::AllServices => {
                    let made = services.all();
                    (Some(Account::all_services(&made)), Arc::unwrap_or_clone(made.list))
                }
                NoProxySource::ClusterNetwork => {
                    let made = cluster_network();
                    (Some(Account::limited(&made)), made.list)
                }
                NoProxySource::Nodes => {
                    let made = nodes();
                    (Some(Account::limited(&made)), made.list)
                }
            };
            accounts.extend(account.map(|account| (source, account)));
            match source {
                NoProxySource::Services => {}
                NoProxySource::AllServices => lists.all_services = list,
                NoProxySource::ClusterNetwork => lists.cluster_network = list,
                NoProxySource::Nodes => lists.nodes = list,
            }
        }
        let differs = lists != *self.of_cluster;
        if differs {
            self.of_cluster = Arc::new(lists);
        }
        differs
    }
}

// === impl Accounts ===

impl Accounts {
    /// Says of each source why it gives nothing, if so.
    pub fn explain(&mut self, missing: impl Fn(NoProxySource, &Account) -> Option<String>) {
        for (source, account) in &mut self.0 {
            account.missing = missing(*source, account);
        }
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
            let account = self.0.get(&source).unwrap_or(&none);
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
        let mut lists = Lists::default();
        lists.update(&asked, |_| true, &services, Limited::default, Limited::default);
        let mut accounts = lists.accounts;
        accounts.explain(|source, _| match source {
            NoProxySource::Services | NoProxySource::AllServices => None,
            _ => sources.missing(source),
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
    #[test]
    fn a_list_is_made_when_it_is_asked_for_and_anew_when_it_has_changed() {
        let mut services = Services::default();
        let mut lists = Lists::default();
        let nodes = |address: &str| {
            let facts = Facts { addresses: vec![address.parse().expect("an address")], ..Facts::default() };
            super::super::network::nodes([facts].iter())
        };
        let made_nowhere = || -> Limited { panic!("nobody asks for it") };
        let asked = BTreeSet::from([NoProxySource::Nodes]);
        let nobody = BTreeSet::new();
        assert!(!lists.update(&nobody, |_| true, &services, made_nowhere, made_nowhere));
        assert!(lists.update(&asked, |_| false, &services, made_nowhere, || nodes("10.0.0.1")));
        assert!(!lists.update(&asked, |_| false, &services, made_nowhere, made_nowhere), "as it was");
        assert!(!lists.update(&asked, |_| true, &services, made_nowhere, || nodes("10.0.0.1")), "the same");
        services.insert("shop", "mysql");
        let both = BTreeSet::from([NoProxySource::AllServices, NoProxySource::Nodes]);
        assert!(lists.update(&both, |_| false, &services, made_nowhere, made_nowhere));
        assert_eq!(lists.accounts.0.values().map(Account::taken).collect::<Vec<_>>(), [1, 1]);
        assert!(lists.update(&nobody, |_| false, &services, made_nowhere, made_nowhere));
        assert_eq!((&*lists.of_cluster, &lists.accounts), (&ClusterLists::default(), &Accounts::default()));
    }
}
