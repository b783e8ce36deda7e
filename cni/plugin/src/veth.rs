//! The pod's interface: a veth pair between the node and the container's namespace.
//!
//! The order in which an ADD makes it:
//! 1. [`prepare`]: what a crashed ADD left is removed, a name that is taken is refused;
//! 2. [`create`]: the pair, both ends down, the host's end marked with its owner;
//! 3. [`configure`]: addresses and offloads of the pod's end, which stays down; then the host's
//!    end comes up, so that the dataplane can bind to it;
//! 4. [`open`], once the policy is in force: the pod's end comes up and gets its routes.

mod pod;

use std::io;

use margay_cni_api::{Attachment, CniError, Code, EndpointPlan, Workload};
use margay_model::Mac;
use sha1::{Digest, Sha1};

use crate::netlink::{Link, RouteSocket, VethPair};
use crate::netns::Netns;
use crate::sysctl;

pub(crate) use pod::{configure, gateways, inspect, open};

/// Ethernet address of every host end, as Calico's: pods keep their neighbour entries whatever
/// happens to the host's end.
pub(crate) const HOST_MAC: Mac = Mac([0xee; 6]);

/// A pair that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) host_name: String,
    pub(crate) host_index: u32,
    pub(crate) pod_name: String,
    pub(crate) pod_index: u32,
    pub(crate) pod_mac: Mac,
    pub(crate) mtu: u32,
}

/// Longest alias of a link, IFALIASZ less the terminating zero.
const LONGEST_ALIAS: usize = 255;

/// Name of the host's end: `cali` and the first 11 hexadecimal digits of sha1("namespace.pod").
pub(crate) fn host_name(workload: &Workload) -> String {
    let digest = Sha1::digest(format!("{}.{}", workload.namespace, workload.pod));
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    // 12 digits were made; ASCII, so the cut is between characters.
    format!("cali{}", hex.get(..11).unwrap_or(&hex))
}

/// What marks a host end as an attachment's own, for DEL and GC. The alias survives the plugin,
/// the agent and the namespace's path, and cannot be changed from within the pod.
fn alias(attachment: &Attachment) -> String {
    let Attachment { network, container_id, ifname } = attachment;
    let mut alias = format!("margay/{network}/{ifname}/{container_id}");
    alias.truncate(LONGEST_ALIAS);
    alias
}

/// What every alias of a network's attachments begins with.
fn alias_prefix(network: &str) -> String {
    format!("margay/{network}/")
}

/// Makes way for the pair. The caller holds the namespace's lock, so no ADD of this container is
/// under way.
///
/// # Errors
/// [`Code::INTERFACE_EXISTS`] when the container has an interface of that name which is not the
/// leftover of a crashed ADD (ours, and never brought up).
pub(crate) fn prepare(
    netns: &Netns,
    attachment: &Attachment,
    host_name: &str,
) -> Result<(), CniError> {
    let failed = failed("looking for an interface of the same name");
    let mut socket = RouteSocket::open().map_err(failed)?;
    let leftover = socket.link(host_name).map_err(failed)?;
    let theirs = netns
        .enter(|| RouteSocket::open()?.link(&attachment.ifname))
        .and_then(|link| link)
        .map_err(failed)?;
    if let Some(theirs) = theirs {
        let crashed = leftover.as_ref().is_some_and(|host| host.is_peer_of(&theirs) && !theirs.up);
        if !crashed {
            return Err(CniError::new(
                Code::INTERFACE_EXISTS,
                format!("the container has an interface {} already", attachment.ifname),
                "let the runtime call DEL first, or choose another CNI_IFNAME",
            ));
        }
    }
    let Some(leftover) = leftover else { return Ok(()) };
    refuse_second_interface(&leftover, attachment)?;
    tracing::warn!(interface = leftover.name, alias = leftover.alias, "replaced");
    socket.delete_link(leftover.index).map_err(self::failed("deleting an interface left over"))
}

/// The host's name follows from the pod alone, so a second interface of one container would take
/// the first one's place.
fn refuse_second_interface(leftover: &Link, attachment: &Attachment) -> Result<(), CniError> {
    let mut parts = leftover.alias.splitn(4, '/').skip(1);
    let (Some(network), Some(ifname), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(());
    };
    let same_interface = network == attachment.network && ifname == attachment.ifname;
    if same_interface || id != attachment.container_id {
        return Ok(());
    }
    Err(CniError::new(
        Code::INTERFACE_EXISTS,
        format!("the container has an interface {ifname} of network {network} already"),
        "a pod has one interface of Margay; use another plugin for the second one",
    ))
}

