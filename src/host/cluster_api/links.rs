//! Which objects belong together: references by group, kind, namespace and name, whatever their versions.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::field::{Field, Place, Report, in_one_way};
use super::{BOOTSTRAP, CLUSTER_NAME, CONTROL_PLANE, CORE, Finding, INFRASTRUCTURE, Manifests, Object};

/// A name or a namespace, with its variables in one way.
type Text<'m> = Cow<'m, str>;

/// Whose a worker or a configuration is: the place of a `Cluster`, or namespace and name of one that is not there.
type Owner<'m> = (usize, Text<'m>, Text<'m>);

/// The objects of a stream by their names.
pub(super) struct Links<'m> {
    manifests: &'m Manifests,
    by_name: HashMap<(&'m str, &'m str, Text<'m>, Text<'m>), Vec<usize>>,
    /// The namespace in which a name is, if it is in one only.
    namespaces: HashMap<(&'m str, &'m str, Text<'m>), Option<Text<'m>>>,
    by_kind: HashMap<(&'m str, &'m str), Vec<usize>>,
    groups: Vec<Members<'m>>,
}

/// What belongs to a group.
#[derive(Clone, Default)]
pub(super) struct Members<'m> {
    /// The `Cluster`; more than one if the stream has it more than once.
    pub(super) clusters: Vec<usize>,
    /// The class of the cluster, or the class itself.
    pub(super) classes: Vec<usize>,
    /// Configurations that get the list, in the order of the stream.
    pub(super) configurations: Vec<usize>,
    /// Configurations that are only read: those of the class of a cluster.
    pub(super) templates: Vec<usize>,
    /// What makes machines, or is one.
    pub(super) workers: Vec<usize>,
    /// Objects of infrastructure providers: of the cluster, and of its machines.
    pub(super) infrastructure: Vec<usize>,
    /// References to what is not there.
    pub(super) missing: Vec<Reference<'m>>,
}

/// A reference to an object.
#[derive(Clone)]
pub(super) struct Reference<'m> {
    pub(super) group: &'m str,
    pub(super) kind: &'m str,
    pub(super) namespace: &'m str,
    pub(super) name: &'m str,
    pub(super) field: Field<'m>,
}

/// Kinds that are in no namespace, whatever a manifest says.
const CLUSTER_SCOPED: [&str; 3] = ["GlobalInClusterIPPool", "VSphereDeploymentZone", "VSphereFailureDomain"];

/// Kinds that make machines, or are one, with the field that has the `MachineSpec`.
const WORKERS: [(&str, &str); 3] =
    [("MachineDeployment", "spec.template.spec"), ("MachinePool", "spec.template.spec"), ("Machine", "spec")];

/// Where a control plane refers to the template of its machines: v1beta2, v1beta1, and v1alpha3.
const CONTROL_PLANE_MACHINES: [&str; 3] = [
    "spec.machineTemplate.spec.infrastructureRef",
    "spec.machineTemplate.infrastructureRef",
    "spec.infrastructureTemplate",
];

// === impl Links ===

impl<'m> Links<'m> {
    /// Links a stream. What is wrong with it comes along.
    pub(super) fn new(manifests: &'m Manifests) -> (Self, Vec<Finding>) {
        let mut links = Self {
            manifests,
            by_name: HashMap::new(),
            namespaces: HashMap::new(),
            by_kind: HashMap::new(),
            groups: Vec::new(),
        };
        for (index, object) in manifests.objects().iter().enumerate() {
            links.add(index, object);
        }
        let mut report = Report::default();
        links.link(&mut report);
        (links, report.wrong)
    }

    fn add(&mut self, index: usize, object: &'m Object) {
        let (group, kind, name) = (&*object.group, &*object.kind, in_one_way(&object.name));
        let is_scoped = CLUSTER_SCOPED.contains(&&*object.kind);
        let namespace = if is_scoped { Text::default() } else { in_one_way(&object.namespace) };
        let only = self.namespaces.entry((group, kind, name.clone())).or_insert(Some(namespace.clone()));
        if *only != Some(namespace.clone()) {
            *only = None;
        }
        self.by_name.entry((group, kind, namespace, name)).or_default().push(index);
        self.by_kind.entry((group, kind)).or_default().push(index);
    }

