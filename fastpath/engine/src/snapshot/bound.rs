//! Ports that processes of the node have bound: masquerading gives them to nobody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use margay_wire::protocol;

/// Ports by protocol. They change while workers look: a port more or less is for new connections
/// only, so no decision is made anew.
#[derive(Debug)]
pub struct BoundPorts {
    tcp: Box<[AtomicU64]>,
    udp: Box<[AtomicU64]>,
}

const WORDS: usize = 1 << 10;

impl Default for BoundPorts {
    fn default() -> Self {
        let none = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { tcp: none(), udp: none() }
    }
}

impl BoundPorts {
    /// Whether a process has the port, of a protocol by its number.
    pub fn contains(&self, ip_protocol: u8, port: u16) -> bool {
        let word = self.words(ip_protocol).and_then(|words| words.get(usize::from(port / 64)));
        word.is_some_and(|word| word.load(Relaxed) >> (port % 64) & 1 != 0)
    }

    /// Takes exactly these ports for bound; does nothing for a protocol other than TCP and UDP.
    pub fn replace(&self, ip_protocol: u8, ports: impl IntoIterator<Item = u16>) {
        let Some(words) = self.words(ip_protocol) else { return };
        let mut new = vec![0u64; WORDS];
        for port in ports {
            if let Some(word) = new.get_mut(usize::from(port / 64)) {
                *word |= 1 << (port % 64);
            }
        }
        words.iter().zip(new).for_each(|(word, new)| word.store(new, Relaxed));
    }

    fn words(&self, ip_protocol: u8) -> Option<&[AtomicU64]> {
        match ip_protocol {
            protocol::TCP => Some(&self.tcp),
            protocol::UDP => Some(&self.udp),
            _ => None,
        }
    }
}
