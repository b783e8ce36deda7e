//! Which ports processes of the node have bound, as `/proc/net/{tcp,udp}` tell (proc_net_tcp.rst).
//!
//! The range for masquerading is reserved, so that the kernel gives out none of it by itself; a
//! process may still ask for one of its ports by number.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use margay_engine::snapshot::BoundPorts;
use margay_wire::protocol;
use tokio::time::{Instant, sleep};

/// How often is looked; more seldom where looking takes long.
const EVERY: Duration = Duration::from_secs(1);
/// Of the time, at most one part in so many goes into looking.
const SHARE: u32 = 500;

/// Keeps the ports up to date, for ever.
pub(crate) async fn follow(bound: Arc<BoundPorts>) {
    loop {
        let begun = Instant::now();
        let bound = bound.clone();
        let looked = tokio::task::spawn_blocking(move || look(&bound)).await;
        if let Ok(Err(error)) = looked {
            tracing::debug!(%error, "cannot see which ports are bound");
        }
        sleep(EVERY.max(begun.elapsed() * SHARE)).await;
    }
}

fn look(bound: &BoundPorts) -> io::Result<()> {
    for (ip_protocol, name) in [(protocol::TCP, "tcp"), (protocol::UDP, "udp")] {
        let v4 = std::fs::read_to_string(format!("/proc/self/net/{name}"))?;
        // A kernel without IPv6 has no such file.
        let v6 = std::fs::read_to_string(format!("/proc/self/net/{name}6")).unwrap_or_default();
        bound.replace(ip_protocol, v4.lines().chain(v6.lines()).filter_map(local_port));
    }
    Ok(())
}

/// The local port of a line: the second column is `ADDRESS:PORT`, in hexadecimal.
fn local_port(line: &str) -> Option<u16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_this_process_are_seen_of_both_protocols_and_families() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let ends = [listener.local_addr(), socket.local_addr()];
        let [tcp, udp] = ends.map(|addr| addr.unwrap().port());
        let bound = BoundPorts::default();
        look(&bound).unwrap();
        assert!(bound.contains(protocol::TCP, tcp) && bound.contains(protocol::UDP, udp));
        drop((listener, socket));
        look(&bound).unwrap();
        assert!(!bound.contains(protocol::UDP, udp));
    }

    #[test]
    fn a_line_names_its_local_port_in_hexadecimal() {
        let line = "   0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000";
        assert_eq!(local_port(line), Some(0x277));
        for bad in ["", "  sl  local_address rem_address", "0: 1:zz", "0: 0277 1:1"] {
            assert_eq!(local_port(bad), None, "{bad}");
        }
    }
}
