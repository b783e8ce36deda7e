//! A flow table that a dead process left, with words of it overwritten: whatever stands there, a
//! process takes it over, or says that it cannot, and goes on with a table that works.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use margay_tables::addr::{Addr, Tuple};
use margay_tables::flow::{
    Cursor, FlowConfig, FlowTable, FlowWorker, Insert, NewFlow, Region, Share, Worth,
};

/// Bytes that say what happens to one word: its place, how, and a byte of the new value.
pub const GRAIN: usize = 4;

const CONFIG: FlowConfig = FlowConfig { v4: 16, v6: 16, participants: 2, denial_share: 2 };

/// A file in memory, and what a process leaves in it that dies with the table half full.
struct Image {
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
}

thread_local! {
    static IMAGE: RefCell<Option<Image>> = const { RefCell::new(None) };
}

/// Overwrites words, then takes the table over.
pub fn run(changes: &[u8]) {
    IMAGE.with_borrow_mut(|image| {
        let image = image.get_or_insert_with(Image::new);
        let mut bytes = image.bytes.clone();
        changes.chunks_exact(GRAIN).take(64).for_each(|change| overwrite(&mut bytes, change));
        image.file.write_all_at(&bytes, 0).expect("a file in memory");
        let region = Region::file(&image.path, bytes.len()).expect("a file in memory");
        if let Ok(table) = FlowTable::open(region, &CONFIG, 1) {
            works(&Arc::new(table));
        }
    });
}

fn overwrite(bytes: &mut [u8], change: &[u8]) {
    let &[hi, lo, how, value] = change else { return };
    let words = bytes.len() / 8;
    // The header is mostly refused; the rest is what is to be survived.
    let first = if how & 0x80 != 0 { 0 } else { 8 };
    let at = first + usize::from(u16::from_be_bytes([hi, lo])) % (words - first);
    let word: &mut [u8; 8] = bytes[at * 8..].first_chunk_mut().expect("a word");
    let old = u64::from_ne_bytes(*word);
    let new = match how & 7 {
        0 => u64::from(value),
        1 => u64::MAX - u64::from(value),
        2 => old ^ 1 << (value & 63),
        3 => old.wrapping_add(u64::from(value)).wrapping_sub(128),
        4 => u64::from(value).wrapping_mul(0x0101_0101_0101_0101),
        5 => u64::from(value) << 32 | old & 0xffff_ffff,
        6 => old & !0xff | u64::from(value),
        _ => old.rotate_left(u32::from(value)),
    };
    *word = new.to_ne_bytes();
}

fn tuple(v4: bool, n: u8) -> Tuple {
    let addr = |last: u8| match v4 {
        true => Addr::from([10, 65, 0, last]),
        false => Addr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, last]),
    };
    let src_port = 1000 + u16::from(n);
    Tuple { src: addr(2), dst: addr(3), src_port, dst_port: 80, protocol: 6, zone: 0 }
}

fn connection(v4: bool, n: u8) -> NewFlow {
    let orig = tuple(v4, n);
    NewFlow::connection(orig, Tuple { dst_port: 61_000 + u16::from(n), ..orig.reversed() }, 5)
}

/// Everything that workers do with a table ends, and what is entered is found.
fn works(table: &Arc<FlowTable>) {
    let mut worker = FlowWorker::new(table.clone()).expect("a seat");
    let mut cursor = Cursor::default();
    let mut seen = 0;
    while let Some(next) = worker.list(cursor, 64, |flow| {
        seen += 1;
        let _ = (flow.tuple(), flow.rewrite(), flow.decision(), flow.conntrack(), flow.marks());
        if !flow.is_denial() {
            let _ = (flow.peer().tuple(), flow.peer().rule());
        }
    }) {
        cursor = next;
    }
    assert!(seen <= 32, "{seen} connections in room for 32");
    for n in 0..48 {
        let v4 = n % 2 == 0;
        let new = connection(v4, n);
        if let Insert::New(id) = worker.insert(&new) {
            let found = table.lookup(&new.orig, table.hash(&new.orig)).map(|flow| flow.id());
            assert_eq!(found, Some(id), "what was entered is found");
        }
        worker.quiesce();
    }
    worker.evict(1_000, true, 4, |_| Worth::HalfOpen);
    worker.sweep(10_000, 64, Share { index: 0, of: 1 }, |_| 60_000);
    worker.remove_where(|_| true);
    for _ in 0..4 {
        worker.quiesce();
    }
    assert_eq!(table.counts().connections, 0, "nothing is left after all was removed");
    let new = connection(true, 1);
    assert!(matches!(worker.insert(&new), Insert::New(_)), "an empty table has room");
}

// === impl Image ===

impl Image {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/margay-fuzz-{}", std::process::id()));
        let bytes = FlowTable::required_bytes(&CONFIG).expect("a good configuration");
        let region = Region::file(&path, bytes).expect("a file in memory");
        let table = Arc::new(FlowTable::create(region, &CONFIG, 7, 1).expect("room"));
        let mut worker = FlowWorker::new(table).expect("a seat");
        for n in 0..16 {
            let entered = worker.insert(&connection(n % 2 == 0, n));
            assert!(matches!(entered, Insert::New(_)), "half of the table is free");
        }
        // As a kill does: nothing is dropped.
        std::mem::forget(worker);
        let bytes = std::fs::read(&path).expect("a file in memory");
        let file = File::options().write(true).open(&path).expect("a file in memory");
        Self { path, file, bytes }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
