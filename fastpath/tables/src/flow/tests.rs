//! The table as a whole: against a naive model, under threads, across a crash.

#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
mod crash;
#[cfg(not(loom))]
mod model;
#[cfg(not(loom))]
mod stress;
#[cfg(not(loom))]
mod walk;

use std::sync::Arc;

use super::*;
use crate::addr::{Addr, Tuple};

/// A tuple between two small numbers' addresses.
fn tuple(v6: bool, src: u16, dst: u16, src_port: u16, dst_port: u16) -> Tuple {
    let addr = |n: u16| {
        if v6 {
            Addr::from_bits(0xfd00 << 112 | u128::from(n))
        } else {
            Addr::from_v4_bits(10 << 24 | u32::from(n))
        }
    };
    Tuple { src: addr(src), dst: addr(dst), src_port, dst_port, protocol: 6, zone: 0 }
}

fn table(v4: u32, v6: u32) -> Arc<FlowTable> {
    let config = FlowConfig { v4, v6, participants: 8, denial_share: 2 };
    let region = Region::heap(FlowTable::required_bytes(&config).unwrap());
    Arc::new(FlowTable::create(region, &config, 0x5eed, 1).unwrap())
}

fn worker(table: &Arc<FlowTable>) -> FlowWorker {
    FlowWorker::new(table.clone()).unwrap()
}

fn find(table: &FlowTable, tuple: Tuple) -> Option<FlowId> {
    table.lookup(&tuple, table.hash(&tuple)).map(|flow| flow.id())
}
