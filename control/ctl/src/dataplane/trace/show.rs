//! A packet's way, for people and for programs.

use std::io::Write;

use jiff::Timestamp;
use margay_protocol::proto;
use margay_protocol::proto::sighting::Fate;
use serde::Serialize;

use super::layers;
use crate::dataplane::flows::{Flow, Tuple, address};
use crate::failure::Failure;

/// One packet's way.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Way {
    time: Timestamp,
    worker: u32,
    generation: u64,
    from: String,
    frame: String,
    bytes: usize,
    arriving: Option<Tuple>,
    tunneled: bool,
    lookup: &'static str,
    service: Option<String>,
    flow: Option<Flow>,
    leaving: Option<Tuple>,
    route: Option<Route>,
    fate: &'static str,
    to: Option<String>,
    reason: Option<String>,
    sentence: Option<String>,
    sent: Option<String>,
    sent_bytes: Option<usize>,
}

/// Where it was to go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    interface: String,
    neighbour: Option<std::net::IpAddr>,
    node: Option<String>,
    encapsulation: String,
    outer_src: Option<std::net::IpAddr>,
    outer_dst: Option<std::net::IpAddr>,
    mtu: u32,
    reachable: bool,
}

/// One line of JSON.
pub(super) fn json(out: &mut dyn Write, sighting: proto::Sighting) -> Result<(), Failure> {
    let way = Way::new(sighting)?;
    serde_json::to_writer(&mut *out, &way).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// A paragraph.
pub(super) fn text(out: &mut dyn Write, sighting: proto::Sighting) -> Result<(), Failure> {
    let way = Way::new(sighting)?;
    writeln!(out, "{}  worker {}, generation {}", way.time, way.worker, way.generation)?;
    for (title, text) in way.lines() {
        writeln!(out, "  {title:<10}{text}")?;
    }
    Ok(writeln!(out)?)
}

// === impl Way ===

impl Way {
    pub(super) fn new(sighting: proto::Sighting) -> Result<Self, Failure> {
        let lookup = match sighting.lookup() {
            proto::Lookup::Hit => "hit",
            proto::Lookup::Stale => "stale",
            proto::Lookup::Miss => "miss",
            proto::Lookup::None | proto::Lookup::Unspecified => "none",
        };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let time = i128::from(sighting.time_ns);
        let time = Timestamp::from_nanosecond(time);
        let (fate, to, reason) = match sighting.fate {
            Some(Fate::Forwarded(to)) => ("forwarded", Some(to), None),
            Some(Fate::Dropped(reason)) => ("dropped", None, Some(reason)),
            Some(Fate::Punted(reason)) => ("punted", None, Some(reason)),
            None => return Err(Failure::Answer("a packet without fate")),
        };
        let sent = to.as_ref().map(|_| (layers::line(&sighting.after), sighting.after.len()));
        let (sent, sent_bytes) = sent.unzip();
        let (reason, sentence) = reason.map(|r| (r.reason, r.sentence)).unzip();
        Ok(Self {
            time: time.map_err(|_| Failure::Answer("a time that is none"))?,
            worker: sighting.worker,
            generation: sighting.generation,
            from: sighting.from,
            frame: layers::line(&sighting.before),
            bytes: sighting.before.len(),
            arriving: sighting.arriving.map(|t| Tuple::new(Some(t))).transpose()?,
            tunneled: sighting.tunneled,
            lookup,
            service: some(sighting.service),
            flow: sighting.flow.map(Flow::new).transpose()?,
            leaving: sighting.leaving.map(|t| Tuple::new(Some(t))).transpose()?,
            route: sighting.hop.map(Route::new).transpose()?,
            fate,
            to,
            reason,
            sentence,
            sent,
            sent_bytes,
        })
    }

    /// What every stage found, by the stage's name.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let from = if self.from.is_empty() { "no port" } else { &self.from };
        let mut lines = vec![("received", format!("{from}, {} bytes: {}", self.bytes, self.frame))];
        if let Some(tuple) = &self.arriving {
            let tunnel = if self.tunneled { ", out of a tunnel" } else { "" };
            lines.push(("parse", format!("{tuple}{tunnel}")));
            lines.push(("flow", self.flow_line()));
        }
        if let Some(service) = &self.service {
            let backend = self.flow.as_ref().map(Flow::answered_by).unwrap_or_default();
            let backend =
                if backend.is_empty() { String::new() } else { format!(" → {backend}") };
            lines.push(("service", format!("{service}{backend}")));
        }
        if let Some(flow) = &self.flow {
            let [egress, ingress] = flow.rules();
            lines.extend(egress.map(|rule| ("egress", rule)));
            lines.extend(ingress.map(|rule| ("ingress", rule)));
        }
        lines.extend(self.route.as_ref().map(|route| ("route", route.text())));
        if let (Some(leaving), Some(arriving)) = (&self.leaving, &self.arriving)
            && leaving != arriving
        {
            lines.push(("rewrite", leaving.to_string()));
        }
        lines.push((self.fate, self.end()));
        lines
    }

    fn flow_line(&self) -> String {
        let how = match self.lookup {
            "hit" => "hit",
            "stale" => "hit, decided anew by the new state",
            "miss" => "miss, decided now",
            _ => "not looked up",
        };
        match &self.flow {
            Some(flow) => format!("{how}; {}", flow.summary()),
            None => how.into(),
        }
    }

    /// How it ended.
    fn end(&self) -> String {
        match (&self.to, &self.reason) {
            (Some(to), _) => format!(
                "{to}, {} bytes: {}",
                self.sent_bytes.unwrap_or(0),
                self.sent.as_deref().unwrap_or_default()
            ),
            (None, Some(reason)) => {
                format!("{reason}: {}", self.sentence.as_deref().unwrap_or_default())
            }
            (None, None) => String::new(),
        }
    }

    /// What a comment beside the packet says.
    pub(super) fn comment(&self) -> String {
        let lines = self.lines();
        let lines = lines.iter().filter(|(title, _)| *title != "received");
        lines.map(|(title, text)| format!("{title}: {text}")).collect::<Vec<_>>().join("\n")
    }
}

// === impl Route ===

impl Route {
    fn new(hop: proto::Hop) -> Result<Self, Failure> {
        let some = |bytes: &[u8]| match bytes {
            [] => Ok(None),
            bytes => address(bytes).map(Some),
        };
        Ok(Self {
            interface: hop.interface,
            neighbour: some(&hop.neighbour)?,
            node: Some(hop.node).filter(|node| !node.is_empty()),
            encapsulation: hop.encapsulation,
            outer_src: some(&hop.outer_src)?,
            outer_dst: some(&hop.outer_dst)?,
            mtu: hop.mtu,
            reachable: hop.reachable,
        })
    }

    fn text(&self) -> String {
        let mut text = self.interface.clone();
        if let (Some(src), Some(dst)) = (self.outer_src, self.outer_dst) {
            let node = self.node.as_deref().unwrap_or_default();
            text += &format!(", {} to node {node} ({src} → {dst})", self.encapsulation);
        } else if let Some(neighbour) = self.neighbour {
            text += &format!(" by {neighbour}");
        }
        if !self.reachable {
            text += ", whose Ethernet address is not known";
        }
        format!("{text}, MTU {}", self.mtu)
    }
}
