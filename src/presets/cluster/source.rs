//! What is watched, as one stream of changes.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future;
use futures::stream::{BoxStream, Stream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::status::Said;
use crate::api::validate::FieldError;
use crate::api::{ClusterPodPreset, PodPreset};
use crate::api_server::{self, Waits};
use crate::inject::preset::Preset;
use crate::inject::snapshot::NamespaceLabels;
use crate::presets::directory;
use crate::presets::network::{Facts, Part};
use crate::presets::sources::Watched;

/// A watch that goes on where it was interrupted says nothing, so one whose last error is this long ago is
/// taken to be well. One that is not fails again within half of it.
pub(super) const CALM: Duration = Duration::from_mins(2);
/// Objects asked for at once while listing. What is not compiled yet takes ten times the memory of what is,
/// and memory that was used once is seldom given back.
const PAGE: u32 = 100;
/// Nodes asked for at once: one has the names of all its images in it, which are tens of kilobytes.
const NODES_PAGE: u32 = 20;

/// Where kubeadm keeps the configuration of a cluster.
pub(crate) const KUBEADM: (&str, &str) = ("kube-system", "kubeadm-config");
/// The Service of the API server.
pub(crate) const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// Namespace and name.
pub(super) type Key = (Box<str>, Box<str>);

/// The watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Cluster,
    Namespaced,
    Namespaces,
    Services,
    ServiceCidrs,
    Nodes,
    Kubeadm,
    ApiService,
}

/// When each watch failed last, unless it has been heard of since.
#[derive(Debug, Default)]
pub(super) struct Failures([Option<Instant>; 8]);

/// One change of one of the watches.
pub(super) struct Change {
    pub source: Source,
    pub event: Result<Event<Item>, watcher::Error>,
}

/// An object, reduced to what is kept.
pub(super) enum Item {
    Preset {
        key: Key,
        compiled: Result<Arc<Preset>, Vec<FieldError>>,
        /// When it was made, in seconds.
        created: i64,
        said: Said,
    },
    Namespace(Box<str>, NamespaceLabels),
    Service(Key),
    Facts(Box<str>, Facts),
}

/// The watches as one stream, each with its own backoff.
pub(super) fn changes(client: &Client, sources: &[Source]) -> BoxStream<'static, Change> {
    select_all(sources.iter().map(|source| changes_of(client, *source))).boxed()
}

fn changes_of(client: &Client, source: Source) -> BoxStream<'static, Change> {
    let client = || client.clone();
    let presets = |resource| Api::<DynamicObject>::all_with(client(), &resource);
    match source {
        Source::Cluster => stream(presets(ApiResource::erase::<ClusterPodPreset>(&())), source, PAGE, preset),
        Source::Namespaced => {
            let api = presets(ApiResource::erase::<PodPreset>(&()));
            let pages = watcher::Config::default().page_size(PAGE);
            // As many as tenants like, and as large: a page of them could take more memory than there is.
            let one_by_one = watch_objects(api.clone(), pages.clone().streaming_lists())
                .take_while(|event| future::ready(!event.as_ref().is_err_and(is_without_streams)));
            let events = one_by_one.chain(watch_objects(api, pages));
            changes_in(events, source, preset)
        }
        Source::Namespaces => {
            stream(Api::<PartialObjectMeta<Namespace>>::all(client()), source, PAGE, namespace)
        }
        // The names are all that is needed of them.
        Source::Services => stream(Api::<PartialObjectMeta<Service>>::all(client()), source, PAGE, service),
        Source::ServiceCidrs => {
            let resource = ApiResource::erase::<ServiceCIDR>(&());
            let facts = |part: &Part| facts(part, Part::service_cidr);
            stream(Api::<Part>::all_with(client(), &resource), source, PAGE, facts)
        }
        Source::Nodes => {
            let resource = ApiResource::erase::<Node>(&());
            let facts = |part: &Part| facts(part, Part::node);
            stream(Api::<Part>::all_with(client(), &resource), source, NODES_PAGE, facts)
        }
        Source::Kubeadm => {
            let resource = ApiResource::erase::<ConfigMap>(&());
            one(client(), &resource, KUBEADM, source, |part| facts(part, Part::kubeadm))
        }
        Source::ApiService => {
            let resource = ApiResource::erase::<Service>(&());
            one(client(), &resource, API_SERVICE, source, |part| facts(part, Part::api_service))
        }
    }
}

fn stream<K>(api: Api<K>, source: Source, page: u32, item: fn(&K) -> Item) -> BoxStream<'static, Change>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    follow(api, watcher::Config::default().page_size(page), source, item)
}

/// A watch of one object, for which the right to that object is enough.
fn one(
    client: Client,
    resource: &ApiResource,
    (namespace, name): (&str, &str),
    source: Source,
    item: fn(&Part) -> Item,
) -> BoxStream<'static, Change> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    follow(Api::namespaced_with(client, namespace, resource), config, source, item)
}

fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    source: Source,
    item: fn(&K) -> Item,
) -> BoxStream<'static, Change>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    changes_in(watch_objects(api, config), source, item)
}

fn changes_in<K: 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    source: Source,
    item: fn(&K) -> Item,
) -> BoxStream<'static, Change> {
    events
        .backoff(Waits::default())
        .map(move |event| Change { source, event: event.map(|event| map(event, item)) })
        .boxed()
}

/// Whether an API server does not stream lists: those before Kubernetes 1.32, unless they are told to.
fn is_without_streams(error: &watcher::Error) -> bool {
    use watcher::Error::{WatchError, WatchFailed, WatchStartFailed};
    match error {
        WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.message.contains("sendInitialEvents"),
        _ => false,
    }
}

