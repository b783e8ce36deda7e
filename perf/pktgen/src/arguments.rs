//! The command line.

use std::net::IpAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use margay_xsk::program::XdpMode;

/// Room for what a tunnel puts around a packet: VXLAN over IPv6.
pub(crate) const LARGEST_OUTER: usize = 70;

/// Sends numbered packets through AF_XDP, and counts what arrives.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends, as fast as it can or at a rate; with --sink-interface it also counts what arrives
    Send(SendArguments),
    /// Counts what arrives, by sequence number
    Sink(SinkArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    /// Interface to send from
    #[arg(long, value_name = "IF")]
    pub(crate) interface: String,
    /// Network namespace of the interface, by its name below /run/netns
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
    /// CPU to run on
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
    /// How long to send
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Seconds at the beginning that are left out of the rates
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) warm_up: f64,
    /// Length of the frames, Ethernet header included, without checksum
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    pub(crate) size: usize,
    /// Connections: each has its own ports and source address
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) flows: u32,
    /// Source address, or the first and last of a range: 10.0.0.1..10.0.0.9
    #[arg(long, value_name = "IP[..IP]", value_parser = source_range)]
    pub(crate) src: (IpAddr, IpAddr),
    /// Destination address
    #[arg(long, value_name = "IP")]
    pub(crate) dst: IpAddr,
    /// Ethernet address of the next hop
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(crate) dst_mac: [u8; 6],
    /// Ethernet source; the interface's own if not given
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(crate) src_mac: Option<[u8; 6]>,
    /// Packets a second; as many as possible if not given
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// What the packets are
    #[arg(long, value_enum, default_value_t = Protocol::Udp)]
    pub(crate) protocol: Protocol,
    /// Destination port of the first 50,000 connections; each 50,000 more take the next one
    #[arg(long, value_name = "PORT", default_value_t = 5000)]
    pub(crate) dst_port: u16,
    /// Also count what arrives at this interface
    #[arg(long, value_name = "IF")]
    pub(crate) sink_interface: Option<String>,
    /// Network namespace of that interface
    #[arg(long, value_name = "NAME")]
    pub(crate) sink_netns: Option<String>,
    /// How XDP runs there
    #[arg(long, value_enum, default_value_t = Xdp::Native)]
    pub(crate) sink_xdp: Xdp,
    /// Form of the result
    #[arg(short = 'o', value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct SinkArguments {
    /// Interface to receive from; it loses its traffic while this runs
    #[arg(long, value_name = "IF")]
    pub(crate) interface: String,
    /// Network namespace of the interface, by its name below /run/netns
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
    /// CPU to run on
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
    /// Stop after that time; otherwise on SIGINT or SIGTERM
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<f64>,
    /// Seconds after the first packet that are left out of the rate
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    pub(crate) warm_up: f64,
    /// The largest frame that must fit, Ethernet header included
    #[arg(long, value_name = "BYTES", default_value_t = 1518 + LARGEST_OUTER)]
    pub(crate) frame: usize,
    /// How XDP runs
    #[arg(long, value_enum, default_value_t = Xdp::Native)]
    pub(crate) xdp: Xdp,
    /// Form of the result
    #[arg(short = 'o', value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Datagrams
    Udp,
    /// First segments of connections
    TcpSyn,
}

/// How the program runs that takes the packets from the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Xdp {
    /// In the driver
    Native,
    /// In the stack: sees also what the kernel redirects to the interface
    Generic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

// === impl Xdp ===

impl From<Xdp> for XdpMode {
    fn from(xdp: Xdp) -> Self {
        match xdp {
            Xdp::Native => Self::Native,
            Xdp::Generic => Self::Generic,
        }
    }
}

fn source_range(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let parse = |part: &str| part.parse::<IpAddr>().map_err(|error| format!("{part}: {error}"));
    match (parse(first)?, parse(last)?) {
        (first, last) if first.is_ipv4() == last.is_ipv4() && first <= last => Ok((first, last)),
        _ => Err("the first address comes after the last, or is of another family".into()),
    }
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        *byte = (part.and_then(|part| u8::from_str_radix(part, 16).ok()))
            .ok_or("write an Ethernet address as 02:00:00:00:00:01")?;
    }
    parts.next().map_or(Ok(bytes), |_| Err("an Ethernet address has six bytes".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_range_of_sources_is_two_addresses_of_one_family_in_order() {
        let (first, last) = source_range("10.0.0.1..10.0.0.9").unwrap();
        assert_eq!((first.to_string(), last.to_string()), ("10.0.0.1".into(), "10.0.0.9".into()));
        assert_eq!(source_range("fd00::1").unwrap().0, source_range("fd00::1").unwrap().1);
        for bad in ["10.0.0.2..10.0.0.1", "10.0.0.1..fd00::1", "10.0.0.1..", "x"] {
            assert!(source_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ethernet_address_is_six_bytes() {
        assert_eq!(mac("ee:ee:ee:ee:ee:01").unwrap(), [0xee, 0xee, 0xee, 0xee, 0xee, 1]);
        for bad in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:+6", "1:2:3:4:5:100"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }
}
