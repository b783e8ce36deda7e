//! Reserving and freeing addresses.
//!
//! A reservation's handle is `NETWORK.CONTAINERID`, as Calico's, so freeing it needs nothing but
//! the attachment. The network is noted beside it, because both parts may contain dots.

use std::net::IpAddr;

use margay_cni_api::{
    Allocate, CheckAddress, CniError, Code, Deleted, Done, Families, GcAddresses, Lease,
    Orchestrator, Release, Swept,
};
use margay_ipam::block::Attributes;
use margay_ipam::{Allocation, AssignIp, AutoAssign, Owner};
use margay_resources::v3::AllowedUse;

use super::wishes::Wishes;
use super::{Backend, InForce, failure};

/// The attribute that names the network.
const NETWORK: &str = "network";

// === impl Backend ===

impl<W: InForce> Backend<W> {
    pub(super) async fn reserve(&self, request: &Allocate) -> Result<Lease, CniError> {
        let wishes = Wishes::read(&*self.store, &request.workload).await?;
        let wanted = Wanted::new(request, &wishes)?;
        let handle = request.attachment.handle();
        let held = self.ipam.ips_by_handle(&handle).await.map_err(failure::of_ipam)?;
        if !held.is_empty() {
            let held: Vec<_> = held.iter().map(|allocation| allocation.ip).collect();
            if wanted.is_met_by(&held) {
                return Ok(Lease { addresses: in_order(held) });
            }
            // Of an ADD that asked for something else and was never undone.
            self.ipam.release_by_handle(&handle).await.map_err(failure::of_ipam)?;
        }
        match self.assign(request, &wanted, &handle).await {
            Ok(addresses) => Ok(Lease { addresses: in_order(addresses) }),
            Err(error) => {
                // Half of a dual-stack pair is no success.
                if let Err(error) = self.ipam.release_by_handle(&handle).await {
                    tracing::warn!(handle, %error, "addresses of a failed request are kept");
                }
                Err(error)
            }
        }
    }

    async fn assign(
        &self,
        request: &Allocate,
        wanted: &Wanted,
        handle: &str,
    ) -> Result<Vec<IpAddr>, CniError> {
        let attributes = self.attributes(request);
        let mut addresses = Vec::new();
        for ip in &wanted.given {
            let request = AssignIp {
                ip: *ip,
                owner: Owner::host(&self.node),
                handle: Some(handle.to_owned()),
                attributes: attributes.clone(),
                wanted: Some(AllowedUse::Workload),
            };
            let assigned = self.ipam.assign_ip(&request).await.map_err(failure::of_ipam)?;
            addresses.push(assigned.addr());
        }
        let any = AutoAssign {
            v4: usize::from(wanted.any.ipv4),
            v6: usize::from(wanted.any.ipv6),
            v4_pools: wanted.ipv4_pools.clone(),
            v6_pools: wanted.ipv6_pools.clone(),
            namespace: Some(request.workload.namespace.clone()),
            ..AutoAssign::workload(&self.node, handle, attributes)
        };
        let assigned = self.ipam.auto_assign(&any).await.map_err(failure::of_ipam)?;
        addresses.extend(assigned.v4.iter().chain(&assigned.v6).map(|net| net.addr()));
        Ok(addresses)
    }

    /// As Calico notes them. Without a Pod there is no `pod`: its absence would look like a leak.
    fn attributes(&self, request: &Allocate) -> Attributes {
        let mut attributes = Attributes::from([
            ("node".to_owned(), self.node.to_string()),
            (NETWORK.to_owned(), request.attachment.network.clone()),
            ("timestamp".to_owned(), jiff::Timestamp::now().to_string()),
        ]);
        if request.workload.orchestrator == Orchestrator::K8s {
            attributes.insert("namespace".to_owned(), request.workload.namespace.clone());
            attributes.insert("pod".to_owned(), request.workload.pod.clone());
        }
        attributes
    }

    pub(super) async fn free(&self, request: &Release) -> Result<Deleted, CniError> {
        let handle = request.attachment.handle();
        let mut freed = self.ipam.release_by_handle(&handle).await.map_err(failure::of_ipam)?;
        if request.workload.orchestrator == Orchestrator::K8s {
            let legacy = request.workload.legacy_handle();
            freed.extend(self.ipam.release_by_handle(&legacy).await.map_err(failure::of_ipam)?);
        }
        Ok(Deleted { existed: !freed.is_empty() })
    }

