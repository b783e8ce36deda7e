//! The action Log: a line for each packet that met such a rule, within the rule's limit.

use std::collections::HashMap;

use margay_engine::Snapshot;
use margay_model::Settings;
use margay_model::node::LogLimit;
use margay_tables::addr::Tuple;
use margay_tables::flow::Logged;
use tracing::info;

use super::names::Names;

/// The limit of a rule where none is set: Calico then has none, and leaves it to the kernel's.
const UNSET: LogLimit = LogLimit { packets: 100, per_ms: 1000 };
/// The limit of all rules together.
const TOGETHER: LogLimit = LogLimit { packets: 1000, per_ms: 1000 };
/// Rules that have a limit of their own at most; then all begin anew.
const MOST: usize = 4096;

/// The limits.
#[derive(Debug, Default)]
pub(super) struct Log {
    rules: HashMap<u32, Bucket>,
    all: Option<Bucket>,
    /// Packets that were held back.
    held_back: u64,
}

/// Credit in packets times milliseconds.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    credit: u64,
    at: u32,
    /// Packets held back since the last line.
    held_back: u64,
}

// === impl Log ===

impl Log {
    /// Writes a line about a packet, if its rule's limit allows one.
    pub(super) fn packet(
        &mut self,
        snapshot: &Snapshot,
        names: &mut Names,
        packet: &Logged,
        now: u32,
    ) {
        let Settings { log_prefix, log_limit, log_burst, .. } = &snapshot.settings;
        if self.rules.len() >= MOST {
            self.rules.clear();
        }
        let limit = log_limit.unwrap_or(UNSET);
        let bucket =
            self.rules.entry(packet.rule).or_insert_with(|| Bucket::new(now, limit, *log_burst));
        let all = self.all.get_or_insert_with(|| Bucket::new(now, TOGETHER, TOGETHER.packets));
        if !bucket.take(now, limit, *log_burst) || !all.take(now, TOGETHER, TOGETHER.packets) {
            bucket.held_back += 1;
            self.held_back += 1;
            return;
        }
        let held_back = std::mem::take(&mut bucket.held_back);
        let (policy, rule) = names.rule(snapshot, packet.rule).unwrap_or_else(|| ("".into(), 0));
        let tier = names.tier(snapshot, &policy).unwrap_or_default();
        info!(
            target: "margay::packet",
            policy = &*policy,
            tier = &*tier,
            rule,
            direction = if packet.ingress { "ingress" } else { "egress" },
            length = packet.len,
            held_back,
            "{}: {}",
            prefix(log_prefix, &tier, &policy),
            words(&packet.tuple, packet.icmp),
        );
    }

    /// Packets that were held back.
    pub(super) fn held_back(&self) -> u64 {
        self.held_back
    }
}

// === impl Bucket ===

impl Bucket {
    fn new(now: u32, limit: LogLimit, burst: u32) -> Self {
        Self { credit: full(limit, burst), at: now, held_back: 0 }
    }

    fn take(&mut self, now: u32, limit: LogLimit, burst: u32) -> bool {
        let elapsed = u64::from(now.wrapping_sub(self.at));
        self.at = now;
        let more = elapsed.saturating_mul(limit.packets.into());
        self.credit = self.credit.saturating_add(more).min(full(limit, burst));
        let price = u64::from(limit.per_ms);
        let enough = self.credit >= price;
        self.credit -= if enough { price } else { 0 };
        enough
    }
}

fn full(limit: LogLimit, burst: u32) -> u64 {
    u64::from(burst.max(1)) * u64::from(limit.per_ms)
}

/// The prefix with its specifiers replaced as Calico does: `%t` tier, `%k` kind in its short form,
/// `%n` name, `%p` namespace and name.
fn prefix(format: &str, tier: &str, policy: &str) -> String {
    let mut parts = policy.splitn(3, '/');
    let (kind, namespace, name) =
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let mut out = String::with_capacity(format.len() + policy.len());
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let specifier = behind.get(..2).unwrap_or(behind);
        match specifier {
            "%t" => out.push_str(tier),
            "%k" => out.push_str(short(kind)),
            "%n" => out.push_str(name),
            "%p" if namespace.is_empty() => out.push_str(name),
            "%p" => out.extend([namespace, "/", name]),
            // As it is; what follows the sign may begin a specifier itself.
            _ => {
                out.push('%');
                rest = behind.get(1..).unwrap_or("");
                continue;
            }
        }
        rest = behind.get(2..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// A kind as Calico abbreviates it.
fn short(kind: &str) -> &str {
    match kind {
        "NetworkPolicy" => "np",
        "GlobalNetworkPolicy" => "gnp",
        "KubernetesNetworkPolicy" => "knp",
        "KubernetesClusterNetworkPolicy" => "kcnp",
        "Profile" => "pro",
        other => other,
    }
}

fn words(tuple: &Tuple, (kind, code): (u8, u8)) -> String {
    use margay_wire::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
    let name = match tuple.protocol {
        TCP => "TCP",
        UDP => "UDP",
        SCTP => "SCTP",
        UDPLITE => "UDPLite",
        ICMP => "ICMP",
        ICMPV6 => "ICMPv6",
        other => return format!("protocol {other} {} → {}", ip(tuple.src), ip(tuple.dst)),
    };
    match tuple.protocol {
        ICMP | ICMPV6 => format!("{name} {kind}/{code} {} → {}", ip(tuple.src), ip(tuple.dst)),
        _ => {
            let end = |addr, port| std::net::SocketAddr::new(ip(addr), port);
            let (src, dst) = (end(tuple.src, tuple.src_port), end(tuple.dst, tuple.dst_port));
            format!("{name} {src} → {dst}")
        }
    }
}

fn ip(addr: margay_tables::addr::Addr) -> std::net::IpAddr {
    addr.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_are_replaced_and_everything_else_stays() {
        let np = "NetworkPolicy/shop/front";
        for (format, policy, expected) in [
            ("calico-packet", np, "calico-packet"),
            ("%t %k %n %p", np, "default np front shop/front"),
            ("%p", "GlobalNetworkPolicy//all", "all"),
            ("100%% %x%n%", np, "100%% %xfront%"),
            ("é%né", np, "éfronté"),
        ] {
            assert_eq!(prefix(format, "default", policy), expected, "{format}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_what_the_limit_gives() {
        let limit = LogLimit { packets: 2, per_ms: 1000 };
        let mut bucket = Bucket::new(0, limit, 5);
        let at_once = (0..20).filter(|_| bucket.take(0, limit, 5)).count();
        let later = (1..=10_000).filter(|now| bucket.take(*now, limit, 5)).count();
        assert_eq!((at_once, later), (5, 20));
    }
}
