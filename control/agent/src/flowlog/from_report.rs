//! From the dataplane's report of a flow to entries of the log: one for each of its ends that is on
//! this node.

use std::net::IpAddr;

use margay_protocol::proto;
use margay_resources::v3::Protocol;

use super::entry::{FlowKey, Policies, PolicyHit, Reporter, Stats, Verdict};
use super::names::Names;

/// The entries of a report, at most one for each end; none of one that cannot be read.
pub(super) fn entries(
    report: &proto::FlowReport,
    names: &Names,
) -> impl Iterator<Item = (FlowKey, Stats)> + use<> {
    let flow = report.flow.as_ref().and_then(Flow::new);
    let both = flow.into_iter().flat_map(|flow| {
        let source = Some(Reporter::Src).filter(|_| !report.src.is_empty());
        // A flow that its source denied never came to its destination.
        let came = flow.allowed || report.ingress.is_some();
        let dest = Some(Reporter::Dst).filter(|_| !report.dst.is_empty() && came);
        let of = |reporter| (key(&flow, report, reporter, names), stats(report, reporter));
        [source.map(of), dest.map(of)]
    });
    both.flatten().collect::<Vec<_>>().into_iter()
}

/// What of a flow goes into its key.
struct Flow {
    protocol: u8,
    source: IpAddr,
    /// As it was asked.
    asked: (IpAddr, u16),
    /// As it answers.
    dest: (IpAddr, u16),
    allowed: bool,
}

// === impl Flow ===

impl Flow {
    fn new(flow: &proto::Flow) -> Option<Self> {
        let (orig, reply) = (flow.orig.as_ref()?, flow.reply.as_ref()?);
        let protocol = u8::try_from(orig.protocol).ok()?;
        let port = |port: u32| match has_ports(protocol) {
            true => u16::try_from(port).unwrap_or(0),
            false => 0,
        };
        Some(Self {
            protocol,
            source: address(&orig.src)?,
            asked: (address(&orig.dst)?, port(orig.dst_port)),
            dest: (address(&reply.src)?, port(reply.src_port)),
            allowed: flow.allowed,
        })
    }
}

fn key(flow: &Flow, report: &proto::FlowReport, reporter: Reporter, names: &Names) -> FlowKey {
    let (enforced, pending) = match reporter {
        Reporter::Src => (&report.egress, &report.egress_pending),
        Reporter::Dst => (&report.ingress, &report.ingress_pending),
    };
    // The last end that was asked is the one that denied, or it was no policy at all.
    let last = reporter == Reporter::Dst || report.ingress.is_none();
    let denied = enforced.as_ref().is_some_and(|said| !said.allowed) || (!flow.allowed && last);
    let party =
        |endpoint: &str, address| names.pod(endpoint).unwrap_or_else(|| names.party(address));
    let (asked, port) = flow.asked;
    let service = (flow.asked != flow.dest).then(|| names.service(asked, flow.protocol, port));
    FlowKey {
        reporter,
        action: if denied { Verdict::Deny } else { Verdict::Allow },
        source: party(&report.src, flow.source),
        dest: party(&report.dst, flow.dest.0),
        dest_port: flow.dest.1,
        service: service.flatten().unwrap_or_default(),
        proto: Protocol::of_number(flow.protocol).to_string(),
        policies: Policies {
            enforced: enforced.iter().map(hit).collect(),
            pending: pending.iter().map(hit).collect(),
        },
    }
}

fn hit(said: &proto::Judgement) -> PolicyHit {
    let mut parts = said.policy.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let (mut kind, namespace, name) = (part(), part(), part());
    let by_rule = !kind.is_empty();
    if !by_rule {
        kind = if said.tier.is_empty() { "None" } else { "EndOfTier" }.to_owned();
    }
    PolicyHit {
        kind,
        namespace,
        name,
        tier: said.tier.clone(),
        action: if said.allowed { Verdict::Allow } else { Verdict::Deny },
        rule_index: by_rule.then_some(said.rule),
    }
}

