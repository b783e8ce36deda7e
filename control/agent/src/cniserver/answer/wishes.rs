//! What a Pod's and its Namespace's annotations ask for (Calico's, `cni.projectcalico.org/…`).
//!
//! A Pod's annotation goes before its Namespace's, and that before the network configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use margay_cni_api::{CniError, Code, Families, Orchestrator, Workload};
use margay_datastore::{Datastore, Error};
use margay_model::Mac;
use margay_resources::{Kind, Resource};
use serde::de::DeserializeOwned;

use super::failure;

/// What the annotations ask for; none and empty where they are silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// `ipAddrs`: addresses out of pools, at most one a family.
    pub(super) addresses: Vec<IpAddr>,
    /// `ipAddrsNoIpam`: addresses that no pool knows.
    pub(super) foreign: Vec<IpAddr>,
    /// `ipv4pools`.
    pub(super) ipv4_pools: Option<Vec<String>>,
    /// `ipv6pools`.
    pub(super) ipv6_pools: Option<Vec<String>>,
    /// `ipFamilies`.
    pub(super) families: Option<Families>,
    /// `hwAddr`.
    pub(super) mac: Option<Mac>,
    /// `allowedSourcePrefixes`.
    pub(super) sources: Vec<IpNet>,
    /// `spec.serviceAccountName` of the Pod; empty without a Pod.
    pub(super) service_account: String,
}

/// The annotations of one object.
struct Annotations<'a> {
    /// As errors call the object.
    object: String,
    values: &'a BTreeMap<String, String>,
}

const PREFIX: &str = "cni.projectcalico.org";

// === impl Annotations ===

impl Annotations<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(&format!("{PREFIX}/{name}")).map(String::as_str).filter(|t| !t.is_empty())
    }

    /// An annotation that is a JSON list.
    fn list<T: DeserializeOwned>(&self, name: &str) -> Result<Option<Vec<T>>, CniError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let bad = |error: serde_json::Error| {
            self.bad(name, format!("{text:?} is not the list that it should be: {error}"))
        };
        serde_json::from_str(text).map(Some).map_err(bad)
    }

    /// A list of addresses, at most one of each family.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, CniError> {
        let addresses: Vec<IpAddr> = self.list(name)?.unwrap_or_default();
        for v4 in [true, false] {
            if addresses.iter().filter(|address| address.is_ipv4() == v4).count() > 1 {
                return Err(self.bad(name, "more than one address of a family"));
            }
        }
        Ok(addresses)
    }

    fn families(&self) -> Result<Option<Families>, CniError> {
        const NAME: &str = "ipFamilies";
        let Some(names) = self.list::<String>(NAME)? else { return Ok(None) };
        let mut families = Families { ipv4: false, ipv6: false };
        for name in names {
            match name.to_ascii_lowercase().as_str() {
                "ipv4" => families.ipv4 = true,
                "ipv6" => families.ipv6 = true,
                other => return Err(self.bad(NAME, format!("{other:?} is neither ipv4 nor ipv6"))),
            }
        }
        if families.ipv4 || families.ipv6 {
            return Ok(Some(families));
        }
        Err(self.bad(NAME, "names no family"))
    }

    fn networks(&self, name: &str) -> Result<Vec<IpNet>, CniError> {
        let texts: Vec<String> = self.list(name)?.unwrap_or_default();
        let parse = |text: String| {
            text.parse().map_err(|_| self.bad(name, format!("{text:?} is no network")))
        };
        texts.into_iter().map(parse).collect()
    }

    fn mac(&self) -> Result<Option<Mac>, CniError> {
        const NAME: &str = "hwAddr";
        let Some(text) = self.text(NAME) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| self.bad(NAME, format!("{text:?}: {error}")))
    }

    fn bad(&self, name: &str, what: impl AsRef<str>) -> CniError {
        CniError::new(
            Code::INVALID_CONFIG,
            format!("annotation {PREFIX}/{name} of {}: {}", self.object, what.as_ref()),
            "correct the annotation",
        )
    }

    fn read(&self) -> Result<Wishes, CniError> {
        let wishes = Wishes {
            addresses: self.addresses("ipAddrs")?,
            foreign: self.addresses("ipAddrsNoIpam")?,
            ipv4_pools: self.list("ipv4pools")?,
            ipv6_pools: self.list("ipv6pools")?,
            families: self.families()?,
            mac: self.mac()?,
            sources: self.networks("allowedSourcePrefixes")?,
            service_account: String::new(),
        };
        if !wishes.addresses.is_empty() && !wishes.foreign.is_empty() {
            return Err(self.bad("ipAddrsNoIpam", "excludes ipAddrs"));
        }
        Ok(wishes)
    }
}

// === impl Wishes ===

impl Wishes {
    /// Reads the documents of the workload's Pod and Namespace; those that are missing, and those
    /// of what Kubernetes did not start, ask for nothing.
    ///
    /// # Errors
    /// `TRY_AGAIN_LATER` when one is there, is bad and was never good.
    pub(super) async fn read(store: &dyn Datastore, workload: &Workload) -> Result<Self, CniError> {
        if workload.orchestrator != Orchestrator::K8s {
            return Ok(Self::default());
        }
        let Workload { namespace, pod, .. } = workload;
        let namespaces = match read(store, Kind::Namespace, "", namespace).await? {
            Some(object) => Self::of(&object, format!("Namespace {namespace}"))?,
            None => Self::default(),
        };
        let Some(object) = read(store, Kind::Pod, namespace, pod).await? else {
            return Ok(namespaces.for_pods());
        };
        let mut wishes = Self::of(&object, format!("Pod {namespace}/{pod}"))?;
        if let Resource::Pod(pod) = &object {
            let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
            wishes.service_account =
                account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        }
        Ok(wishes.or(namespaces.for_pods()))
    }

    fn of(object: &Resource, called: String) -> Result<Self, CniError> {
        let nothing = BTreeMap::new();
        let values = object.metadata().annotations.as_ref().unwrap_or(&nothing);
        Annotations { object: called, values }.read()
    }

    /// What a Namespace may ask for on behalf of its Pods: pools and families.
    fn for_pods(self) -> Self {
        let Self { ipv4_pools, ipv6_pools, families, .. } = self;
        Self { ipv4_pools, ipv6_pools, families, ..Self::default() }
    }

    fn or(self, default: Self) -> Self {
        Self {
            ipv4_pools: self.ipv4_pools.or(default.ipv4_pools),
            ipv6_pools: self.ipv6_pools.or(default.ipv6_pools),
            families: self.families.or(default.families),
            ..self
        }
    }
}

/// An object, typed; none where there is none.
async fn read(
    store: &dyn Datastore,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<Resource>, CniError> {
    match store.get(&kind.key(namespace, name)).await {
        Ok(object) => Resource::from_value(&object.value).map(Some).map_err(failure::of_object),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(failure::of_refusal(error)),
    }
}