    pub(super) async fn check_reserved(&self, request: &CheckAddress) -> Result<Done, CniError> {
        let handle = request.attachment.handle();
        let held = self.ipam.ips_by_handle(&handle).await.map_err(failure::of_ipam)?;
        let is_held = |ip: &&IpAddr| held.iter().any(|allocation| allocation.ip == **ip);
        match request.addresses.iter().find(|ip| !is_held(ip)) {
            None => Ok(Done {}),
            Some(ip) => Err(CniError::new(
                Code::CHECK_FAILED,
                format!("the address {ip} is not reserved for {handle}"),
                "let the runtime recreate the container's sandbox",
            )),
        }
    }

    pub(super) async fn free_stale(&self, request: &GcAddresses) -> Result<Swept, CniError> {
        let is_stale = |allocation: &Allocation| {
            let of_node =
                allocation.attributes.get("node").is_some_and(|node| **node == *self.node);
            let container = container_of(allocation, &request.network);
            let is_valid = |id| request.valid.iter().any(|valid| valid.container_id == id);
            of_node && container.is_some_and(|id| !is_valid(id))
        };
        let mut swept = Swept::default();
        match self.ipam.release_if(is_stale).await {
            Ok(freed) => {
                let containers = freed.iter().filter_map(|a| container_of(a, &request.network));
                swept.removed = containers.map(str::to_owned).collect();
            }
            Err(error) => swept.errors.push(failure::of_ipam(error).to_string()),
        }
        Ok(swept)
    }
}

/// The container that holds an address in the network.
fn container_of<'a>(allocation: &'a Allocation, network: &str) -> Option<&'a str> {
    if allocation.attributes.get(NETWORK)? != network {
        return None;
    }
    allocation.handle.as_deref()?.strip_prefix(network)?.strip_prefix('.')
}

/// IPv4 first.
fn in_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

/// What is to be reserved, all wishes considered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// These very addresses.
    given: Vec<IpAddr>,
    /// Any address of these families.
    any: Families,
    ipv4_pools: Vec<String>,
    ipv6_pools: Vec<String>,
}

// === impl Wanted ===

impl Wanted {
    /// The Pod's annotation goes before what the runtime asks for; a given address stands for its
    /// family.
    fn new(request: &Allocate, wishes: &Wishes) -> Result<Self, CniError> {
        let Allocate { families, ipv4_pools, ipv6_pools, ips, .. } = request;
        let given = if wishes.addresses.is_empty() { ips } else { &wishes.addresses }.clone();
        let given_of = |v4| given.iter().filter(|ip| ip.is_ipv4() == v4).count();
        if given_of(true) > 1 || given_of(false) > 1 {
            return Err(CniError::new(
                Code::INVALID_CONFIG,
                format!("the addresses {given:?} are more than one of a family"),
                "ask for at most one IPv4 and one IPv6 address (args.cni.ips, runtimeConfig.ips, IP)",
            ));
        }
        let families = wishes.families.unwrap_or(*families);
        Ok(Self {
            any: Families {
                ipv4: families.ipv4 && given_of(true) == 0,
                ipv6: families.ipv6 && given_of(false) == 0,
            },
            ipv4_pools: wishes.ipv4_pools.as_ref().unwrap_or(ipv4_pools).clone(),
            ipv6_pools: wishes.ipv6_pools.as_ref().unwrap_or(ipv6_pools).clone(),
            given,
        })
    }

    /// Whether `held` is what would be reserved now.
    fn is_met_by(&self, held: &[IpAddr]) -> bool {
        let count = |v4| held.iter().filter(|ip| ip.is_ipv4() == v4).count();
        let wanted =
            |v4, any| usize::from(any) + self.given.iter().filter(|ip| ip.is_ipv4() == v4).count();
        count(true) == wanted(true, self.any.ipv4)
            && count(false) == wanted(false, self.any.ipv6)
            && self.given.iter().all(|ip| held.contains(ip))
    }
}
