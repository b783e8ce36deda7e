//! How an interface is to be made.

use margay_cni_api::{CniError, Code, EndpointPlan, PlanEndpoint};
use margay_datastore::Datastore;
use margay_model::LARGEST_MTU;
use margay_resources::v3::IpPoolSpec;
use margay_resources::{Kind, Resource};
use serde_json::Value;

use super::mtu::{Encryption, of_pods};
use super::wishes::Wishes;
use super::{Backend, InForce, failure};
use crate::uplink;

/// Queues of each end. Frames of a pod reach the dataplane through the trunk, whose queues are the
/// workers'; the pair itself needs one.
const QUEUES: u32 = 1;

/// The trunk's kernel end segments super-frames and completes checksums on the way to the workers,
/// so that a pod's TCP may leave both to it.
const TX_CHECKSUM_OFFLOAD: bool = true;

// === impl Backend ===

impl<W: InForce> Backend<W> {
    pub(super) async fn plan(&self, request: &PlanEndpoint) -> Result<EndpointPlan, CniError> {
        // Documents that were in place when the runtime called count, also those that no watch has
        // told of yet.
        let read = [Kind::Pod, Kind::Namespace, Kind::IpPool].map(Kind::stored);
        self.store.sync(&read).await.map_err(failure::of_store)?;
        let wishes = Wishes::read(&*self.store, &request.workload).await?;
        if !wishes.foreign.is_empty() && !request.allow_ip_addrs_no_ipam {
            return Err(CniError::new(
                Code::INVALID_CONFIG,
                "the Pod's annotation cni.projectcalico.org/ipAddrsNoIpam is not allowed",
                "set feature_control.ip_addrs_no_ipam in the network configuration, or remove it",
            ));
        }
        Ok(EndpointPlan {
            mtu: match request.mtu {
                0 => self.mtu().await?,
                asked => asked.min(LARGEST_MTU.into()),
            },
            mac: wishes.mac,
            queues: QUEUES,
            tx_checksum_offload: TX_CHECKSUM_OFFLOAD,
            addresses: wishes.foreign,
            pod_cidrs: self.pod_cidrs().await?,
        })
    }

    async fn mtu(&self) -> Result<u32, CniError> {
        let uplink = uplink::mtu(&self.own).await;
        let pools = pools(&*self.store).await?;
        let encryption = self.encryption().await?;
        Ok(of_pods(u32::from(uplink), pools.iter().map(|(_, pool)| pool), encryption))
    }

    async fn encryption(&self) -> Result<Encryption, CniError> {
        let value = self.value(Kind::FelixConfiguration, "default").await?;
        let on = |field: &str| value.pointer(field).and_then(Value::as_bool).unwrap_or(false);
        Ok(Encryption { v4: on("/spec/wireguardEnabled"), v6: on("/spec/wireguardEnabledV6") })
    }

    /// `spec.podCIDRs` of the Kubernetes node, or `spec.podCIDR` alone.
    async fn pod_cidrs(&self) -> Result<Vec<String>, CniError> {
        let value = self.value(Kind::KubernetesNode, &self.node).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let many = value.pointer("/spec/podCIDRs").and_then(Value::as_array);
        Ok(match many.filter(|list| !list.is_empty()) {
            Some(list) => list.iter().filter_map(text).collect(),
            None => value.pointer("/spec/podCIDR").and_then(text).into_iter().collect(),
        })
    }

    /// A document of the cluster; null where there is none.
    async fn value(&self, kind: Kind, name: &str) -> Result<Value, CniError> {
        match self.store.get(&kind.key("", name)).await {
            Ok(object) => Ok(object.value.clone()),
            Err(error) if error.is_not_found() => Ok(Value::Null),
            Err(error) => Err(failure::of_store(error)),
        }
    }
}

/// Every readable pool, by name.
pub(super) async fn pools(store: &dyn Datastore) -> Result<Vec<(String, IpPoolSpec)>, CniError> {
    let listing = store.list(&Kind::IpPool.stored()).await.map_err(failure::of_store)?;
    let pools = listing.objects.iter().filter_map(|object| {
        let Ok(Resource::IpPool(pool)) = Resource::from_value(&object.value) else { return None };
        Some((pool.name().to_owned(), pool.spec))
    });
    Ok(pools.collect())
}