/// Makes the pair, both ends down.
pub(crate) fn create(
    netns: &Netns,
    attachment: &Attachment,
    host_name: &str,
    plan: &EndpointPlan,
    mac: Mac,
) -> Result<Pair, CniError> {
    let failed = failed("making the veth pair");
    let mut socket = RouteSocket::open().map_err(failed)?;
    let pair = VethPair {
        host_name,
        host_mac: HOST_MAC,
        pod_name: &attachment.ifname,
        pod_mac: mac,
        pod_netns: netns.as_raw_fd(),
        mtu: plan.mtu,
        queues: plan.queues.max(1),
    };
    socket.create_veth(&pair).map_err(failed)?;
    // The kernel tells the new index only to those who ask by name.
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let host = socket.link(host_name).and_then(|link| link.ok_or_else(gone)).map_err(failed)?;
    socket.set_alias(host.index, &alias(attachment)).map_err(failed)?;
    let pod = netns
        .enter(|| RouteSocket::open()?.link(&attachment.ifname))
        .and_then(|link| link?.ok_or_else(gone))
        .map_err(failed)?;
    Ok(Pair {
        host_name: host_name.to_owned(),
        host_index: host.index,
        pod_name: attachment.ifname.clone(),
        pod_index: pod.index,
        pod_mac: mac,
        mtu: plan.mtu,
    })
}

/// Brings the host's end up. It has no address and speaks no IPv6: the dataplane answers ARP and
/// neighbour discovery, the kernel must not.
pub(crate) fn raise_host_end(pair: &Pair) -> Result<(), CniError> {
    let failed = failed("bringing the host's end up");
    let v6 = format!("ipv6/conf/{}/disable_ipv6", pair.host_name);
    sysctl::set(&v6, "1").map_err(failed)?;
    RouteSocket::open().and_then(|mut socket| socket.set_up(pair.host_index)).map_err(failed)
}

/// Deletes every host end that belongs to the attachment; none is success.
pub(crate) fn delete(attachment: &Attachment, host_name: &str) -> Result<(), CniError> {
    let ours = alias(attachment);
    // One without an alias was made by an ADD that died before its next request.
    delete_where(|link| link.alias == ours || (link.name == host_name && link.alias.is_empty()))
}

/// Deletes every host end of the network whose attachment is not valid.
pub(crate) fn delete_stale(network: &str, valid: &[Attachment]) -> Result<(), CniError> {
    let prefix = alias_prefix(network);
    let valid: Vec<_> = valid.iter().map(alias).collect();
    delete_where(|link| link.alias.starts_with(&prefix) && !valid.contains(&link.alias))
}

fn delete_where(chosen: impl Fn(&Link) -> bool) -> Result<(), CniError> {
    let failed = failed("deleting the host's end");
    let mut socket = RouteSocket::open().map_err(failed)?;
    for link in socket.links().map_err(failed)?.iter().filter(|link| chosen(link)) {
        socket.delete_link(link.index).map_err(failed)?;
    }
    Ok(())
}

/// The host's end, if it is the attachment's own.
pub(crate) fn find_host_end(
    attachment: &Attachment,
    host_name: &str,
) -> Result<Option<Link>, CniError> {
    let failed = failed("looking for the host's end");
    let link = RouteSocket::open().and_then(|mut socket| socket.link(host_name)).map_err(failed)?;
    let ours = alias(attachment);
    Ok(link.filter(|link| link.alias == ours))
}

/// A random Ethernet address: unicast, locally administered.
pub(crate) fn random_mac() -> Result<Mac, CniError> {
    let mut bytes = [0; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| failed("drawing an Ethernet address")(error.into()))?;
    bytes[0] = bytes[0] & 0xfe | 0x02;
    Ok(Mac(bytes))
}

/// An I/O error with what was being done.
pub(crate) fn failed(doing: &'static str) -> impl Fn(io::Error) -> CniError + Copy {
    move |error| {
        let mend = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run the plugin as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN"
            }
            _ => "",
        };
        CniError::new(Code::IO, format!("{doing}: {error}"), mend)
    }
}

#[cfg(test)]
mod tests {
    use margay_cni_api::Orchestrator;

    use super::*;

    #[test]
    fn the_host_name_is_calicos() {
        let workload = Workload {
            orchestrator: Orchestrator::K8s,
            namespace: "default".into(),
            pod: "web-0".into(),
            uid: String::new(),
        };
        // printf default.web-0 | sha1sum
        assert_eq!(host_name(&workload), "cali0d7763386da");
    }

    #[test]
    fn a_random_mac_is_unicast_and_locally_administered() {
        let Mac(bytes) = random_mac().expect("randomness");
        assert_eq!(bytes[0] & 0x03, 0x02);
        assert_ne!(random_mac().expect("randomness"), Mac(bytes));
    }

    #[test]
    fn an_alias_fits_the_kernel() {
        let attachment = Attachment {
            network: "margay".into(),
            container_id: "c".repeat(300),
            ifname: "eth0".into(),
        };
        assert_eq!(alias(&attachment).len(), LONGEST_ALIAS);
    }
}
