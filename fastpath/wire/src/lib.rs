//! Bytes to values and back, for the headers that the packet path touches.
//!
//! A header is a view over a fixed-size array: getting the array out of a frame is the one length
//! check ([`at`], [`at_mut`]), after which no accessor can fail. All numbers are handed out in
//! host byte order.
//!
//! In the order of a frame: [`ethernet`], [`ipv4`], [`ipv6`], [`transport`] (the ports, flags and
//! checksums of TCP, UDP, SCTP and ICMP), [`vxlan`]; and [`checksum`] for all of them.

pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod transport;
pub mod vxlan;

pub mod checksum;

/// The `N` bytes at `offset`, or nothing where the frame ends before.
#[inline]
pub fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<&[u8; N]> {
    bytes.get(offset..)?.first_chunk()
}

/// The `N` bytes at `offset` for writing, or nothing where the frame ends before.
#[inline]
pub fn at_mut<const N: usize>(bytes: &mut [u8], offset: usize) -> Option<&mut [u8; N]> {
    bytes.get_mut(offset..)?.first_chunk_mut()
}

/// IP protocol numbers (IANA "Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP, RFC 2003.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}
