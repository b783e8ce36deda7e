//! `margayctl capture`: packets as a pcapng file, with what became of each as its comment.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use margay_protocol::proto;
use margay_protocol::proto::sighting::Fate;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::show::Way;
use super::{each, filter, open};
use crate::failure::Failure;
use crate::options::Options;

/// Arguments of `capture`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    filter: filter::Filter,
    /// The file to write, - for standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// Frames as they arrive, as they leave, or both
    #[arg(long, value_enum, default_value_t = At::Both)]
    at: At,
    /// Ends after so many packets; 0 for no end
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: u64,
    /// Ends after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Where frames are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum At {
    /// Before the dataplane
    In,
    /// Behind it
    Out,
    /// Both
    Both,
}

/// A file, and the interfaces that it has described.
struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: Vec<String>,
    frames: u64,
}

/// Writes packets until there are enough.
pub(in crate::dataplane) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let bad = |source: PcapError| Failure::Capture { path: args.write.clone(), source };
    let sightings = open(options, &args.filter, args.count).await?;
    let out: Box<dyn Write> = match args.write.as_os_str().to_str() {
        Some("-") => Box::new(io::stdout()),
        _ => Box::new(File::create(&args.write).map_err(|error| bad(PcapError::IoError(error)))?),
    };
    let writer = PcapNgWriter::new(BufWriter::new(out)).map_err(bad)?;
    let mut capture = Capture { writer, interfaces: Vec::new(), frames: 0 };
    each(sightings, args.timeout, |sighting| capture.push(sighting, args.at)?.map_err(bad)).await?;
    let frames = capture.frames;
    capture.writer.into_inner().flush()?;
    eprintln!("margayctl: {frames} frames written to {}", args.write.display());
    Ok(())
}

// === impl Capture ===

impl<W: Write> Capture<W> {
    fn push(
        &mut self,
        sighting: proto::Sighting,
        at: At,
    ) -> Result<Result<(), PcapError>, Failure> {
        let time = Duration::from_nanos(sighting.time_ns);
        let (from, before) = (sighting.from.clone(), sighting.before.clone());
        let (to, after) = match &sighting.fate {
            Some(Fate::Forwarded(to)) => (Some(to.clone()), sighting.after.clone()),
            _ => (None, Vec::new()),
        };
        let comment = Way::new(sighting)?.comment();
        let mut written = Ok(());
        if at != At::Out {
            written = written.and_then(|()| self.frame(&from, time, before, comment.clone()));
        }
        if at != At::In
            && let Some(to) = to
        {
            written = written.and_then(|()| self.frame(&to, time, after, comment));
        }
        Ok(written)
    }

    fn frame(
        &mut self,
        interface: &str,
        timestamp: Duration,
        data: Vec<u8>,
        comment: String,
    ) -> Result<(), PcapError> {
        let interface_id = self.interface(interface)?;
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id,
            timestamp,
            original_len: data.len() as u32,
            data: Cow::Owned(data),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment))],
        })?;
        self.frames += 1;
        Ok(())
    }

    /// The number of an interface, which is described when it is first met.
    fn interface(&mut self, name: &str) -> Result<u32, PcapError> {
        if let Some(number) = self.interfaces.iter().position(|known| known == name) {
            return Ok(number as u32);
        }
        self.writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                // Nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        })?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }
}