fn stats(report: &proto::FlowReport, reporter: Reporter) -> Stats {
    let count = |count: &Option<proto::FlowCount>| {
        count.as_ref().map_or((0, 0), |count| (count.packets, count.bytes))
    };
    let (orig, reply) = (count(&report.orig_more), count(&report.reply_more));
    let (out, into) = match reporter {
        Reporter::Src => (orig, reply),
        Reporter::Dst => (reply, orig),
    };
    Stats {
        packets_in: into.0,
        packets_out: out.0,
        bytes_in: into.1,
        bytes_out: out.1,
        num_connections_started: report.begun.into(),
        num_connections_completed: report.ended.into(),
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132 | 136)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use margay_resources::Resource;
    use serde_json::{Value, json};

    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        for object in [
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "shop", "name": "web-7d9f-x2", "generateName": "web-7d9f-"},
                "status": {"podIP": "10.65.0.2"}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "db"},
                "status": {"podIP": "10.65.9.3", "podIPs": [{"ip": "10.65.9.3"}, {"ip": "fd00::3"}]}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "db"},
                "spec": {"clusterIP": "10.96.0.10", "ports": [
                    {"name": "sql", "port": 80, "targetPort": 5432, "nodePort": 30080}]}}),
            json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
                "metadata": {"name": "partners"}, "spec": {"nets": ["198.51.100.0/24"]}}),
        ] {
            names.upsert(&Resource::from_value(&object).unwrap());
        }
        names
    }

    fn report(allowed: bool) -> proto::FlowReport {
        let ip = |text: &str| match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let tuple = |src: &str, src_port, dst: &str, dst_port| proto::FlowTuple {
            src: ip(src),
            dst: ip(dst),
            protocol: 6,
            src_port,
            dst_port,
        };
        proto::FlowReport {
            flow: Some(proto::Flow {
                orig: Some(tuple("10.65.0.2", 4000, "10.96.0.10", 80)),
                reply: Some(tuple("10.65.9.3", 5432, "10.65.0.2", 4000)),
                allowed,
                ..Default::default()
            }),
            orig_more: Some(proto::FlowCount { packets: 3, bytes: 300 }),
            reply_more: Some(proto::FlowCount { packets: 2, bytes: 2000 }),
            begun: true,
            src: "shop/web-7d9f-x2/eth0".into(),
            egress: Some(proto::Judgement {
                allowed,
                policy: "NetworkPolicy/shop/out".into(),
                tier: "default".into(),
                rule: 2,
            }),
            ..Default::default()
        }
    }

    fn line(entry: &(FlowKey, Stats)) -> Value {
        serde_json::to_value(super::super::entry::Line {
            start_time: "s",
            end_time: "e",
            node: "n1",
            key: &entry.0,
            stats: entry.1,
        })
        .unwrap()
    }

    #[test]
    fn a_flow_to_a_remote_pod_is_one_line_of_the_source() {
        let entries: Vec<_> = entries(&report(true), &names()).collect();
        assert_eq!(entries.len(), 1);
        let expected = json!({
            "startTime": "s", "endTime": "e", "node": "n1", "reporter": "Src", "action": "Allow",
            "sourceType": "WorkloadEndpoint", "sourceNamespace": "shop", "sourceName": "web-7d9f-*",
            "destType": "WorkloadEndpoint", "destNamespace": "shop", "destName": "db",
            "destPort": 5432, "proto": "TCP", "destServiceNamespace": "shop",
            "destServiceName": "db", "destServicePortName": "sql", "destServicePort": 80,
            "policies": {"enforced": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "out",
                "tier": "default", "action": "Allow", "ruleIndex": 2}], "pending": []},
            "packetsIn": 2, "packetsOut": 3, "bytesIn": 2000, "bytesOut": 300,
            "numConnectionsStarted": 1, "numConnectionsCompleted": 0,
        });
        assert_eq!(line(&entries[0]), expected);
    }

    #[test]
    fn both_ends_on_this_node_are_two_lines_and_each_says_its_own() {
        let mut both = report(false);
        both.dst = "shop/db/eth0".into();
        both.egress.as_mut().unwrap().allowed = true;
        both.ingress = Some(proto::Judgement { tier: "default".into(), ..Default::default() });
        both.ingress_pending = Some(proto::Judgement {
            allowed: true,
            policy: "StagedNetworkPolicy/shop/db".into(),
            ..Default::default()
        });
        let lines: Vec<_> = entries(&both, &names()).map(|entry| line(&entry)).collect();
        let said: Vec<_> = lines.iter().map(|l| (&l["reporter"], &l["action"])).collect();
        assert_eq!(said, [(&json!("Src"), &json!("Allow")), (&json!("Dst"), &json!("Deny"))]);
        assert_eq!(lines[1]["policies"]["enforced"][0]["kind"], "EndOfTier");
        assert_eq!(lines[1]["policies"]["pending"][0]["kind"], "StagedNetworkPolicy");
        assert_eq!((&lines[1]["packetsIn"], &lines[1]["packetsOut"]), (&json!(3), &json!(2)));
    }

    #[test]
    fn what_its_source_denied_never_came_to_the_destination() {
        let mut denied = report(false);
        denied.dst = "shop/db/eth0".into();
        let said: Vec<_> =
            entries(&denied, &names()).map(|(key, _)| (key.reporter, key.action)).collect();
        assert_eq!(said, [(Reporter::Src, Verdict::Deny)]);
    }

    #[test]
    fn what_has_no_endpoint_is_a_set_or_a_network() {
        let names = names();
        let name = |text: &str| names.party(text.parse().unwrap()).name;
        assert_eq!(name("198.51.100.7"), "partners");
        assert_eq!((name("203.0.113.1"), name("192.168.1.1")), ("pub".into(), "pvt".into()));
        assert_eq!((name("fd00::3"), name("fd00::4")), ("db".into(), "pvt".into()));
    }

    #[test]
    fn a_deleted_pod_keeps_its_address_for_a_while_unless_another_gets_it() {
        let mut names = names();
        let (now, db) = (std::time::Instant::now(), "10.65.9.3".parse().unwrap());
        names.delete(margay_resources::Kind::Pod, "shop", "db", now);
        assert_eq!(names.party(db).name, "db");
        let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "x", "name": "new"},
            "status": {"podIP": "10.65.9.3"}});
        names.upsert(&Resource::from_value(&other).unwrap());
        let later = now + std::time::Duration::from_secs(120);
        names.delete(margay_resources::Kind::Service, "x", "none", later);
        assert_eq!(
            (names.party(db).name, names.party("fd00::3".parse().unwrap()).name),
            ("new".into(), "pvt".into())
        );
    }

    #[test]
    fn a_report_that_cannot_be_read_is_no_entry() {
        let mut bad = report(true);
        bad.flow.as_mut().unwrap().orig.as_mut().unwrap().src = vec![1, 2, 3];
        assert_eq!(entries(&bad, &names()).count(), 0);
        assert_eq!(entries(&proto::FlowReport::default(), &names()).count(), 0);
    }
}
