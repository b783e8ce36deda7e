//! The frames of a dry run: made of addresses and ports, or read from a capture.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use etherparse::{IpNumber, PacketBuilder};
use margay_protocol::proto;
use margay_resources::v3::Protocol;
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, PcapError};

use crate::failure::Failure;

/// Which packets a dry run is about.
#[derive(Debug, clap::Args)]
pub(super) struct Described {
    /// Source address
    #[arg(long, value_name = "IP", requires = "dry_run", requires = "dst")]
    src: Option<IpAddr>,
    /// Destination address
    #[arg(long, value_name = "IP", requires = "dry_run", requires = "src")]
    dst: Option<IpAddr>,
    /// Source port
    #[arg(long, value_name = "PORT", requires = "src", default_value_t = 40_000)]
    sport: u16,
    /// Destination port
    #[arg(long, value_name = "PORT", requires = "src")]
    dport: Option<u16>,
    /// TTL or hop limit
    #[arg(long, requires = "src", default_value_t = 64)]
    ttl: u8,
    /// Length of the payload in bytes
    #[arg(long, value_name = "BYTES", requires = "src", default_value_t = 0)]
    payload: u16,
    /// The packets of this pcap or pcapng file, with Ethernet headers
    #[arg(long, value_name = "FILE", requires = "dry_run", conflicts_with = "src")]
    pcap: Option<PathBuf>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Window of a SYN.
const WINDOW: u16 = 64_240;
/// Ethernet source: a unicast address that nobody has. The destination is left to the dataplane.
const STRANGER: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
/// Magic of pcapng's section header.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

// === impl Described ===

impl Described {
    /// Arguments of a dry run without `--dry-run`.
    pub(super) fn forbid(&self) -> Result<(), Failure> {
        match self.src.is_some() || self.pcap.is_some() {
            true => Err(Failure::Usage("--src, --dst and --pcap need --dry-run")),
            false => Ok(()),
        }
    }
}

/// The frames, all from one interface if it is named.
pub(super) fn read(
    args: &Described,
    protocol: Option<Protocol>,
    from: Option<&str>,
) -> Result<Vec<proto::ProbeFrame>, Failure> {
    let frames = match (&args.pcap, args.src, args.dst) {
        (Some(path), ..) => of_file(path)?,
        (None, Some(src), Some(dst)) => vec![made(args, protocol, src, dst)?],
        _ => return Err(Failure::Usage("--dry-run needs --src and --dst, or --pcap FILE")),
    };
    let from = from.unwrap_or_default();
    Ok(frames.into_iter().map(|bytes| proto::ProbeFrame { bytes, from: from.into() }).collect())
}

/// The first packet of a connection.
fn made(
    args: &Described,
    protocol: Option<Protocol>,
    src: IpAddr,
    dst: IpAddr,
) -> Result<Vec<u8>, Failure> {
    let link = PacketBuilder::ethernet2(STRANGER, [0; 6]);
    let ip = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), args.ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), args.ttl),
        _ => return Err(Failure::Usage("--src and --dst are of different families")),
    };
    let protocol = protocol.map_or(TCP, |protocol| protocol.number());
    if protocol == (if src.is_ipv4() { ICMPV6 } else { ICMP }) {
        return Err(Failure::Usage("--protocol is of another family than --src and --dst"));
    }
    let port = || args.dport.ok_or(Failure::Usage("this protocol needs --dport"));
    let payload = vec![0; args.payload.into()];
    let mut frame = Vec::new();
    let written = match protocol {
        TCP => ip.tcp(args.sport, port()?, 1, WINDOW).syn().write(&mut frame, &payload),
        UDP => ip.udp(args.sport, port()?).write(&mut frame, &payload),
        ICMP => ip.icmpv4_echo_request(args.sport, 1).write(&mut frame, &payload),
        ICMPV6 => ip.icmpv6_echo_request(args.sport, 1).write(&mut frame, &payload),
        other => {
            // Where there are ports they come first; SCTP's header is 12 bytes.
            let mut bytes = args.sport.to_be_bytes().to_vec();
            bytes.extend(args.dport.unwrap_or(0).to_be_bytes());
            bytes.resize(12 + payload.len(), 0);
            ip.write(&mut frame, IpNumber(other), &bytes)
        }
    };
    written.map_err(|_| Failure::Usage("the packet is too long"))?;
    Ok(frame)
}

/// The frames of a capture.
fn of_file(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let bad = |source: PcapError| Failure::Capture { path: path.to_owned(), source };
    let file = std::fs::read(path).map_err(|e| bad(PcapError::IoError(e)))?;
    let frames = if file.starts_with(&PCAPNG) { of_pcapng(&file) } else { of_pcap(&file) };
    frames.map_err(bad)
}

fn of_pcapng(file: &[u8]) -> Result<Vec<Vec<u8>>, PcapError> {
    let (mut rest, mut parser) = PcapNgParser::new(file)?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (behind, block) = parser.next_block(rest)?;
        rest = behind;
        let (interface, data) = match block {
            Block::EnhancedPacket(packet) => (packet.interface_id, packet.data),
            Block::SimplePacket(packet) => (0, packet.data),
            _ => continue,
        };
        let interface = parser.interfaces().get(interface as usize);
        is_ethernet(interface.map(|interface| interface.linktype))?;
        frames.push(data.into_owned());
    }
    Ok(frames)
}

fn of_pcap(file: &[u8]) -> Result<Vec<Vec<u8>>, PcapError> {
    let (mut rest, parser) = PcapParser::new(file)?;
    is_ethernet(Some(parser.header().datalink))?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (behind, packet) = parser.next_packet(rest)?;
        rest = behind;
        frames.push(packet.data.into_owned());
    }
    Ok(frames)
}

fn is_ethernet(link: Option<DataLink>) -> Result<(), PcapError> {
    match link {
        Some(DataLink::ETHERNET) => Ok(()),
        _ => Err(PcapError::InvalidField("its packets have no Ethernet headers")),
    }
}
