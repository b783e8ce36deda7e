//! `margayctl ipam show`.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use margay_ipam::query::{AddressState, BlockUsage, PoolUsage, Usage};
use margay_ipam::{Allocation, Owner};
use margay_resources::v3::IpamConfigurationSpec;
use margay_resources::{Kind, Resource};
use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::failure::Failure;
use crate::output::{Table, write_structured};

/// Arguments of `ipam show`.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct Args {
    /// Who has this address
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
    /// The blocks of each pool too
    #[arg(long)]
    show_blocks: bool,
    /// The addresses that nodes use out of other nodes' blocks
    #[arg(long)]
    show_borrowed: bool,
    /// How addresses are assigned
    #[arg(long)]
    show_configuration: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    if let Some(ip) = args.ip {
        return address(context, ip).await;
    }
    if args.show_borrowed {
        return borrowed(context).await;
    }
    if args.show_configuration {
        return configuration(context).await;
    }
    let usage = context.ipam.usage().await?;
    if write_structured(context.form, &Shown::of(&usage, args.show_blocks))? {
        return Ok(());
    }
    let mut table =
        Table::new(["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE", "OWNER"]);
    for pool in &usage.pools {
        table.push(row("IP Pool", pool.cidr, [pool.size, pool.used, pool.free], None));
        if args.show_blocks {
            pool.blocks.iter().for_each(|block| table.push(block_row("Block", block)));
        }
    }
    for block in &usage.orphans {
        table.push(block_row("Block without pool", block));
    }
    Ok(table.write(&mut io::stdout().lock())?)
}

fn block_row(grouping: &str, block: &BlockUsage) -> Vec<String> {
    let counts = [block.size, block.used, block.free].map(|count| count as u128);
    row(grouping, block.cidr, counts, block.owner.as_ref())
}

/// Total, in use and free, the latter two with their share in whole percents.
fn row(grouping: &str, cidr: IpNet, counts: [u128; 3], owner: Option<&Owner>) -> Vec<String> {
    let [total, used, free] = counts;
    let share = |count: u128| format!("{count} ({}%)", count.saturating_mul(100) / total.max(1));
    let owner = owner.map(ToString::to_string).unwrap_or_default();
    vec![grouping.to_owned(), cidr.to_string(), total.to_string(), share(used), share(free), owner]
}

async fn address(context: &Context, ip: IpAddr) -> Result<(), Failure> {
    let state = context.ipam.address(ip).await?;
    if write_structured(context.form, &state)? {
        return Ok(());
    }
    match state {
        AddressState::Outside => println!("{ip} is in no pool"),
        AddressState::Free { reserved: true } => println!("{ip} is free, but reserved"),
        AddressState::Free { reserved: false } => println!("{ip} is free"),
        AddressState::InUse(allocation) => {
            println!("{ip} is in use");
            println!("Handle: {}", allocation.handle.as_deref().unwrap_or("none"));
            println!("Block: {}", allocation.block);
            for (key, value) in &allocation.attributes {
                println!("{key}: {value}");
            }
        }
    }
    Ok(())
}

async fn borrowed(context: &Context) -> Result<(), Failure> {
    let borrowed = context.ipam.borrowed().await?;
    if write_structured(context.form, &borrowed)? {
        return Ok(());
    }
    let mut table = Table::new(["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "ALLOCATED-TO"]);
    for allocation in &borrowed {
        let attribute = |key: &str| allocation.attributes.get(key).cloned().unwrap_or_default();
        let to = match (attribute("namespace"), attribute("pod")) {
            (_, pod) if pod.is_empty() => attribute("type"),
            (namespace, pod) => format!("{namespace}/{pod}"),
        };
        let Allocation { ip, block, owner, .. } = allocation;
        let owner = owner.as_ref().map(ToString::to_string).unwrap_or_default();
        table.push(vec![ip.to_string(), attribute("node"), block.to_string(), owner, to]);
    }
    Ok(table.write(&mut io::stdout().lock())?)
}

async fn configuration(context: &Context) -> Result<(), Failure> {
    let key = Kind::IpamConfiguration.key("", "default");
    let spec = match context.store.get(&key).await {
        Ok(object) => match Resource::from_value(&object.value)? {
            Resource::IpamConfiguration(configuration) => configuration.spec,
            _ => IpamConfigurationSpec::default(),
        },
        Err(error) if error.is_not_found() => IpamConfigurationSpec::default(),
        Err(error) => return Err(error.into()),
    };
    print_configuration(context, &spec)
}

/// Writes the settings, those too that have their defaults.
pub(super) fn print_configuration(
    context: &Context,
    spec: &IpamConfigurationSpec,
) -> Result<(), Failure> {
    let auto_allocate = spec.auto_allocate_blocks.unwrap_or(true);
    let shown = json!({
        "strictAffinity": spec.strict_affinity,
        "autoAllocateBlocks": auto_allocate,
        "maxBlocksPerHost": spec.max_blocks_per_host,
    });
    if write_structured(context.form, &shown)? {
        return Ok(());
    }
    let mut table = Table::new(["PROPERTY", "VALUE"]);
    for (property, value) in [
        ("StrictAffinity", spec.strict_affinity.to_string()),
        ("AutoAllocateBlocks", auto_allocate.to_string()),
        ("MaxBlocksPerHost", spec.max_blocks_per_host.to_string()),
    ] {
        table.push(vec![property.to_owned(), value]);
    }
    Ok(table.write(&mut io::stdout().lock())?)
}

/// The form for programs.
#[derive(Serialize)]
struct Shown<'a> {
    pools: Vec<ShownPool<'a>>,
    #[serde(rename = "blocksWithoutPool")]
    orphans: Vec<ShownBlock>,
}

#[derive(Serialize)]
struct ShownPool<'a> {
    name: &'a str,
    cidr: IpNet,
    size: u128,
    used: u128,
    free: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<ShownBlock>>,
}

#[derive(Serialize)]
struct ShownBlock {
    cidr: IpNet,
    owner: Option<String>,
    size: usize,
    used: usize,
    free: usize,
}

// === impl Shown ===

impl<'a> Shown<'a> {
    fn of(usage: &'a Usage, with_blocks: bool) -> Self {
        let blocks = |blocks: &[BlockUsage]| blocks.iter().map(ShownBlock::of).collect::<Vec<_>>();
        let pool = |pool: &'a PoolUsage| ShownPool {
            name: &pool.name,
            cidr: pool.cidr,
            size: pool.size,
            used: pool.used,
            free: pool.free,
            blocks: with_blocks.then(|| blocks(&pool.blocks)),
        };
        Self { pools: usage.pools.iter().map(pool).collect(), orphans: blocks(&usage.orphans) }
    }
}

impl ShownBlock {
    fn of(block: &BlockUsage) -> Self {
        Self {
            cidr: block.cidr,
            owner: block.owner.as_ref().map(ToString::to_string),
            size: block.size,
            used: block.used,
            free: block.free,
        }
    }
}
