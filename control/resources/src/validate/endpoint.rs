//! Host endpoints and workload endpoints.

use super::text;
use crate::field::Report;
use crate::v3::{HostEndpointSpec, Protocol, WorkloadEndpointSpec};

/// Checks a host endpoint.
pub(super) fn host(spec: &HostEndpointSpec, report: &mut Report<'_>) {
    report.wrong_if(spec.node.is_empty(), "node", "is missing");
    text::object_name(report, "node", &spec.node);
    if spec.interface_name.is_empty() && spec.expected_ips.is_empty() {
        report.wrong_at("interfaceName", "is missing; give it or expectedIPs");
    }
    if !matches!(spec.interface_name.as_str(), "" | "*") {
        interface(&spec.interface_name, report);
    }
    report.each("profiles", &spec.profiles, |report, name| {
        if !text::is_dns_subdomain(name) {
            report.wrong(text::not_a_name(name));
        }
    });
    report.each("ports", &spec.ports, |report, port| {
        port_of(port.protocol, port.port, report);
        let fits = text::is_port_name(&port.name);
        report.wrong_if(!fits, "name", not_a_port_name(&port.name));
    });
}

/// Checks a workload endpoint.
pub(super) fn workload(spec: &WorkloadEndpointSpec, report: &mut Report<'_>) {
    report.each("ipNetworks", &spec.ip_networks, |report, net| {
        if net.net().prefix_len() != net.net().max_prefix_len() {
            report.wrong(format!("{net} has more than one address"));
        }
    });
    report.each("ipNATs", &spec.ip_nats, |report, nat| {
        if nat.internal_ip.is_ipv4() != nat.external_ip.is_ipv4() {
            report.wrong_at("externalIP", "is of another family than internalIP");
        }
        let own = |net: &crate::v3::Net| net.net().contains(&nat.internal_ip);
        let foreign = !spec.ip_networks.iter().any(own);
        report.wrong_if(foreign, "internalIP", "is not in ipNetworks");
    });
    text::address(report, "ipv4Gateway", &spec.ipv4_gateway, Some(false));
    text::address(report, "ipv6Gateway", &spec.ipv6_gateway, Some(true));
    if spec.interface_name.is_empty() {
        report.wrong_at("interfaceName", "is missing");
    } else {
        interface(&spec.interface_name, report);
    }
    let bad_mac = !spec.mac.is_empty() && !text::is_mac(&spec.mac);
    report.wrong_if(bad_mac, "mac", format!("`{}` is not an Ethernet address", spec.mac));
    report.each("ports", &spec.ports, |report, port| {
        port_of(port.protocol, port.port, report);
        let nameless = port.name.is_empty() && port.host_port == 0;
        report.wrong_if(nameless, "name", "is missing; only a port with a hostPort needs none");
        let bad_name = !port.name.is_empty() && !text::is_port_name(&port.name);
        report.wrong_if(bad_name, "name", not_a_port_name(&port.name));
        text::address(report, "hostIP", &port.host_ip, None);
    });
}

fn interface(name: &str, report: &mut Report<'_>) {
    if !text::is_interface(name, false) {
        let why =
            format!("`{name}` is not an interface: at most 15 letters, digits, `_`, `.` and `-`");
        report.wrong_at("interfaceName", why);
    }
}

fn port_of(protocol: Protocol, port: u16, report: &mut Report<'_>) {
    report.wrong_if(!protocol.has_ports(), "protocol", format!("{protocol} has no ports"));
    report.wrong_if(port == 0, "port", "0 is not a port");
}

fn not_a_port_name(name: &str) -> String {
    format!(
        "`{name}` is not a port name: at most 15 lower-case letters, digits and `-`, with a letter"
    )
}
