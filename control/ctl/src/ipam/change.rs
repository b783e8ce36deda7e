//! `margayctl ipam configure` and `split`.

use std::io;

use clap::ArgAction;
use ipnet::IpNet;
use margay_ipam::admin::Configuration;
use serde_json::json;

use super::Context;
use super::show::print_configuration;
use crate::failure::Failure;
use crate::output::{Table, write_structured};

/// Arguments of `ipam configure`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Configure {
    /// Nodes use addresses of their own blocks only
    #[arg(long, alias = "strictaffinity", value_name = "BOOL", action = ArgAction::Set)]
    strict_affinity: Option<bool>,
    /// Blocks of a node at most; 0 is Calico's default of 20
    #[arg(long, value_name = "N")]
    max_blocks_per_host: Option<u32>,
    /// Nodes claim blocks when they need them
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    auto_allocate_blocks: Option<bool>,
}

/// Arguments of `ipam split`.
#[derive(Debug, clap::Args)]
pub(crate) struct Split {
    /// Number of parts, a power of 2
    #[arg(value_name = "NUMBER")]
    parts: u32,
    /// Name of the pool
    #[arg(long, value_name = "POOL", required_unless_present = "cidr", conflicts_with = "cidr")]
    name: Option<String>,
    /// Addresses of the pool
    #[arg(long, value_name = "CIDR")]
    cidr: Option<IpNet>,
}

pub(super) async fn configure(context: &Context, args: &Configure) -> Result<(), Failure> {
    let change = Configuration {
        strict_affinity: args.strict_affinity,
        max_blocks_per_host: args.max_blocks_per_host,
        auto_allocate_blocks: args.auto_allocate_blocks,
    };
    let spec = context.ipam.configure(change).await?;
    print_configuration(context, &spec)
}

pub(super) async fn split(context: &Context, args: &Split) -> Result<(), Failure> {
    let name = match (&args.name, args.cidr) {
        (Some(name), _) => name.clone(),
        (None, Some(cidr)) => {
            let pools = context.ipam.usage().await?.pools;
            let pool = pools.into_iter().find(|pool| pool.cidr == cidr);
            pool.ok_or(Failure::NoPool(cidr))?.name
        }
        (None, None) => return Err(Failure::Usage("give the pool's --name or its --cidr")),
    };
    let parts = context.ipam.split_pool(&name, args.parts).await?;
    let shown: Vec<_> =
        parts.iter().map(|(name, cidr)| json!({"name": name, "cidr": cidr.to_string()})).collect();
    if write_structured(context.form, &shown)? {
        return Ok(());
    }
    let mut table = Table::new(["NAME", "CIDR"]);
    for (name, cidr) in parts {
        table.push(vec![name, cidr.to_string()]);
    }
    Ok(table.write(&mut io::stdout().lock())?)
}
