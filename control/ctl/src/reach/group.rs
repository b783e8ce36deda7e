//! Classes with the same outcomes, and what people call them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;

use super::class::Pod;
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

/// Pods of which everybody may do the same.
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
    /// One of its classes.
    #[serde(skip)]
    pub(crate) class: usize,
}

/// Joins the classes whose rows and columns are the same, in the order of names; what is outside
/// comes last. `same` makes one of outcomes that do not differ in what is of interest.
pub(crate) fn groups(
    survey: &Survey<'_>,
    pods: &[Pod],
    same: impl Fn(usize) -> usize,
) -> Vec<Group> {
    let cells: Vec<Vec<usize>> =
        survey.cells.iter().map(|row| row.iter().map(|cell| same(*cell)).collect()).collect();
    let mut members: HashMap<(Vec<usize>, Vec<usize>, bool), Vec<usize>> = HashMap::new();
    for (class, row) in cells.iter().enumerate() {
        let column = cells.iter().filter_map(|row| row.get(class)).copied().collect();
        let outside = survey.classes.get(class).is_some_and(|class| class.pods.is_empty());
        members.entry((row.clone(), column, outside)).or_default().push(class);
    }
    let mut groups: Vec<_> =
        members.into_values().filter_map(|classes| group(survey, pods, &classes)).collect();
    name(&mut groups, pods);
    groups.sort_by(|a, b| (a.outside, &a.name, &a.pods).cmp(&(b.outside, &b.name, &b.pods)));
    groups
}

fn group(survey: &Survey<'_>, pods: &[Pod], classes: &[usize]) -> Option<Group> {
    let places = classes.iter().filter_map(|class| survey.classes.get(*class));
    let members: Vec<&Pod> =
        places.flat_map(|class| &class.pods).filter_map(|place| pods.get(*place)).collect();
    let mut labels = members.first().map(|pod| pod.labels.clone()).unwrap_or_default();
    labels.retain(|key, value| {
        let own = !OF_COPIES.contains(&&**key) && !INHERITED.iter().any(|p| key.starts_with(p));
        own && members.iter().all(|pod| pod.labels.get(key) == Some(value))
    });
    let names: BTreeSet<_> =
        members.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    Some(Group {
        name: String::new(),
        outside: members.is_empty(),
        namespaces: members.iter().map(|pod| pod.namespace.clone()).collect(),
        labels,
        pods: names.into_iter().collect(),
        class: *classes.first()?,
    })
}

/// Gives the groups names: namespace and labels, and a pod where these are another group's too.
fn name(groups: &mut [Group], pods: &[Pod]) {
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    pods.iter().for_each(|pod| *sizes.entry(&pod.namespace).or_default() += 1);
    for group in groups.iter_mut() {
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
        if let Some(first) = group.pods.first() {
            group.name += &format!(" ({}…)", first.rsplit('/').next().unwrap_or(first));
        }
    }
}
