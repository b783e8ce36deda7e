//! Whether an ADD would succeed.

use std::time::Duration;

use margay_cni_api::{AddressStatus, CniError, Readiness};
use margay_ipam::pool::{Demand, select};
use margay_ipam::{Family, Pool};
use margay_resources::v3::AllowedUse;

use super::plan::pools;
use super::{Backend, InForce, failure};
use crate::pipeline::WaitError;

/// How long the dataplane may take to confirm what is in force already.
const PATIENCE: Duration = Duration::from_secs(1);

// === impl Backend ===

impl<W: InForce> Backend<W> {
    /// The whole way is tried: datastore, compiler, dataplane.
    pub(super) async fn readiness(&self) -> Readiness {
        match self.dataplane.in_force(None, PATIENCE).await {
            Ok(()) => Readiness::Ready,
            Err(error @ (WaitError::Datastore(_) | WaitError::Slow(_))) => {
                Readiness::NotReady { reason: failure::of_wait(error).to_string() }
            }
            // Without a dataplane the pods that run have no network either.
            Err(error @ WaitError::NotInForce(_)) => {
                Readiness::Degraded { reason: failure::of_wait(error).to_string() }
            }
        }
    }

    /// Whether each family has an address left in a pool that pods may use. Of the pools that are not
    /// named, which one a pod gets depends on its namespace and annotations: any will do.
    pub(super) async fn address_readiness(
        &self,
        request: &AddressStatus,
    ) -> Result<Readiness, CniError> {
        let specs = pools(&*self.store).await?;
        let pools: Vec<Pool> =
            specs.into_iter().filter_map(|(name, spec)| Pool::new(&name, spec)).collect();
        let usage = self.ipam.usage().await.map_err(failure::of_ipam)?;
        let has_room = |pool: &Pool| usage.pools.iter().any(|u| u.name == pool.name && u.free > 0);
        let families = [
            (request.families.ipv4, Family::V4, &request.ipv4_pools),
            (request.families.ipv6, Family::V6, &request.ipv6_pools),
        ];
        for (_, family, names) in families.into_iter().filter(|(wanted, ..)| *wanted) {
            let wanted = AllowedUse::Workload;
            let serves = |pool: &&Pool| pool.serves(family, wanted);
            let demand = Demand { family, pools: names, wanted, node: None, namespace: None };
            let usable = match names.is_empty() {
                true => Ok(pools.iter().filter(serves).cloned().collect()),
                false => select(&pools, &demand),
            };
            let reason = match usable {
                Ok(usable) if usable.iter().any(has_room) => continue,
                Ok(_) => format!("no IPPool has a free {family} address left; add a pool"),
                Err(error) => error.to_string(),
            };
            return Ok(Readiness::NotReady { reason });
        }
        Ok(Readiness::Ready)
    }
}
