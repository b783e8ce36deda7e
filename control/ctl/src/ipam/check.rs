//! `margayctl ipam check`.

use margay_ipam::check::User;
use margay_resources::{Kind, Resource};

use super::Context;
use crate::failure::Failure;
use crate::output::write_structured;

/// Arguments of `ipam check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare the records with each other only, not with who uses addresses
    #[arg(long)]
    records_only: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let users = if args.records_only { None } else { Some(users(context).await?) };
    let report = context.ipam.check(users.as_deref()).await?;
    if !write_structured(context.form, &report)? {
        println!(
            "{} blocks, {} handles, {} addresses in use",
            report.blocks, report.handles, report.allocated
        );
        report.findings.iter().for_each(|finding| println!("{finding}"));
    }
    match report.findings.len() {
        0 => Ok(()),
        count => Err(Failure::Findings(count)),
    }
}

/// Who uses addresses: the workload endpoints, and the nodes for their tunnels.
async fn users(context: &Context) -> Result<Vec<User>, Failure> {
    let mut users = Vec::new();
    for kind in [Kind::WorkloadEndpoint, Kind::Node] {
        for object in context.store.list(&kind.stored()).await?.objects {
            let name = object.key.to_string();
            let addresses = match Resource::from_value(&object.value)? {
                Resource::WorkloadEndpoint(endpoint) => {
                    endpoint.spec.ip_networks.iter().map(|net| net.net().addr()).collect()
                }
                Resource::Node(node) => {
                    let ipip = node.spec.bgp.map(|bgp| bgp.ipv4_ipip_tunnel_addr);
                    let vxlan =
                        [node.spec.ipv4_vxlan_tunnel_addr, node.spec.ipv6_vxlan_tunnel_addr];
                    ipip.into_iter().chain(vxlan).filter_map(|text| text.parse().ok()).collect()
                }
                _ => Vec::new(),
            };
            users.extend(addresses.into_iter().map(|ip| User { ip, name: name.clone() }));
        }
    }
    Ok(users)
}
