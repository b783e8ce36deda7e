//! The command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use margay_xsk::program::XdpMode;

use crate::{
    benchmark::Procedure,
    outer,
    sizes::Sizes,
    values::{mac, positive, seconds, share, source_range},
};

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
    Send(Box<SendArguments>),
    /// Counts what arrives, by sequence number
    Sink(SinkArguments),
    /// Sends the packets of a capture
    Replay(ReplayArguments),
    /// Measures a device as RFC 2544 says: frame sizes with checksum, 64 to 1518
    Rfc2544(Box<BenchmarkArguments>),
    /// Measures tunnels as RFC 8219 says: its frame sizes, declared overhead, delay variation
    Rfc8219(Box<BenchmarkArguments>),
}

/// The interface that sends, or the only one.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Interface
    #[arg(long, value_name = "IF")]
    pub(crate) interface: String,
    /// Network namespace of the interface, by its name below /run/netns
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,
    /// CPU to run on
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<usize>,
}

/// What the packets are.
#[derive(Debug, Args)]
pub(crate) struct Traffic {
    /// Connections: each has its own addresses and ports
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
    /// What the packets are
    #[arg(long, value_enum, default_value_t = Protocol::Udp)]
    pub(crate) protocol: Protocol,
    /// Destination port; each 50,000 connections of a source take the next one
    #[arg(long, value_name = "PORT", default_value_t = 5000)]
    pub(crate) dst_port: u16,
    /// Send them through a tunnel: --src and --dst are inside, and the sizes count its headers
    #[arg(long, value_enum, requires = "tunnel_src", requires = "tunnel_dst")]
    pub(crate) tunnel: Option<Tunnel>,
    /// Outer source address
    #[arg(long, value_name = "IP", requires = "tunnel")]
    pub(crate) tunnel_src: Option<IpAddr>,
    /// Outer destination address
    #[arg(long, value_name = "IP", requires = "tunnel")]
    pub(crate) tunnel_dst: Option<IpAddr>,
    /// VXLAN network identifier
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(..1 << 24))]
    pub(crate) vni: u32,
    /// Ethernet source inside VXLAN
    #[arg(long, value_name = "MAC", value_parser = mac, default_value = "02:00:00:00:00:01")]
    pub(crate) inner_src_mac: [u8; 6],
    /// Ethernet destination inside VXLAN: the far end's
    #[arg(long, value_name = "MAC", value_parser = mac, default_value = "02:00:00:00:00:02")]
    pub(crate) inner_dst_mac: [u8; 6],
}

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// How long to send
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds at the beginning that are left out of the rates
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Length of the frames, Ethernet header included, without checksum: as the MTU allows, up to
    /// 9230; or imix (7:4:1 of 60, 590 and 1514), or lengths with weights: 60:7,590:4,1514:1
    #[arg(long, value_name = "BYTES|MIX", default_value = "60", value_parser = Sizes::parse)]
    pub(crate) size: Sizes,
    /// Packets a second; as many as possible if not given
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Also count what arrives at this interface
    #[arg(long, value_name = "IF")]
    pub(crate) sink_interface: Option<String>,
    /// Network namespace of that interface
    #[arg(long, value_name = "NAME")]
    pub(crate) sink_netns: Option<String>,
    /// How XDP runs there
    #[arg(long, value_enum, default_value_t = Xdp::Native)]
    pub(crate) sink_xdp: Xdp,
    /// Have the connections answered: of what arrives, 10,000 packets a second go back the way that
    /// they came, turned around; and how XDP runs at --interface, where they are counted
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "native", requires = "sink_interface")]
    pub(crate) answers: Option<Xdp>,
    /// Form of the result
    #[arg(short = 'o', value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct SinkArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Stop after that time; otherwise on SIGINT or SIGTERM
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Seconds after the first packet that are left out of the rate
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// The largest frame that must fit, Ethernet header included
    #[arg(long, value_name = "BYTES", default_value_t = 1518 + outer::LARGEST)]
    pub(crate) frame: usize,
    /// How XDP runs; the interface loses its traffic meanwhile
    #[arg(long, value_enum, default_value_t = Xdp::Native)]
    pub(crate) xdp: Xdp,
    /// Form of the result
    #[arg(short = 'o', value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Capture of Ethernet frames, pcap or pcapng
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Packets a second; without it they come as far apart as they were captured
    #[arg(long, value_name = "PPS", conflicts_with = "top_speed", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// As fast as possible
    #[arg(long)]
    pub(crate) top_speed: bool,
    /// Begin again at the end, until --seconds are over or on SIGINT or SIGTERM
    #[arg(long = "loop")]
    pub(crate) again: bool,
    /// Stop after that time
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Ethernet destination of every frame, in place of the captured one
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(crate) dst_mac: Option<[u8; 6]>,
    /// Ethernet source of every frame
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(crate) src_mac: Option<[u8; 6]>,
    /// Form of the result
    #[arg(short = 'o', value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// Where no default is shown, the RFC's own value holds.
#[derive(Debug, Args)]
pub(crate) struct BenchmarkArguments {
    /// What to measure
    #[arg(value_enum, required = true, value_name = "TEST")]
    pub(crate) procedures: Vec<Procedure>,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) traffic: Traffic,
    /// Interface at which the packets arrive
    #[arg(long, value_name = "IF")]
    pub(crate) sink_interface: String,
    /// Network namespace of that interface
    #[arg(long, value_name = "NAME")]
    pub(crate) sink_netns: Option<String>,
    /// How XDP runs where packets arrive
    #[arg(long, value_enum, default_value_t = Xdp::Native)]
    pub(crate) sink_xdp: Xdp,
    /// Send in both directions at once: the sink's interface answers to this Ethernet address
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub(crate) both: Option<[u8; 6]>,
    /// Frame sizes with checksum, in bytes
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) sizes: Vec<usize>,
    /// Rate at which the search begins; what the generator can do if neither this nor --line is given
    #[arg(long, value_name = "PPS", value_parser = positive, conflicts_with = "line")]
    pub(crate) max_rate: Option<f64>,
    /// Speed of the medium in Gb/s, which gives the highest rate of each frame size
    #[arg(long, value_name = "GBPS", value_parser = positive)]
    pub(crate) line: Option<f64>,
    /// Rate of latency and of delay variation; the measured throughput if not given
    #[arg(long, value_name = "PPS", value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Seconds of each trial: 60, of latency 120, of delay variation 60, of bursts 2
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) seconds: Option<f64>,
    /// How often latency (20) and bursts (50) are measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeats: Option<u32>,
    /// The search ends when it knows the rate that exactly
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub(crate) resolution: f64,
    /// Share of the packets that may be lost; the RFC allows none
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) tolerance: Option<f64>,
    /// After a trial, wait until nothing arrives for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) settle: f64,
    /// Between trials, let the device rest
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) pause: f64,
    /// Bytes that the device adds to each frame, if it is one end of a tunnel
    #[arg(long, value_name = "BYTES")]
    pub(crate) overhead: Option<usize>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tunnel {
    /// RFC 7348
    Vxlan,
    /// RFC 2003
    Ipip,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
