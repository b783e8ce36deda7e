//! Classes with the same outcomes, and what people call them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;

use super::class::Member;
use super::survey::Survey;

/// Labels that tell nothing but which copy a pod is.
const OF_COPIES: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];
/// Labels that namespaces, service accounts and the network bring begin so.
const INHERITED: [&str; 3] = ["pcns.", "pcsa.", "projectcalico.org/"];
/// So many namespaces are named.
const NAMESPACES: usize = 3;

/// Pods, or host endpoints, of which everybody may do the same.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    /// What people call it.
    pub(crate) name: String,
    /// Whether it stands for the addresses of nobody.
    pub(crate) outside: bool,
    pub(crate) namespaces: BTreeSet<String>,
    /// Labels that all of them have.
    pub(crate) labels: BTreeMap<Arc<str>, Arc<str>>,
    /// `NAMESPACE/NAME`.
    pub(crate) pods: Vec<String>,
    /// By name.
    pub(crate) host_endpoints: Vec<String>,
    /// One of its classes.
    #[serde(skip)]
    pub(crate) class: usize,
}

/// What a group is made of, in the order in which groups are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Pods,
    Hosts,
    Outside,
}

// === impl Kind ===

impl Kind {
    fn of(member: Option<&Member>) -> Self {
        match member {
            Some(Member { namespace: Some(_), .. }) => Self::Pods,
            Some(_) => Self::Hosts,
            None => Self::Outside,
        }
    }
}

// === impl Group ===

impl Group {
    fn kind(&self) -> Kind {
        match (self.outside, self.host_endpoints.is_empty()) {
            (true, _) => Kind::Outside,
            (_, false) => Kind::Hosts,
            (_, true) => Kind::Pods,
        }
    }

    /// Its pods, or its host endpoints.
    pub(crate) fn members(&self) -> impl Iterator<Item = &String> {
        self.pods.iter().chain(&self.host_endpoints)
    }
}

/// Joins the classes whose rows and columns are the same, in the order of names; what is outside
/// comes last. `same` makes one of outcomes that do not differ in what is of interest.
pub(crate) fn groups(
    survey: &Survey<'_>,
    members: &[Member],
    same: impl Fn(usize) -> usize,
) -> Vec<Group> {
    let cells: Vec<Vec<usize>> =
        survey.cells.iter().map(|row| row.iter().map(|cell| same(*cell)).collect()).collect();
    let mut alike: HashMap<(Vec<usize>, Vec<usize>, Kind), Vec<usize>> = HashMap::new();
    for (class, row) in cells.iter().enumerate() {
        let column = cells.iter().filter_map(|row| row.get(class)).copied().collect();
        let first =
            survey.classes.get(class).and_then(|class| members.get(*class.members.first()?));
        alike.entry((row.clone(), column, Kind::of(first))).or_default().push(class);
    }
    let mut groups: Vec<_> =
        alike.into_values().filter_map(|classes| group(survey, members, &classes)).collect();
    name(&mut groups, members);
    groups.sort_by_cached_key(|group| (group.kind(), group.name.clone(), group.pods.clone()));
    groups
}

fn group(survey: &Survey<'_>, all: &[Member], classes: &[usize]) -> Option<Group> {
    let places = classes.iter().filter_map(|class| survey.classes.get(*class));
    let members: Vec<&Member> =
        places.flat_map(|class| &class.members).filter_map(|place| all.get(*place)).collect();
    let mut labels = members.first().map(|pod| pod.labels.clone()).unwrap_or_default();
    labels.retain(|key, value| {
        let own = !OF_COPIES.contains(&&**key) && !INHERITED.iter().any(|p| key.starts_with(p));
        own && members.iter().all(|pod| pod.labels.get(key) == Some(value))
    });
    let pods = members.iter().filter_map(|m| Some(format!("{}/{}", m.namespace.as_ref()?, m.name)));
    let hosts = members.iter().filter(|m| m.namespace.is_none()).map(|m| m.name.clone());
    Some(Group {
        name: String::new(),
        outside: members.is_empty(),
        namespaces: members.iter().filter_map(|member| member.namespace.clone()).collect(),
        labels,
        pods: pods.collect::<BTreeSet<_>>().into_iter().collect(),
        host_endpoints: hosts.collect(),
        class: *classes.first()?,
    })
}

/// Gives the groups names: namespace and labels, and a member where these are another group's too.
fn name(groups: &mut [Group], members: &[Member]) {
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    let namespaces = members.iter().filter_map(|member| member.namespace.as_deref());
    namespaces.for_each(|namespace| *sizes.entry(namespace).or_default() += 1);
    let hosts = members.iter().filter(|member| member.namespace.is_none()).count();
    for group in groups.iter_mut() {
        if !group.host_endpoints.is_empty() {
            group.name = host_name(group, hosts);
            continue;
        }
        let of_all: usize = group.namespaces.iter().filter_map(|n| sizes.get(&**n)).sum();
        let namespaces: Vec<_> = group.namespaces.iter().take(NAMESPACES).cloned().collect();
        let more = group.namespaces.len().saturating_sub(NAMESPACES);
        let mut name = namespaces.join(",");
        if more > 0 {
            name += &format!(",+{more}");
        }
        let labels: Vec<_> = group.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        match (&group.pods[..], group.outside) {
            (_, true) => name = "(outside)".to_owned(),
            ([only], _) => name = only.clone(),
            (members, _) if members.len() == of_all => name += "/*",
            _ if labels.is_empty() => name = format!("some of {name}"),
            _ => name += &format!(" {}", labels.join(",")),
        }
        group.name = name;
    }
    let mut uses: HashMap<String, usize> = HashMap::new();
    groups.iter().for_each(|group| *uses.entry(group.name.clone()).or_default() += 1);
    for group in groups.iter_mut().filter(|group| uses.get(&group.name).is_some_and(|n| *n > 1)) {
        let first = group.members().next().cloned();
        if let Some(first) = first {
            group.name += &format!(" ({}…)", first.rsplit('/').next().unwrap_or(&first));
        }
    }
}

fn host_name(group: &Group, of_all: usize) -> String {
    let labels: Vec<_> = group.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    match &group.host_endpoints[..] {
        [only] => format!("host endpoint {only}"),
        members if members.len() == of_all => "all host endpoints".to_owned(),
        _ if labels.is_empty() => "some host endpoints".to_owned(),
        _ => format!("host endpoints {}", labels.join(",")),
    }
}
