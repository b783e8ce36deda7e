//! What goes back: some of the packets that arrive, turned around, so that an answer comes from where
//! a translation led, and through the tunnel that its question came by.

use arrayvec::ArrayVec;
use margay_wire::{
    at,
    ethernet::{self, Ethernet, ethertype},
    ipv4::{self, Ipv4},
    ipv6, protocol, vxlan,
};
use margay_xsk::Frame;

use crate::{outer::VXLAN_PORT, port::Port, probe::Probe, sink::BATCH};

/// Answers a second: as good as none beside what is measured, and some to each of many connections.
const RATE: f64 = 10_000.0;

/// Sends answers from the port at which packets arrive.
#[derive(Default)]
pub(crate) struct Answers {
    /// Answers that the tx ring took.
    pub(crate) sent: u64,
    /// When the first packet arrived.
    began: Option<u64>,
    ready: ArrayVec<Frame, BATCH>,
}

// === impl Answers ===

impl Answers {
    /// Takes out of a batch what is to be answered by now, of all its connections in turn.
    pub(crate) fn take(&mut self, batch: &mut ArrayVec<Frame, BATCH>, now: u64) {
        let elapsed = now - *self.began.get_or_insert(now);
        // All of the first batch: what came meanwhile is not made up for.
        let due = (RATE * elapsed as f64 / 1e9) as u64 + BATCH as u64;
        while self.sent + (self.ready.len() as u64) < due
            && !self.ready.is_full()
            && !batch.is_empty()
        {
            let mut frame =
                batch.swap_remove((self.sent as usize + self.ready.len()) % batch.len());
            if Probe::find(frame.bytes()).is_none() {
                batch.push(frame);
                return;
            }
            turn(frame.bytes_mut());
            self.ready.push(frame);
        }
    }

    /// Sends what was taken; what the ring has no room for is not answered.
    pub(crate) fn send(&mut self, port: &mut Port) {
        port.socket.complete(&mut port.pool);
        let mut frames = self.ready.drain(..);
        self.sent += port.socket.tx(&mut frames) as u64;
        for frame in frames {
            port.pool.put(frame);
        }
        // Where the interface is lost, the other end says so.
        let _ = port.socket.kick_tx();
    }
}

/// Exchanges the sender and the receiver of a frame, and of what is in its tunnel. No checksum changes: a
/// sum does not depend on the order.
fn turn(frame: &mut [u8]) {
    let Some(header) = frame.first_chunk_mut() else { return };
    let kind = Ethernet(&*header).ethertype();
    header[..12].rotate_left(6);
    let packet = &mut frame[ethernet::LEN..];
    match kind {
        ethertype::IPV4 => turn_ipv4(packet),
        ethertype::IPV6 => turn_ipv6(packet),
        _ => {}
    }
}

fn turn_ipv4(packet: &mut [u8]) {
    let Some(header) = packet.first_chunk_mut::<{ ipv4::LEN }>() else { return };
    header[12..].rotate_left(4);
    let header = Ipv4(&*header);
    let (number, offset) = (header.protocol(), header.header_len().max(ipv4::LEN));
    turn_payload(number, packet.get_mut(offset..).unwrap_or_default());
}

fn turn_ipv6(packet: &mut [u8]) {
    let Some(payload) = ipv6::payload(packet) else { return };
    packet[8..ipv6::LEN].rotate_left(16);
    turn_payload(payload.protocol, packet.get_mut(payload.offset..).unwrap_or_default());
}

/// Each tunnel takes some bytes off, so that this ends.
fn turn_payload(number: u8, payload: &mut [u8]) {
    match number {
        // Its ports are a hash and its own one (RFC 7348 §5), in both directions.
        protocol::UDP if at(payload, 2) == Some(&VXLAN_PORT.to_be_bytes()) => {
            turn(payload.get_mut(vxlan::UDP_LEN + vxlan::LEN..).unwrap_or_default());
        }
        protocol::UDP | protocol::TCP => {
            if let Some(ports) = payload.first_chunk_mut::<4>() {
                ports.rotate_left(2);
            }
        }
        protocol::IPIP => turn_ipv4(payload),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        arguments::{Arguments, Command},
        flows::Flows,
    };
    use clap::Parser;

    /// A frame of these options, of the first flow.
    fn frame(line: &str) -> Vec<u8> {
        let all = format!("pktgen send --interface x {line}");
        let Command::Send(arguments) = Arguments::parse_from(all.split_whitespace()).command else {
            unreachable!("send was given");
        };
        let flows = Flows::new(&arguments.traffic, arguments.traffic.src_mac.unwrap()).unwrap();
        let mut frame = vec![0; 200];
        flows.write(&Probe { flow: 0, number: 1, left: 2 }, 200, &mut frame);
        frame
    }

    #[test]
    fn an_answer_is_what_the_other_end_would_send() {
        for (there, back) in [
            ("--src 10.0.0.1 --dst 10.0.0.2", "--src 10.0.0.2 --dst 10.0.0.1"),
            ("--src fd00::1 --dst fd00::2", "--src fd00::2 --dst fd00::1"),
            (
                "--src 10.0.0.1 --dst 10.0.0.2 --tunnel ipip --tunnel-src 1.1.1.1 --tunnel-dst 2.2.2.2",
                "--src 10.0.0.2 --dst 10.0.0.1 --tunnel ipip --tunnel-src 2.2.2.2 --tunnel-dst 1.1.1.1",
            ),
            (
                "--src fd00::1 --dst fd00::2 --tunnel vxlan --tunnel-src fd20::1 --tunnel-dst fd20::2 \
                 --inner-src-mac 2:0:0:0:0:5 --inner-dst-mac 2:0:0:0:0:6",
                "--src fd00::2 --dst fd00::1 --tunnel vxlan --tunnel-src fd20::2 --tunnel-dst fd20::1 \
                 --inner-src-mac 2:0:0:0:0:6 --inner-dst-mac 2:0:0:0:0:5",
            ),
        ] {
            // The first source port, so that both directions have the same one.
            let ports = "--dst-port 10000";
            let (a, b) = ("2:0:0:0:0:1", "2:0:0:0:0:2");
            let mut turned = frame(&format!("--src-mac {a} --dst-mac {b} {ports} {there}"));
            let other = frame(&format!("--src-mac {b} --dst-mac {a} {ports} {back}"));
            turn(&mut turned);
            assert_eq!(turned, other, "{there}");
        }
    }

    #[test]
    fn what_is_cut_short_does_no_harm() {
        let whole = frame(
            "--src-mac 2:0:0:0:0:1 --dst-mac 2:0:0:0:0:2 --src 10.0.0.1 --dst 10.0.0.2 --tunnel vxlan \
             --tunnel-src 1.1.1.1 --tunnel-dst 2.2.2.2",
        );
        for len in 0..whole.len() {
            turn(&mut whole[..len].to_vec());
        }
    }
}
