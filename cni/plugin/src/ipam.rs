//! The IPAM plugin's verbs: each is one question to the agent.

use std::net::IpAddr;

use ipnet::IpNet;
use margay_cni_api::{AddressStatus, Allocate, CheckAddress, CniError, GcAddresses, Release};

use crate::Output;
use crate::config::NetConf;
use crate::environment::{Environment, Verb};
use crate::result::{CniResult, Ip};
use crate::verb::gc::{conclude, note};
use crate::verb::status::judge;

/// Runs a verb of the IPAM plugin.
pub(crate) fn run(environment: &Environment, config: &NetConf) -> Result<Output, CniError> {
    match environment.verb {
        Verb::Add => add(environment, config).map(|result| Some(result.to_json(config.version))),
        Verb::Del => del(environment, config).map(|()| None),
        Verb::Check => check(environment, config).map(|()| None),
        Verb::Gc => gc(config).map(|()| None),
        Verb::Status => status(config).map(|()| None),
        // Answered before the configuration was read.
        Verb::Version => Ok(None),
    }
}

/// The addresses alone: the interface plugin knows what they are put on.
fn add(environment: &Environment, config: &NetConf) -> Result<CniResult, CniError> {
    let lease = config.agent().call(Allocate {
        attachment: environment.attachment(&config.name),
        workload: environment.workload(),
        families: config.ipam.families,
        ipv4_pools: config.ipam.ipv4_pools.clone(),
        ipv6_pools: config.ipam.ipv6_pools.clone(),
        ips: wishes(environment, config),
    })?;
    let ip = |address| Ip { address: IpNet::from(address), gateway: None, interface: None };
    Ok(CniResult { ips: lease.addresses.into_iter().map(ip).collect(), ..CniResult::default() })
}

/// What the runtime asks for in the configuration and in CNI_ARGS, each address once (podman's
/// `--ip` comes by both ways).
fn wishes(environment: &Environment, config: &NetConf) -> Vec<IpAddr> {
    let mut ips = config.ips.clone();
    ips.extend(environment.args.ip.filter(|ip| !config.ips.contains(ip)));
    ips
}

fn del(environment: &Environment, config: &NetConf) -> Result<(), CniError> {
    let release = Release {
        attachment: environment.attachment(&config.name),
        workload: environment.workload(),
    };
    config.agent().call(release).map(drop)
}

fn check(environment: &Environment, config: &NetConf) -> Result<(), CniError> {
    let check = CheckAddress {
        attachment: environment.attachment(&config.name),
        addresses: config.demand_prev_result()?.addresses_of(&environment.ifname),
    };
    config.agent().call(check).map(drop)
}

fn gc(config: &NetConf) -> Result<(), CniError> {
    let swept = config.agent().call(GcAddresses {
        network: config.name.clone(),
        valid: config.valid_attachments.clone(),
    })?;
    let mut failures = Vec::new();
    note(&mut failures, swept);
    conclude(&failures)
}

fn status(config: &NetConf) -> Result<(), CniError> {
    judge(config.agent().call(AddressStatus {
        families: config.ipam.families,
        ipv4_pools: config.ipam.ipv4_pools.clone(),
        ipv6_pools: config.ipam.ipv6_pools.clone(),
    }))
}
