//! The interface by which this node reaches the others.

use std::net::IpAddr;

use futures::TryStreamExt;
use margay_model::LARGEST_MTU;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, new_connection};
use tracing::warn;

use crate::config::NodeAddresses;

/// Assumed where no interface has the node's address: Ethernet's.
const USUAL_MTU: u16 = 1500;

/// The kernel could not be asked.
#[derive(Debug, thiserror::Error)]
enum UplinkError {
    #[error("cannot open a netlink socket")]
    Socket(#[from] std::io::Error),
    #[error("netlink")]
    Netlink(#[from] rtnetlink::Error),
}

/// MTU of the interface that has the node's address, in bytes: the smallest, if several have, and no
/// more than the dataplane carries.
pub(crate) async fn mtu(addresses: &NodeAddresses) -> u16 {
    let v4 = addresses.v4.map(|(address, _)| address.into());
    let v6 = addresses.v6.map(|(address, _)| address.into());
    let own: Vec<IpAddr> = [v4, v6].into_iter().flatten().collect();
    match smallest_mtu(&own).await {
        Ok(Some(mtu)) => mtu.min(LARGEST_MTU),
        Ok(None) => {
            warn!(?own, mtu = USUAL_MTU, "no interface has the node's address; assuming an MTU");
            USUAL_MTU
        }
        Err(error) => {
            warn!(%error, mtu = USUAL_MTU, "the MTU of the uplink is not known; assuming one");
            USUAL_MTU
        }
    }
}

async fn smallest_mtu(own: &[IpAddr]) -> Result<Option<u16>, UplinkError> {
    let (connection, handle, _) = new_connection()?;
    let connection = tokio::spawn(connection);
    let found = smallest_of(&handle, own).await;
    connection.abort();
    Ok(found?)
}

async fn smallest_of(handle: &Handle, own: &[IpAddr]) -> Result<Option<u16>, rtnetlink::Error> {
    let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
    let mut smallest = None;
    for message in addresses {
        let has_one = message.attributes.iter().any(|attribute| match attribute {
            AddressAttribute::Address(address) => own.contains(address),
            _ => false,
        });
        if !has_one {
            continue;
        }
        let links = handle.link().get().match_index(message.header.index).execute();
        let links: Vec<_> = links.try_collect().await?;
        for attribute in links.iter().flat_map(|link| &link.attributes) {
            if let LinkAttribute::Mtu(mtu) = attribute {
                // Loopback's 65536 and the like are no limit.
                let mtu = u16::try_from(*mtu).unwrap_or(u16::MAX);
                smallest = Some(smallest.map_or(mtu, |least: u16| least.min(mtu)));
            }
        }
    }
    Ok(smallest)
}
