//! Ethernet II.

use std::ops::{Deref, DerefMut};

/// Length of the header in bytes.
pub const LEN: usize = 14;

/// EtherTypes that the dataplane knows.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// View of an Ethernet header.
pub struct Ethernet<B>(pub B);

impl<B: Deref<Target = [u8; LEN]>> Ethernet<B> {
    /// Destination address.
    pub fn dst(&self) -> [u8; 6] {
        let b = &*self.0;
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }

    /// Source address.
    pub fn src(&self) -> [u8; 6] {
        let b = &*self.0;
        [b[6], b[7], b[8], b[9], b[10], b[11]]
    }

    /// EtherType.
    pub fn ethertype(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

impl<B: DerefMut<Target = [u8; LEN]>> Ethernet<B> {
    /// Sets the EtherType.
    pub fn set_ethertype(&mut self, ethertype: u16) {
        self.0[12..].copy_from_slice(&ethertype.to_be_bytes());
    }

    /// Writes the whole header.
    pub fn emit(&mut self, dst: [u8; 6], src: [u8; 6], ethertype: u16) {
        let b = &mut *self.0;
        b[..6].copy_from_slice(&dst);
        b[6..12].copy_from_slice(&src);
        b[12..].copy_from_slice(&ethertype.to_be_bytes());
    }
}
