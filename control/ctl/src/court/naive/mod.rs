//! The compiler and the classifier against an evaluation written apart from them, on generated
//! datastores.
//!
//! - [`make`]: documents and packets; [`read`]: what the documents say, read by `serde_json` alone
//!   and followed rule by rule, without any index.
//!
//! Nothing is shared with what it is held against, not even the reading of selectors. Everything
//! follows from seeds; `MARGAY_NAIVE_DATASTORES=N` makes N datastores instead of a hundred (500
//! packets each), `MARGAY_NAIVE_SEED=S` begins with another one than 0. What disagrees is told with
//! the fewest documents and rules that still do.

mod make;
mod read;

use std::env;

use fastrand::Rng;
use margay_resources::Resource;
use serde_json::Value;

use super::{Court, compile};
use crate::simulate;
use read::Packet;
use read::verdict::Evaluator;

const DATASTORES: u64 = 100;
const PACKETS: usize = 500;

#[test]
fn policies_decide_as_their_documents_say() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("MARGAY_NAIVE_SEED").unwrap_or(0);
    let count = number("MARGAY_NAIVE_DATASTORES").unwrap_or(DATASTORES);
    for seed in first..first + count {
        let mut rng = Rng::with_seed(seed);
        let documents = make::datastore(&mut rng);
        let packets = make::packet::packets(&mut rng, &documents, PACKETS);
        if let Some(packet) = disagreement(&documents, &packets) {
            panic!("seed {seed}: {}", told(smallest(documents, packet), packet));
        }
    }
}

/// The first packet on which the two are not of one mind.
fn disagreement(documents: &[Value], packets: &[Packet]) -> Option<Packet> {
    let evaluator = Evaluator::read(documents);
    let said = simulated(documents, packets);
    assert_eq!(said.len(), packets.len());
    let mut pairs = packets.iter().zip(said);
    pairs.find(|(packet, said)| evaluator.answer(packet) != *said).map(|(packet, _)| *packet)
}

/// What `policy simulate` answers.
fn simulated(documents: &[Value], packets: &[Packet]) -> Vec<Value> {
    let read = |value: &Value| {
        Resource::from_value(value).unwrap_or_else(|error| panic!("{error}\n{value:#}"))
    };
    let compiler = compile(documents.iter().map(read));
    let mut court = Court { passages: false, ..Court::small(&compiler) };
    let lines: String = packets.iter().map(|packet| format!("{}\n", packet.line())).collect();
    let mut answers = Vec::new();
    simulate::answer(&mut court, lines.as_bytes(), &mut answers).unwrap();
    let answers = String::from_utf8(answers).unwrap();
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is left when every document and every rule has gone that the disagreement does not need.
fn smallest(mut documents: Vec<Value>, packet: Packet) -> Vec<Value> {
    let still = |documents: &[Value]| disagreement(documents, &[packet]).is_some();
    for at in (0..documents.len()).rev() {
        let mut fewer = documents.clone();
        fewer.remove(at);
        if still(&fewer) {
            documents = fewer;
        }
    }
    for at in 0..documents.len() {
        for direction in ["ingress", "egress"] {
            let rules = documents[at]["spec"][direction].as_array().map_or(0, Vec::len);
            for rule in (0..rules).rev() {
                let mut fewer = documents.clone();
                fewer[at]["spec"][direction].as_array_mut().unwrap().remove(rule);
                if still(&fewer) {
                    documents = fewer;
                }
            }
        }
    }
    documents
}

fn told(documents: Vec<Value>, packet: Packet) -> String {
    let naive = Evaluator::read(&documents).answer(&packet);
    let said = simulated(&documents, &[packet]).remove(0);
    let documents: Vec<_> = documents.iter().map(Value::to_string).collect();
    let documents = documents.join("\n");
    format!("{}\n{documents}\nthe documents say {naive}\nmargayctl says    {said}", packet.line())
}