fn map<T>(event: Event<T>, item: impl FnOnce(&T) -> Item) -> Event<Item> {
    match event {
        Event::Apply(object) => Event::Apply(item(&object)),
        Event::Delete(object) => Event::Delete(item(&object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(item(&object)),
        Event::InitDone => Event::InitDone,
    }
}

/// A PodPreset as it is now.
pub(super) async fn read(client: &Client, (namespace, name): &Key) -> kube::Result<Option<Item>> {
    let resource = ApiResource::erase::<PodPreset>(&());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    Ok(api.get_opt(name).await?.as_ref().map(preset))
}

fn preset(object: &DynamicObject) -> Item {
    let key = key(object);
    let compiled = serde_json::to_value(object)
        .map_err(|error| vec![FieldError { path: String::new(), message: error.to_string() }])
        .and_then(|value| directory::preset(&value));
    if let Err(errors) = &compiled {
        for error in errors {
            tracing::error!(namespace = %key.0, name = %key.1, %error, "preset left out, it cannot be used");
        }
    }
    let created = object.creation_timestamp().map_or(0, |created| created.0.as_second());
    Item::Preset { key, compiled: compiled.map(Arc::new), created, said: Said::of(object) }
}

fn namespace(object: &PartialObjectMeta<Namespace>) -> Item {
    let name = object.name_any();
    let labels = NamespaceLabels::new(object.meta().labels.iter().flatten()).named(&name);
    Item::Namespace(name.into(), labels)
}

fn service(object: &PartialObjectMeta<Service>) -> Item {
    Item::Service(key(object))
}

fn facts(part: &Part, facts: fn(&Part) -> Facts) -> Item {
    Item::Facts(part.name_any().into(), facts(part))
}

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default().into(), object.name_any().into())
}

/// The message of a watch error, with what to do where that is known.
pub(super) fn explain(source: Source, error: &watcher::Error) -> String {
    let mut message = api_server::explain(error);
    let is_preset = matches!(source, Source::Cluster | Source::Namespaced);
    if is_preset && (message.contains("404") || message.contains("NotFound")) {
        message.push_str(" (are the CRDs installed? kubectl apply -f crds/)");
    }
    message
}

/// An event over keys and values. A watch yields items of its own kind only.
pub(super) fn pairs<T>(event: Event<Item>, pair: impl Fn(Item) -> Option<T>) -> Event<T> {
    let pair = |item| pair(item).expect("a watch yields items of its own kind");
    match event {
        Event::Apply(item) => Event::Apply(pair(item)),
        Event::Delete(item) => Event::Delete(pair(item)),
        Event::Init => Event::Init,
        Event::InitApply(item) => Event::InitApply(pair(item)),
        Event::InitDone => Event::InitDone,
    }
}

// === impl Source ===

impl Source {
    /// Without these nothing can be decided.
    pub const PRESETS: [Self; 3] = [Self::Cluster, Self::Namespaced, Self::Namespaces];

    /// What is watched for entries of `no_proxy`.
    pub fn watched(watched: &[Watched]) -> Vec<Self> {
        let mut sources: Vec<Self> = watched
            .iter()
            .flat_map(|watched| match watched {
                Watched::Services => &[Self::Services][..],
                Watched::ClusterNetwork => {
                    &[Self::ServiceCidrs, Self::Nodes, Self::Kubeadm, Self::ApiService]
                }
                Watched::Nodes => &[Self::Nodes],
            })
            .copied()
            .collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "ClusterPodPresets",
            Self::Namespaced => "PodPresets",
            Self::Namespaces => "Namespaces",
            Self::Services => "Services",
            Self::ServiceCidrs => "ServiceCIDRs",
            Self::Nodes => "Nodes",
            Self::Kubeadm => "ConfigMap kubeadm-config",
            Self::ApiService => "Service kubernetes",
        }
    }

    /// Whether an error means that there will be nothing of it: no right to read it, or an API server that does not
    /// have it. Pods with a proxy and without these entries are better than a webhook that is never ready.
    pub fn is_refused(self, error: &watcher::Error) -> bool {
        use watcher::Error::{
            InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed,
        };
        let status = match error {
            InitialListFailed(kube::Error::Api(status))
            | WatchStartFailed(kube::Error::Api(status))
            | WatchFailed(kube::Error::Api(status))
            | WatchError(status) => status,
            InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => return false,
        };
        !Self::PRESETS.contains(&self) && matches!(status.code, 403 | 404)
    }
}

// === impl Failures ===

impl Failures {
    pub fn note(&mut self, source: Source, failed: bool, now: Instant) {
        self.0[source as usize] = failed.then_some(now);
    }

    pub fn any(&self, now: Instant) -> bool {
        self.0.iter().flatten().any(|failed| now.duration_since(*failed) < CALM)
    }
}

// === impl Part ===

impl Resource for Part {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_watch_counts_until_it_is_heard_of_or_has_been_quiet_for_long() {
        let now = Instant::now();
        let mut failures = Failures::default();
        assert!(!failures.any(now));
        failures.note(Source::Namespaced, true, now);
        failures.note(Source::Namespaces, false, now);
        assert!(failures.any(now), "another watch does not speak for it");
        assert!(!failures.any(now + CALM), "a watch that was resumed says nothing");
        failures.note(Source::Namespaced, false, now);
        assert!(!failures.any(now));
    }

    #[test]
    fn each_watch_is_made_once() {
        let all = Source::watched(&[Watched::Nodes, Watched::ClusterNetwork, Watched::Nodes]);
        assert_eq!(all, [Source::ServiceCidrs, Source::Nodes, Source::Kubeadm, Source::ApiService]);
        assert_eq!(Source::watched(&[Watched::Services]), [Source::Services]);
        assert_eq!(Source::watched(&[]), []);
    }
}
