//! Profiles: those of the datastore, and those that namespaces and service accounts stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use margay_resources::selector::{NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX};

use crate::intent::ProfileIntent;
use crate::name::ObjectName;

/// Allows everything; the profile of automatic host endpoints.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// Labels as a document has them.
pub(crate) type LabelMap = BTreeMap<String, String>;

/// The profiles and what they are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profiles {
    documents: HashMap<Arc<str>, ProfileIntent>,
    namespaces: HashMap<Arc<str>, LabelMap>,
    accounts: HashMap<ObjectName, LabelMap>,
}

/// Labels of a document, without those that only a namespace and a service account give.
pub(crate) fn own_labels(labels: &LabelMap) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    let inherited = [NAMESPACE_LABEL_PREFIX, SERVICE_ACCOUNT_LABEL_PREFIX];
    let own = labels.iter().filter(move |(key, _)| !inherited.iter().any(|p| key.starts_with(p)));
    own.map(|(key, value)| (key.as_str().into(), value.as_str().into()))
}

/// The profile of a namespace.
pub(crate) fn of_namespace(namespace: &str) -> Arc<str> {
    format!("kns.{namespace}").into()
}

/// The profile of a service account.
pub(crate) fn of_account(account: &ObjectName) -> Arc<str> {
    format!("ksa.{}.{}", account.namespace, account.name).into()
}

// === impl Profiles ===

impl Profiles {
    /// Adds, replaces or removes a profile of the datastore.
    pub(crate) fn set_document(&mut self, name: &Arc<str>, profile: Option<ProfileIntent>) {
        match profile {
            Some(profile) => self.documents.insert(name.clone(), profile),
            None => self.documents.remove(name),
        };
    }

    /// Sets the labels of a namespace; tells whether they changed.
    pub(crate) fn set_namespace(&mut self, name: &Arc<str>, labels: Option<LabelMap>) -> bool {
        let labels = labels.unwrap_or_default();
        let changed = self.namespaces.get(name).map_or(!labels.is_empty(), |old| *old != labels);
        if labels.is_empty() {
            self.namespaces.remove(name);
        } else {
            self.namespaces.insert(name.clone(), labels);
        }
        changed
    }

    /// Sets the labels of a service account; tells whether they changed.
    pub(crate) fn set_account(&mut self, name: &ObjectName, labels: Option<LabelMap>) -> bool {
        let labels = labels.unwrap_or_default();
        let changed = self.accounts.get(name).map_or(!labels.is_empty(), |old| *old != labels);
        if labels.is_empty() {
            self.accounts.remove(name);
        } else {
            self.accounts.insert(name.clone(), labels);
        }
        changed
    }

    /// A profile by name. Those of namespaces and service accounts always exist, since an object
    /// that is missing counts as one without labels.
    pub(crate) fn get(&self, name: &str) -> Option<ProfileIntent> {
        if let Some(profile) = self.documents.get(name) {
            return Some(profile.clone());
        }
        if name == DEFAULT_ALLOW {
            return Some(ProfileIntent::allow(Vec::new()));
        }
        if let Some(namespace) = name.strip_prefix("kns.") {
            return Some(ProfileIntent::allow(self.namespace_labels(namespace)));
        }
        let (namespace, account) = name.strip_prefix("ksa.")?.split_once('.')?;
        let account = ObjectName::new(namespace, account);
        Some(ProfileIntent::labels_only(self.account_labels(&account)))
    }

    /// The labels that the members of a namespace inherit from it.
    fn namespace_labels(&self, namespace: &str) -> Vec<(Arc<str>, Arc<str>)> {
        let fixed = ["projectcalico.org/name", "kubernetes.io/metadata.name"];
        let fixed = fixed.map(|key| prefixed(NAMESPACE_LABEL_PREFIX, key, namespace));
        let own = self.namespaces.get(namespace).into_iter().flatten();
        let own = own.map(|(k, v)| prefixed(NAMESPACE_LABEL_PREFIX, k, v));
        fixed.into_iter().chain(own).collect()
    }

    fn account_labels(&self, account: &ObjectName) -> Vec<(Arc<str>, Arc<str>)> {
        let name = prefixed(SERVICE_ACCOUNT_LABEL_PREFIX, "projectcalico.org/name", &account.name);
        let own = self.accounts.get(account).into_iter().flatten();
        let own = own.map(|(k, v)| prefixed(SERVICE_ACCOUNT_LABEL_PREFIX, k, v));
        std::iter::once(name).chain(own).collect()
    }
}

fn prefixed(prefix: &str, key: &str, value: &str) -> (Arc<str>, Arc<str>) {
    (format!("{prefix}{key}").into(), value.into())
}
