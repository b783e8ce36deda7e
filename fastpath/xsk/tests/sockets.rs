//! Sockets on real veths: nothing is lost, nothing is there twice.

mod rig;

use std::time::Duration;

use arrayvec::ArrayVec;
use margay_xsk::{Frame, Kick};
use rig::{Namespace, Station, region, veth};

const PATIENCE: Duration = Duration::from_secs(5);

/// A frame with a number, of an Ethertype for experiments.
fn numbered(number: u16) -> Vec<u8> {
    let mut packet = vec![0xff; 60];
    packet[12..14].copy_from_slice(&[0x88, 0xb5]);
    packet[14..16].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Sends back what arrives until nothing arrives any more.
fn echo(station: &mut Station, wanted: usize) {
    let Station { socket, pool, .. } = station;
    let mut batch = ArrayVec::<Frame, 64>::new();
    let mut seen = 0;
    while seen < wanted {
        socket.complete(pool);
        seen += socket.rx(&mut batch);
        let mut rest = batch.drain(..);
        socket.tx(&mut rest);
        assert_eq!(rest.len(), 0, "the tx ring has room");
        drop(rest);
        assert_eq!(socket.kick_tx(), Ok(Kick::Done));
        socket.fill(pool);
    }
}

#[test]
fn an_echo_keeps_every_frame() {
    const COUNT: u16 = 10_000;
    let (near, far) = (Namespace::new(), Namespace::new());
    veth(&near, "near", &far, "far");
    let (near_region, far_region) = (region(1024), region(1024));
    let (near_index, far_index) = (near.ifindex("near"), far.ifindex("far"));

    std::thread::scope(|scope| {
        let far = scope.spawn(|| {
            far.enter(|| {
                let mut station = Station::open(far_region, "far", far_index);
                echo(&mut station, usize::from(COUNT));
                assert_eq!(station.socket.counters().rx, u64::from(COUNT));
                assert_eq!(station.socket.counters().tx, u64::from(COUNT));
            });
        });
        near.enter(|| {
            let mut station = Station::open(near_region, "near", near_index);
            std::thread::sleep(Duration::from_millis(200));
            let packets: Vec<_> = (0..COUNT).map(numbered).collect();
            for group in packets.chunks(64) {
                station.send(group.iter().map(Vec::as_slice));
                assert_eq!(station.receive(group.len(), PATIENCE), group);
            }
        });
        far.join().unwrap();
    });

    for region in [near_region, far_region] {
        assert_eq!(region.spare(), 1024, "every chunk is back");
    }
}
