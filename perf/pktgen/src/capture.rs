//! The frames of a capture, pcap or pcapng, in memory.

use std::{fs, io::Cursor, path::Path, time::Duration};

use anyhow::{Context, bail};
use pcap_file::{
    DataLink,
    pcap::PcapReader,
    pcapng::{Block, PcapNgReader},
};

/// First bytes of a pcapng file: the type of its section header block.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    /// When it came, after the first one.
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    /// Whole frames, in the file's order.
    pub(crate) frames: Vec<Captured>,
    /// Frames of which only the beginning was captured: left out.
    pub(crate) cut: usize,
}

/// A frame as a file tells it: time since the epoch, bytes, length on the wire.
type Told<'a> = (Duration, &'a [u8], u32);

// === impl Capture ===

impl Capture {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no capture, of something else than Ethernet, or without a single whole frame.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("--file {}", path.display()))?;
        let capture = Self::parse(&bytes).with_context(|| format!("--file {}", path.display()))?;
        if capture.frames.is_empty() {
            bail!("--file {}: there is no whole frame in it", path.display());
        }
        Ok(capture)
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut capture = Self::default();
        let mut first = None;
        let mut keep = |(time, bytes, length): Told<'_>| {
            let first = *first.get_or_insert(time);
            if bytes.len() == length as usize && !bytes.is_empty() {
                let at = time.saturating_sub(first);
                capture.frames.push(Captured { at, bytes: bytes.to_vec() });
            } else {
                capture.cut += 1;
            }
        };
        match bytes.starts_with(&PCAPNG) {
            true => pcapng(bytes, &mut keep)?,
            false => pcap(bytes, &mut keep)?,
        }
        Ok(capture)
    }
}

fn pcap(bytes: &[u8], keep: &mut impl FnMut(Told<'_>)) -> anyhow::Result<()> {
    let mut reader = PcapReader::new(Cursor::new(bytes)).context("neither pcap nor pcapng")?;
    must_be_ethernet(reader.header().datalink)?;
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        keep((packet.timestamp, &packet.data, packet.orig_len));
    }
    Ok(())
}

fn pcapng(bytes: &[u8], keep: &mut impl FnMut(Told<'_>)) -> anyhow::Result<()> {
    let mut reader = PcapNgReader::new(Cursor::new(bytes))?;
    while let Some(block) = reader.next_block() {
        match block? {
            Block::InterfaceDescription(interface) => must_be_ethernet(interface.linktype)?,
            Block::EnhancedPacket(packet) => {
                keep((packet.timestamp, &packet.data, packet.original_len));
            }
            // It has no time: with the frame before it.
            Block::SimplePacket(packet) => {
                keep((Duration::ZERO, &packet.data, packet.original_len))
            }
            _ => {}
        }
    }
    Ok(())
}

fn must_be_ethernet(link: DataLink) -> anyhow::Result<()> {
    anyhow::ensure!(link == DataLink::ETHERNET, "a capture of {link:?}, not of Ethernet frames");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::{
        pcap::{PcapHeader, PcapPacket, PcapWriter},
        pcapng::{
            PcapNgWriter,
            blocks::{
                enhanced_packet::EnhancedPacketBlock,
                interface_description::InterfaceDescriptionBlock,
            },
        },
    };

    fn written(link: DataLink) -> Vec<u8> {
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for (millis, length) in [(1000, 60), (1005, 60), (1006, 70)] {
            let packet = PcapPacket::new(Duration::from_millis(millis), length, &[7; 60]);
            writer.write_packet(&packet).unwrap();
        }
        writer.into_writer()
    }

    #[test]
    fn whole_frames_are_read_with_their_times_and_cut_ones_counted() {
        let capture = Capture::parse(&written(DataLink::ETHERNET)).unwrap();
        let times: Vec<_> = capture.frames.iter().map(|frame| frame.at.as_millis()).collect();
        assert_eq!((times, capture.cut), (vec![0, 5], 1));
        assert_eq!(capture.frames[0].bytes, [7; 60]);
    }

    #[test]
    fn pcapng_is_read_too() {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let interface =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options: vec![] };
        writer.write_pcapng_block(interface).unwrap();
        for millis in [9_i32, 12] {
            let packet = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_millis(millis as u64),
                original_len: 3,
                data: b"abc".as_slice().into(),
                options: vec![],
            };
            writer.write_pcapng_block(packet).unwrap();
        }
        let capture = Capture::parse(&writer.into_inner()).unwrap();
        assert_eq!(capture.frames.len(), 2);
        assert_eq!(capture.frames[1].at, Duration::from_millis(3));
    }

    #[test]
    fn what_is_no_capture_of_ethernet_is_refused() {
        let error = Capture::parse(b"hello, world, hello, world").unwrap_err().to_string();
        assert!(error.contains("neither pcap nor pcapng"), "{error}");
        let error = Capture::parse(&written(DataLink::RAW)).unwrap_err().to_string();
        assert!(error.contains("not of Ethernet"), "{error}");
        let whole = written(DataLink::ETHERNET);
        assert!(Capture::parse(&whole[..whole.len() - 5]).is_err(), "an end in the middle");
    }
}