    /// The groups, in the order of the stream.
    pub(super) fn groups(&self) -> Vec<Members<'m>> {
        self.groups.clone()
    }

    /// The objects of a kind.
    pub(super) fn of_kind<'a>(&'a self, group: &'a str, kind: &'a str) -> &'a [usize] {
        self.by_kind.get(&(group, kind)).map_or(&[], Vec::as_slice)
    }

    /// The objects of this name; more than one if the stream has it more than once.
    ///
    /// What names no namespace is in the one that kubectl is told, so it is taken for what a reference from any namespace
    /// means, and the other way round if that is the only one.
    pub(super) fn find<'a>(
        &'a self,
        group: &'a str,
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> &'a [usize] {
        let (namespace, name) = (in_one_way(namespace), in_one_way(name));
        let exact = |namespace: Text<'a>| self.by_name.get(&(group, kind, namespace, name.clone()));
        let other = || {
            let only = || self.namespaces.get(&(group, kind, name.clone())).cloned().flatten();
            if namespace.is_empty() { only() } else { Some(Text::default()) }
        };
        let found = exact(namespace.clone()).or_else(|| other().and_then(exact));
        found.map_or(&[], Vec::as_slice)
    }

    /// The objects that a reference means.
    pub(super) fn follow<'a>(&'a self, reference: &Reference<'a>) -> &'a [usize] {
        self.find(reference.group, reference.kind, reference.namespace, reference.name)
    }

    fn field(&self, index: usize) -> Field<'m> {
        Field::of(self.manifests.objects(), index)
    }

    fn link(&mut self, report: &mut Report) {
        let objects = self.manifests.objects();
        let mut workers: BTreeMap<Owner<'m>, Vec<usize>> = BTreeMap::new();
        for (kind, _) in WORKERS {
            for &index in self.of_kind(CORE, kind) {
                let name = self.field(index).at("spec.clusterName").text(report);
                if let Some(name) = name.or_else(|| objects[index].label(CLUSTER_NAME)) {
                    workers.entry(self.owner(index, name)).or_default().push(index);
                }
            }
        }
        let mut labelled: BTreeMap<Owner<'m>, Vec<usize>> = BTreeMap::new();
        let is_configuration = |index: &usize| objects[*index].configuration().is_some();
        let configurations: Vec<usize> = (0..objects.len()).filter(is_configuration).collect();
        for &index in &configurations {
            if let Some(name) = objects[index].label(CLUSTER_NAME) {
                labelled.entry(self.owner(index, name)).or_default().push(index);
            }
        }

        let mut groups: Vec<(usize, Members<'m>)> = Vec::new();
        let mut direct: Vec<Direct> = Vec::new();
        for &index in self.of_kind(CORE, "Cluster") {
            let cluster = &objects[index];
            let same = self.find(CORE, "Cluster", &cluster.namespace, &cluster.name);
            if same.first() != Some(&index) {
                continue;
            }
            let mut members = Members { clusters: same.to_vec(), ..Members::default() };
            for &index in same {
                self.cluster(index, &mut members, &mut direct, report);
            }
            let key = (index, Text::default(), Text::default());
            members.workers = workers.remove(&key).unwrap_or_default();
            self.workers(&mut members, Some(index), &mut direct, report);
            members.configurations.extend(labelled.remove(&key).unwrap_or_default());
            groups.push((index, members));
        }
        self.conflicts(&direct, report);
        for &index in self.of_kind(CORE, "ClusterClass") {
            let mut members = Members { classes: vec![index], ..Members::default() };
            self.class(index, &mut members, report);
            members.configurations = std::mem::take(&mut members.templates);
            groups.push((index, members));
        }
        // What names a cluster that is not in the stream.
        for (key, workers) in workers {
            let mut members = Members { workers, ..Members::default() };
            self.workers(&mut members, None, &mut direct, report);
            members.configurations.extend(labelled.remove(&key).unwrap_or_default());
            members.settle();
            if let Some(&first) = members.configurations.first() {
                groups.push((first, members));
            }
        }
        for (_, configurations) in labelled {
            groups.push((configurations[0], Members { configurations, ..Members::default() }));
        }
        let mut is_taken = vec![false; objects.len()];
        for (_, members) in &mut groups {
            members.settle();
            members.configurations.iter().for_each(|index| is_taken[*index] = true);
        }
        for &index in configurations.iter().filter(|index| !is_taken[**index]) {
            groups.push((index, Members { configurations: vec![index], ..Members::default() }));
        }
        for (_, members) in &mut groups {
            self.machines(members, report);
            members.settle();
        }
        groups.sort_by_key(|(index, _)| *index);
        self.groups = groups.into_iter().map(|(_, members)| members).collect();
    }

    /// What a cluster refers to.
    fn cluster(
        &self,
        index: usize,
        members: &mut Members<'m>,
        direct: &mut Vec<Direct>,
        report: &mut Report,
    ) {
        let cluster = self.field(index);
        if let Some(reference) = Reference::read(&cluster.at("spec.controlPlaneRef"), report) {
            for &found in self.follow(&reference) {
                if self.manifests.objects()[found].configuration().is_some() {
                    members.configurations.push(found);
                    let place = reference.field.place();
                    direct.push(Direct { configuration: found, cluster: index, place });
                }
            }
            members.note(&reference, self.follow(&reference));
        }
        if let Some(reference) = Reference::read(&cluster.at("spec.infrastructureRef"), report) {
            members.infrastructure.extend(self.follow(&reference));
            members.note(&reference, self.follow(&reference));
        }
        let topology = cluster.at("spec.topology");
        // v1beta2, then v1beta1.
        for (name, namespace) in [("classRef.name", "classRef.namespace"), ("class", "classNamespace")] {
            let field = topology.at(name);
            let Some(name) = field.text(report) else { continue };
            let namespace = topology.at(namespace).text(report).unwrap_or(&cluster.object.namespace);
            let reference = Reference { group: CORE, kind: "ClusterClass", namespace, name, field };
            let found = self.follow(&reference);
            members.note(&reference, found);
            for &class in found {
                members.classes.push(class);
                self.class(class, members, report);
            }
            break;
        }
    }

    /// What a class refers to.
    fn class(&self, index: usize, members: &mut Members<'m>, report: &mut Report) {
        let spec = self.field(index).at("spec");
        let mut references = vec![
            Reference::template(&spec.at("controlPlane"), report),
            Reference::template(&spec.at("controlPlane.machineInfrastructure"), report),
            Reference::template(&spec.at("infrastructure"), report),
        ];
        for kind in ["workers.machineDeployments", "workers.machinePools"] {
            for class in spec.at(kind).items(report) {
                // v1beta2, then v1beta1.
                for template in [class.clone(), class.at("template")] {
                    references.push(Reference::template(&template.at("bootstrap"), report));
                    references.push(Reference::template(&template.at("infrastructure"), report));
                }
            }
        }
        for reference in references.into_iter().flatten() {
            let found = self.follow(&reference);
            members.note(&reference, found);
            for &index in found {
                if self.manifests.objects()[index].configuration().is_some() {
                    members.templates.push(index);
                } else {
                    members.infrastructure.push(index);
                }
            }
        }
    }

    /// What the workers of a group refer to.
    fn workers(
        &self,
        members: &mut Members<'m>,
        cluster: Option<usize>,
        direct: &mut Vec<Direct>,
        report: &mut Report,
    ) {
        for index in members.workers.clone() {
            let spec = machine_spec(&self.field(index));
            for name in ["bootstrap.configRef", "infrastructureRef"] {
                let Some(reference) = Reference::read(&spec.at(name), report) else { continue };
                let found = self.follow(&reference);
                members.note(&reference, found);
                for &found in found {
                    if self.manifests.objects()[found].configuration().is_none() {
                        members.infrastructure.push(found);
                        continue;
                    }
                    members.configurations.push(found);
                    if let Some(cluster) = cluster {
                        let place = reference.field.place();
                        direct.push(Direct { configuration: found, cluster, place });
                    }
                }
            }
        }
    }

    /// The machines of control planes.
    fn machines(&self, members: &mut Members<'m>, report: &mut Report) {
        for index in members.configurations.clone() {
            let object = self.field(index);
            if object.object.kind != "KubeadmControlPlane" {
                continue;
            }
            let mut references = CONTROL_PLANE_MACHINES.iter().map(|path| object.at(path));
            let reference = references.find_map(|field| Reference::read(&field, report));
            let Some(reference) = reference else { continue };
            let found = self.follow(&reference);
            members.note(&reference, found);
            members.infrastructure.extend(found);
        }
    }

    /// The cluster of this name; by its place if it is in the stream, else by its name.
    fn owner(&self, index: usize, name: &'m str) -> Owner<'m> {
        let namespace = &*self.manifests.objects()[index].namespace;
        match self.find(CORE, "Cluster", namespace, name) {
            [first, ..] => (*first, Text::default(), Text::default()),
            [] => (usize::MAX, in_one_way(namespace), in_one_way(name)),
        }
    }

    /// One configuration can have only one list.
    fn conflicts(&self, direct: &[Direct], report: &mut Report) {
        let objects = self.manifests.objects();
        let mut first: HashMap<usize, usize> = HashMap::new();
        for Direct { configuration, cluster, place } in direct {
            let (other, own) = (*first.entry(*configuration).or_insert(*cluster), &objects[*cluster]);
            let other = &objects[other];
            if (&other.namespace, &other.name) == (&own.namespace, &own.name) {
                continue;
            }
            let message = format!(
                "{} is also what {other} ({}) uses, and one object can hold the list of one cluster only: give {own} \
                 its own",
                objects[*configuration], other.source
            );
            report.wrong.push(place.finding(objects, "shared-configuration", message));
        }
    }
}

/// A configuration that a cluster, or what makes its machines, refers to.
#[derive(Debug)]
struct Direct {
    configuration: usize,
    cluster: usize,
    place: Place,
}

/// The `MachineSpec` of what makes machines, or is one.
pub(super) fn machine_spec<'m>(field: &Field<'m>) -> Field<'m> {
    let path = WORKERS.iter().find(|(kind, _)| field.object.kind == *kind).map_or("spec", |(_, path)| path);
    field.at(path)
}

