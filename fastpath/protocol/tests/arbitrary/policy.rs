//! Sets, rules, policies, endpoints, host endpoints.

use std::net::IpAddr;

use margay_model::{
    Action, AddressSet, Bandwidth, DefaultAction, Dscp, Endpoint, EntityMatch, HostEndpoint,
    HostInterface, IcmpMatch, IpVersion, Limits, Member, PacketRate, Peak, Policy, Rule,
    TierPolicies, Usage,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{mac, name, names, net, port_range};

pub(crate) fn member() -> impl Strategy<Value = Member> {
    prop_oneof![
        net().prop_map(Member::Net),
        any::<(IpAddr, u8, u16)>().prop_map(|(addr, protocol, port)| Member::AddrPort {
            addr,
            protocol,
            port
        }),
    ]
}

pub(crate) fn set() -> impl Strategy<Value = AddressSet> {
    let pattern = "[*a-z]\\.[a-z-]{1,9}\\.com";
    let domains = vec(pattern.prop_map(|text| text.parse().expect("a pattern")), 0..3);
    (vec(member(), 0..6), domains).prop_map(|(members, domains)| AddressSet {
        domains: domains.into_iter().collect(),
        ..AddressSet::from(members)
    })
}

fn entity() -> impl Strategy<Value = EntityMatch> {
    (
        (vec(net(), 0..3), vec(net(), 0..3)),
        (names(), names(), names(), any::<bool>()),
        (vec(port_range(), 0..3), names(), vec(port_range(), 0..3), names()),
    )
        .prop_map(|((nets, not_nets), (sets, not_sets, addr_port_sets, learned), ports)| {
            let (ports, named_ports, not_ports, not_named_ports) = ports;
            EntityMatch {
                nets,
                not_nets,
                sets,
                learned,
                not_sets,
                addr_port_sets,
                ports,
                named_ports,
                not_ports,
                not_named_ports,
            }
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action =
        prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Pass), Just(Action::Log)];
    let version = option::of(prop_oneof![Just(IpVersion::V4), Just(IpVersion::V6)]);
    let icmp =
        || option::of(any::<(u8, Option<u8>)>().prop_map(|(kind, code)| IcmpMatch { kind, code }));
    let entity = || prop_oneof![Just(EntityMatch::default()), entity()];
    let protocols = any::<(Option<u8>, Option<u8>)>();
    (any::<u32>(), action, version, protocols, icmp(), icmp(), entity(), entity()).prop_map(
        |(number, action, ip_version, protocols, icmp, not_icmp, src, dst)| Rule {
            number,
            action,
            ip_version,
            protocol: protocols.0,
            not_protocol: protocols.1,
            icmp,
            not_icmp,
            src,
            dst,
        },
    )
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    (name(), vec(rule(), 0..3), vec(rule(), 0..3)).prop_map(|(key, ingress, egress)| Policy {
        key,
        ingress,
        egress,
    })
}

fn tier() -> impl Strategy<Value = TierPolicies> {
    let action = prop_oneof![Just(DefaultAction::Deny), Just(DefaultAction::Pass)];
    (name(), action, names(), names()).prop_map(|(name, default_action, ingress, egress)| {
        TierPolicies { name, default_action, ingress, egress }
    })
}

pub(crate) fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        (name(), name(), mac(), any::<u16>(), any::<u32>(), limits()),
        (vec(any::<IpAddr>(), 0..3), vec(net(), 0..3)),
        (vec(tier(), 0..3), option::of(vec(tier(), 0..3)), names()),
    )
        .prop_map(|(what, (addresses, allowed_sources), (tiers, pending, profiles))| {
            let (key, interface, mac, mtu, priority, limits) = what;
            Endpoint {
                key,
                interface,
                mac,
                addresses,
                allowed_sources,
                mtu,
                tiers: tiers.into(),
                pending: pending.map(Into::into),
                profiles: profiles.into(),
                priority,
                limits,
            }
        })
}

fn dscp() -> impl Strategy<Value = Option<Dscp>> {
    option::of((0..=Dscp::MAX).prop_map(|n| Dscp::new(n).expect("in range")))
}

fn limits() -> impl Strategy<Value = Limits> {
    (usage(), usage(), dscp()).prop_map(|(ingress, egress, dscp)| Limits { ingress, egress, dscp })
}

fn usage() -> impl Strategy<Value = Usage> {
    let peak = any::<(u64, u32)>().prop_map(|(rate, burst)| Peak { rate, burst });
    let bandwidth = (any::<(u64, u64)>(), option::of(peak))
        .prop_map(|((rate, burst), peak)| Bandwidth { rate, burst, peak });
    let packets = any::<(u32, u32)>().prop_map(|(rate, burst)| PacketRate { rate, burst });
    (option::of(bandwidth), option::of(packets), option::of(any::<u32>()))
        .prop_map(|(bandwidth, packets, connections)| Usage { bandwidth, packets, connections })
}

pub(crate) fn host() -> impl Strategy<Value = HostEndpoint> {
    let interface = prop_oneof![
        Just(HostInterface::All),
        name().prop_map(HostInterface::Named),
        vec(any::<IpAddr>(), 0..3).prop_map(HostInterface::With),
    ];
    let tiers = || vec(tier(), 0..2);
    (name(), interface, (tiers(), tiers(), tiers(), tiers()), names(), dscp()).prop_map(
        |(key, interface, (untracked, pre_dnat, forward, tiers), profiles, dscp)| HostEndpoint {
            key,
            interface,
            untracked: untracked.into(),
            pre_dnat: pre_dnat.into(),
            forward: forward.into(),
            tiers: tiers.into(),
            profiles: profiles.into(),
            dscp,
        },
    )
}