// === impl Members ===

impl<'m> Members<'m> {
    /// Takes down a reference to nothing.
    fn note(&mut self, reference: &Reference<'m>, found: &[usize]) {
        // Of what other providers have, only the endpoint is read, whose absence is told by itself.
        let is_read = match (reference.group, reference.kind) {
            (CORE, "ClusterClass")
            | (CONTROL_PLANE, "KubeadmControlPlane" | "KubeadmControlPlaneTemplate")
            | (BOOTSTRAP, "KubeadmConfig" | "KubeadmConfigTemplate") => true,
            (INFRASTRUCTURE, kind) => kind.starts_with("VSphere"),
            _ => false,
        };
        if found.is_empty() && is_read {
            self.missing.push(reference.clone());
        }
    }

    fn settle(&mut self) {
        for list in [
            &mut self.classes,
            &mut self.configurations,
            &mut self.templates,
            &mut self.infrastructure,
            &mut self.workers,
        ] {
            list.sort_unstable();
            list.dedup();
        }
    }
}

// === impl Reference ===

impl<'m> Reference<'m> {
    /// A reference: v1beta2 has `apiGroup`, others `apiVersion` and sometimes a namespace.
    pub(super) fn read(field: &Field<'m>, report: &mut Report) -> Option<Self> {
        if !field.is_set() {
            // Something on the way may be no mapping.
            field.at("name").text(report);
            return None;
        }
        let name = field.at("name").text(report)?;
        let kind = field.at("kind").text(report)?;
        let group = match field.at("apiGroup").text(report) {
            Some(group) => group,
            None => field.at("apiVersion").text(report)?.split_once('/').map_or("", |(group, _)| group),
        };
        let namespace = field.at("namespace").text(report).unwrap_or(&field.object.namespace);
        Some(Self { group, kind, namespace, name, field: field.clone() })
    }

    /// A reference of a class: `templateRef` in v1beta2, `ref` in v1beta1.
    fn template(field: &Field<'m>, report: &mut Report) -> Option<Self> {
        let references = ["templateRef", "ref"].map(|name| field.at(name));
        references.iter().find_map(|field| Self::read(field, report))
    }
}
